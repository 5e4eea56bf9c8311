"""Measure a bundle on labelled songs: every rung alone and its part in the cascade, the cascade, the trade-off table.

Example:
    segue evaluate artifacts/bundle artifacts/test.arrow
    segue evaluate artifacts/bundle artifacts/test.arrow --threshold 0.5
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tyro.conf import Positional

from segue.command import run
from segue.data.song import Ints
from segue.data.table import SongTable
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.manifest import Evaluation, Scores, TradeoffRow
from segue.serving.bundle.seen import were_seen
from segue.serving.cascade import check_threshold, open_cascade
from segue.serving.ladder import Ladder
from segue.serving.predictions import Answers, Predictions
from segue.serving.runtime import Provider
from segue.serving.tables import labelled, predict_rungs
from segue.serving.tradeoff import (
    area_above_random,
    climbing_us,
    evaluation,
    scores,
    settings,
    sweep,
    tradeoff_text,
)


@dataclass(frozen=True)
class RungFigures:
    """One rung of the ladder: alone, and its part in the cascade."""

    name: str
    alone: Scores
    us_per_song: float  # Alone, by the bundle's costs.
    threshold_nats: float | None  # Above it a song goes on; None: the last rung.
    answers: float  # Share of the songs whose answer is this rung's ...
    accuracy: float | None  # ... and how many of those are right; None: there are none.


@dataclass(frozen=True)
class Evaluated:
    """What `segue evaluate` found."""

    bundle: Path
    songs: Path
    unlabelled: int  # Left out.
    trained_on: int  # Songs that the models have seen in training, and so know better than any others; not left out.
    majority_accuracy: float  # Of always answering the most frequent class.
    evaluation: Evaluation
    rungs: tuple[RungFigures, ...]  # First to last.
    us_per_song: float  # Of the cascade, by the bundle's costs.
    tradeoff: tuple[TradeoffRow, ...]

    def __str__(self) -> str:
        found = self.evaluation
        rows = [
            (one.name, *vars(one.alone).values(), one.us_per_song, one.threshold_nats, one.answers, one.accuracy)
            for one in self.rungs
        ]
        rows.append(("cascade", *vars(found.cascade).values(), self.us_per_song, None, 1.0, found.cascade.accuracy))
        return "\n".join(
            [
                f"{self.bundle} on {found.songs} labelled songs of {self.songs}"
                + (f" ({self.unlabelled} without a label left out)" if self.unlabelled else ""),
                *(
                    [f"of which the models have seen {self.trained_on} in training: others they will know less well"]
                    if self.trained_on
                    else []
                ),
                "",
                tabulate(
                    rows,
                    ("", "accuracy", "nll", "ece", "us a song", "up to (nats)", "answers", "right"),
                    floatfmt=("", ".3f", ".3f", ".3f", ",.0f", ".3f", ".1%", ".3f"),
                ),
                "",
                f"most frequent class: {self.majority_accuracy:.3f}   agreement: {found.agreement:.3f}   "
                f"threshold: {found.threshold_nats:.3f} nats   fallback rate: {found.fallback_rate:.3f}",
                "",
                tradeoff_text(self.tradeoff),
                "",
                f"area between the curve and the random line: {area_above_random(self.tradeoff):.4f}",
            ]
        )


def evaluate(
    bundle: Positional[Path],
    songs: Positional[Path],
    threshold: float | None = None,
    windows: int | None = None,
    provider: Provider = "auto",
) -> Evaluated:
    """Measure a bundle on labelled songs.

    Args:
        bundle: The bundle's folder.
        songs: A song table with labels; songs without one are left out.
        threshold: Cross-entropy in nats above which a song falls back to the teacher. Default: the bundle's.
        windows: Windows of a song that both models see, at most. Default: what the bundle says.
        provider: Where the models run; auto takes a GPU where there is one.
    """
    opened = load_bundle(bundle)
    manifest = opened.manifest
    check_threshold(threshold)
    table = SongTable(songs)
    rows, labels = labelled(table, opened)
    cascade = open_cascade(opened, windows=windows, provider=provider)
    says = predict_rungs(cascade, table, rows, manifest.rung_names)
    costs = [manifest.entry(rung).us_per_window for rung in manifest.all_rungs]
    ladder = cascade.ladder.at(threshold)
    answers = ladder.climb(lambda rung, some: says[rung].take(some))
    return Evaluated(
        bundle,
        songs,
        len(table) - len(rows),
        int(were_seen(opened, [table.song_ids[row] for row in rows]).sum()),
        float(np.bincount(labels).max() / len(labels)),
        evaluation(says, labels, ladder),
        _by_rung(says, answers, labels, ladder, costs, manifest.rung_names),
        float(climbing_us(says, costs)[answers.reached, np.arange(len(rows))].mean()),
        sweep(says, labels, cascade.ladder, settings(says, opened.tradeoff), costs),
    )


def _by_rung(
    says: Sequence[Predictions],
    answers: Answers,
    labels: Ints,
    ladder: Ladder,
    us_per_window: Sequence[float],
    names: Sequence[str],
) -> tuple[RungFigures, ...]:
    figures = []
    for rung, (said, us, name) in enumerate(zip(says, us_per_window, names, strict=True)):
        right = (answers.choice == labels)[answers.rung == rung]
        figures.append(
            RungFigures(
                name=name,
                alone=scores(said.probs, labels),
                us_per_song=float(us * said.windows.mean()),
                threshold_nats=ladder.thresholds_nats[rung] if rung < len(ladder) - 1 else None,
                answers=len(right) / len(labels),
                accuracy=float(right.mean()) if len(right) else None,
            )
        )
    return tuple(figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue evaluate`."""
    return run(evaluate, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
