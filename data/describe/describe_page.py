"""The page of `segue describe`: what was found, drawn for someone who has ten seconds."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from segue.data.describe.description import BLOCKS, RARE_SONGS, Description, Figures
from segue.data.song import PITCH_CLASSES, WINDOW, Ints, Units
from segue.page import BAND, FINE, INK, NONE, WATCH, drawing, svg, write_page

DRAWN_CLASSES = 24
LENGTH_BINS = 40


def write_description(description: Description, lengths: Ints) -> None:
    """Write the page of a description; `lengths` (n_songs,) are those of the songs, in segments."""
    same = description.lengths.min == description.lengths.max
    with drawing():
        write_page(
            description.page,
            Path(__file__).with_name("describe.html.j2"),
            found=description,
            classes=svg(_draw_classes(description)),
            lengths=None if same else svg(_draw_lengths(lengths)),
            features=svg(_draw_features(description.features, description.units)),
        )


def _draw_classes(description: Description) -> Figure:
    """Draw the songs of each class as bars, the largest class first."""
    ranked = description.ranked()
    shown, rest = ranked[:DRAWN_CLASSES], ranked[DRAWN_CLASSES:]
    shown += [(f"{len(rest)} smaller classes", sum(count for _, count in rest))] * bool(rest)
    bars = [(name, count, WATCH if count < RARE_SONGS else FINE) for name, count in shown]
    bars += [("no label", description.unlabelled, NONE)] * bool(description.unlabelled)
    figure = Figure(figsize=(5.6, 0.5 + 0.24 * max(len(bars), 4)), layout="constrained")
    axes = figure.add_subplot()
    names, counts, colours = zip(*bars, strict=True)
    # A bar far longer than every class would flatten them all, so it runs out of the picture; its number tells.
    reach = 3 * max(description.labelled.values(), default=0) or max(counts)
    drawn = axes.barh(range(len(bars)), np.minimum(counts, reach), color=colours, height=0.72)
    axes.bar_label(drawn, [f"{count:,}" if count <= reach else f"{count:,} (cut)" for count in counts], padding=4)
    axes.set_yticks(range(len(bars)), [name if len(name) <= 32 else f"{name[:31]}…" for name in names])
    axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.12)
    return figure


def _draw_lengths(lengths: Ints) -> Figure:
    """Draw how many songs there are of each length; the last bar has the longest 1 %."""
    top = max(float(np.quantile(lengths, 0.99)), 2 * WINDOW)
    # A width that WINDOW is a multiple of, so that while it is narrower no bar has songs from both sides of the mark.
    fits = (width for width in range(1, WINDOW) if WINDOW % width == 0 and top / width <= LENGTH_BINS)
    width = next(fits, WINDOW * ceil(top / WINDOW / LENGTH_BINS))
    counts = np.bincount(np.minimum(lengths, int(top)) // width)
    starts = np.arange(len(counts)) * width
    figure = Figure(figsize=(5.6, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(starts, counts, width * 0.9, align="edge", color=np.where(starts + width <= WINDOW, WATCH, FINE))
    axes.axvline(WINDOW, color=INK, linewidth=1, linestyle=":")
    axes.annotate(f"{WINDOW}, one window", (WINDOW, 1), (4, -4), axes.get_xaxis_transform(), "offset points")
    axes.set_xlabel(f"segments (the last bar: {starts[-1]:,} and more)")
    axes.set_ylabel("songs")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def _draw_features(features: Sequence[Figures], units: Units) -> Figure:
    """Draw a box for each feature, before the grey band of what is known, block by block."""
    figure = Figure(figsize=(11.4, 3.2), layout="constrained")
    grid = figure.subplots(1, 3, width_ratios=(12, 12, 1.8))
    ticks = ([str(i) for i in range(1, 13)], PITCH_CLASSES, ["dB" if units == "raw" else ""])
    for axes, (block, columns), names in zip(grid, BLOCKS.items(), ticks, strict=True):
        _draw_boxes(axes, features[columns])
        axes.set_xlim(-0.7, len(names) - 0.3)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(block)
    if units == "raw":
        grid[1].axhspan(0, 1, color=BAND, zorder=0, linewidth=0)
    return figure


def _draw_boxes(axes: Axes, features: Sequence[Figures]) -> None:
    for x, feature in enumerate(features):
        if feature.known is not None:
            mean, sd = feature.known
            axes.bar(x, 2 * sd, 0.9, mean - sd, color=BAND, zorder=0)
        low, first, middle, third, high = feature.quantiles
        colour = WATCH if feature.off else FINE
        axes.vlines(x, low, high, color=colour, linewidth=1)
        axes.bar(x, third - first, 0.42, first, color=colour)
        axes.hlines(middle, x - 0.21, x + 0.21, color="white", linewidth=1.5)
