"""What rounding to int8 costs: an int8 graph against the exact one, on labelled songs that trained neither.

It is shipped where it costs no more accuracy than it may, where nearly all songs get the answer of the exact one, and
where a song gets the same answer in every batch.
"""

import numpy as np

from segue.data.song import Floats, Ints
from segue.export.parity import edge_windows
from segue.serving.bundle.manifest import Rounding
from segue.serving.cascade import Model

SAME_ANSWER = 0.01  # Largest difference of a logit that the other songs of a batch may make.
ALONE_SONGS = 64  # That are asked about one by one, too, ...
TOGETHER_SONGS = 8  # ... and so many at a time together with edge cases.
NORMAL_95 = 1.959964


def compare_rounded(exact: Model, rounded: Model, windows: Floats, labels: Ints) -> Rounding:
    """Compare an int8 model with the exact one on windows (n, 120, 25) of n labelled songs."""
    said, expected = rounded.logits(windows), exact.logits(windows).argmax(axis=1)
    chosen = said.argmax(axis=1)
    lost = int(((expected == labels) & (chosen != labels)).sum())
    won = int(((expected != labels) & (chosen == labels)).sum())
    return Rounding(
        songs=len(labels),
        agreement=float((chosen == expected).mean()),
        lost_points=100 * (lost - won) / len(labels),
        lost_points_between=lost_points_between(lost, won, len(labels)),
        batch_difference=_batch_difference(rounded, windows[:ALONE_SONGS]),
    )


def _batch_difference(model: Model, windows: Floats) -> float:
    """Return the largest difference that edge cases in a batch make to the logits of the other songs."""
    edges = edge_windows()
    alone = np.concatenate([model.logits(window[None]) for window in windows])
    parts = [windows[at : at + TOGETHER_SONGS] for at in range(0, len(windows), TOGETHER_SONGS)]
    together = np.concatenate([model.logits(np.concatenate([part, edges]))[: len(part)] for part in parts])
    return float(np.abs(alone - together).max())


def lost_points_between(lost: int, won: int, songs: int) -> tuple[float, float]:
    """Return a 95 % interval, in points (0.01), for the accuracy lost between two models asked about the same songs.

    Agresti and Min, *Simple improved confidence intervals for comparing matched proportions*, Statistics in Medicine
    2005: the normal interval after half a song is added to each of the four ways in which two answers can come out.

    Args:
        lost: songs that only the first model gets right.
        won: songs that only the second gets right.
        songs: all of them.
    """
    n = songs + 2
    middle = (lost - won) / n
    spread = np.sqrt((lost + won + 1) / n - middle**2) / np.sqrt(n)
    return float(100 * (middle - NORMAL_95 * spread)), float(100 * (middle + NORMAL_95 * spread))


def why_not_rounded(found: Rounding, most_points: float, least_agreement: float) -> str | None:
    """Return why an int8 model must not be shipped, None if it may."""
    if not found.lost_points <= most_points:
        low, high = found.lost_points_between
        return (
            f"costs {found.lost_points:.1f} points of accuracy ({low:.1f} to {high:.1f}) on {found.songs} validation "
            f"songs; it may cost {most_points:g}"
        )
    if not found.agreement >= least_agreement:
        return (
            f"the same genre as in fp32 for {found.agreement:.1%} of {found.songs} validation songs; it must be for "
            f"{least_agreement:.1%}"
        )
    if not found.batch_difference <= SAME_ANSWER:
        return (
            f"the other songs of a batch change a song's logits by {found.batch_difference:.2g}; they may by "
            f"{SAME_ANSWER:g}"
        )
    return None
