"""The page of `segue drift`: what has moved, drawn before and after."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from segue.data.song import FEATURE_NAMES, PITCH_CLASSES
from segue.export.drift.moved import Moved
from segue.export.drift.reference import VALUES, Reference
from segue.page import FINE, NONE, WATCH, drawing, svg, write_page

if TYPE_CHECKING:
    from segue.export.drift.drift import Drifted

TEMPLATE = Path(__file__).with_name("drift.html.j2")
DRAWN_CLASSES = 20
BINS = 30
CLOSEST = 4  # Values drawn in full.


def write_drift(result: "Drifted", reference: Reference, now: Reference, classes: Sequence[str]) -> None:
    """Write the page of a result, with the reference and the songs that were compared with it."""
    with drawing():
        pictures = {
            "effects": svg(_draw_effects(result.moved)),
            "values": svg(_draw_values(result.moved, reference, now)),
            "genres": svg(_draw_genres(reference, now, classes)),
        }
    write_page(result.page, TEMPLATE, found=result, pictures=pictures)


def _draw_effects(found: Sequence[Moved]) -> Figure:
    """Draw how far each feature has moved, its mean and its spread within a song."""
    by_name = {one.what: one for one in found}
    ticks = [*map(str, range(1, 13)), *PITCH_CLASSES, "dB"]
    figure = Figure(figsize=(11.4, 2.9), layout="constrained")
    grid = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, kind in zip(grid, ("mean", "spread"), strict=True):
        some = [by_name[f"{name} {kind}"] for name in FEATURE_NAMES]
        axes.bar(
            range(len(some)),
            [one.effect for one in some],
            color=[WATCH if one.drifted else FINE for one in some],
            width=0.7,
        )
        axes.set_title(f"{kind} within a song")
        axes.set_ylim(0, max(0.3, *(one.effect for one in found)))
    grid[1].set_xticks(range(len(ticks)), ticks)
    grid[1].set_xlabel("timbre 1 to 12, chroma, loudness")
    return figure


def _draw_values(found: Sequence[Moved], reference: Reference, now: Reference) -> Figure:
    """Draw the values that moved furthest, and the cross-entropy, before and now."""
    names = [one.what for one in found if one.what in VALUES and one.what != "cross-entropy"][: CLOSEST - 1]
    figure = Figure(figsize=(11.4, 2.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, CLOSEST), [*names, "cross-entropy"], strict=True):
        drifted = next(one.drifted for one in found if one.what == name)
        column = VALUES.index(name)
        before, after = reference.values[:, column], now.values[:, column]
        edges = np.histogram_bin_edges(np.concatenate([before, after]), BINS)
        axes.hist(before, edges, weights=np.full(len(before), 1 / len(before)), color=NONE, alpha=0.7)
        colour = WATCH if drifted else FINE
        axes.hist(
            after, edges, weights=np.full(len(after), 1 / len(after)), histtype="step", color=colour, linewidth=1.6
        )
        axes.set_title(name)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    return figure


def _draw_genres(reference: Reference, now: Reference, classes: Sequence[str]) -> Figure:
    shares = np.stack([reference.genres / reference.songs, now.genres / now.songs])
    order = np.argsort(-shares.max(axis=0))[:DRAWN_CLASSES]
    figure = Figure(figsize=(5.6, 0.7 + 0.3 * max(len(order), 3)), layout="constrained")
    axes = figure.add_subplot()
    at = np.arange(len(order))
    axes.barh(at - 0.19, shares[0, order], 0.36, color=NONE, label="before")
    axes.barh(at + 0.19, shares[1, order], 0.36, color=FINE, label="now")
    axes.set_yticks(at, [classes[one][:28] for one in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("share of songs, as the cascade says")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
    return figure
