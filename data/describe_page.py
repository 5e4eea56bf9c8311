"""The page of `segue describe`: what was found, drawn for someone who has ten seconds."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from pathlib import Path

from data.atomic import atomic_file
from data.describe import BLOCKS, RARE_SONGS, Description, Figures
from data.song import PITCH_CLASSES, WINDOW, Ints

FINE, WATCH, NONE, KNOWN_BAND, INK = "#3b5bdb", "#e8590c", "#adb5bd", "#e9ecef", "#343a40"
DRAWN_CLASSES = 24
LENGTH_BINS = 40
STYLE = {
    "svg.fonttype": "none",  # Text stays text: the page's own font, searchable, and small.
    "svg.hashsalt": "segue",  # The same songs make the same page.
    "text.parse_math": False,  # A dollar in a class name is a dollar.
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": NONE,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def write_page(description: Description, lengths: Ints) -> None:
    """Write the page of a description; `lengths` (n_songs,) are those of the songs, in segments."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    same = description.lengths.min == description.lengths.max
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # Only matplotlib's font lacks it; the browser draws the text.
        html = templates.get_template("describe.html.j2").render(
            found=description,
            classes=_svg(_draw_classes(description)),
            lengths=None if same else _svg(_draw_lengths(lengths)),
            features=_svg(_draw_features(description.features)),
        )
    with atomic_file(description.page) as draft:
        draft.write_text(html, encoding="utf-8")


def _draw_classes(description: Description) -> Figure:
    """Draw the songs of each class as bars, the largest class first."""
    ranked = sorted(description.labelled.items(), key=lambda one: -one[1])
    rest = ranked[DRAWN_CLASSES:]
    bars = [(name, count, WATCH if count < RARE_SONGS else FINE) for name, count in ranked[:DRAWN_CLASSES]]
    bars += [(f"{len(rest)} smaller classes", sum(count for _, count in rest), FINE)] * bool(rest)
    bars += [("no label", description.unlabelled, NONE)] * bool(description.unlabelled)
    figure = Figure(figsize=(5.6, 0.5 + 0.24 * max(len(bars), 4)), layout="constrained")
    axes = figure.add_subplot()
    names, counts, colours = zip(*bars, strict=True)
    # A bar far longer than every class would flatten them all, so it runs out of the picture; its number tells.
    reach = 1.6 * max([count for name, count in ranked], default=0) or max(counts)
    drawn = axes.barh(range(len(bars)), np.minimum(counts, reach), color=colours, height=0.72)
    axes.bar_label(drawn, [f"{count:,}" for count in counts], padding=4)
    axes.set_yticks(range(len(bars)), [name if len(name) <= 32 else f"{name[:31]}…" for name in names])
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.12)
    return figure


def _draw_lengths(lengths: Ints) -> Figure:
    """Draw how many songs there are of each length; the last bar has the longest 1 %."""
    top = max(float(np.quantile(lengths, 0.99)), 2 * WINDOW)
    # A width that WINDOW is a multiple of, so that no bar has songs from both sides of the mark.
    fits = (width for width in range(1, WINDOW) if WINDOW % width == 0 and top / width <= LENGTH_BINS)
    width = next(fits, WINDOW * ceil(top / WINDOW / LENGTH_BINS))
    counts = np.bincount(np.minimum(lengths, int(top)) // width)
    starts = np.arange(len(counts)) * width
    figure = Figure(figsize=(5.6, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(starts, counts, width * 0.9, align="edge", color=np.where(starts < WINDOW, WATCH, FINE))
    axes.axvline(WINDOW, color=INK, linewidth=1, linestyle=":")
    axes.annotate(f"{WINDOW}, one window", (WINDOW, 1), (4, 2), "data", textcoords="offset points")
    axes.set_xlabel(f"segments (the last bar: {starts[-1]:,} and more)")
    axes.set_ylabel("songs")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def _draw_features(features: Sequence[Figures]) -> Figure:
    """Draw a box for each feature, before the band of what is known, block by block."""
    figure = Figure(figsize=(11.4, 3.1), layout="constrained")
    labels = {"timbre": range(1, 13), "chroma": PITCH_CLASSES, "loudness": ["start"]}
    for axes, (block, columns) in zip(figure.subplots(1, 3, width_ratios=(12, 12, 2)), BLOCKS.items(), strict=True):
        _draw_boxes(axes, features[columns])
        axes.set_xticks(range(len(labels[block])), labels[block])
        axes.set_title(block)
    return figure


def _draw_boxes(axes: Axes, features: Sequence[Figures]) -> None:
    ...


def _svg(figure: Figure) -> Markup:
    """Return the picture as an SVG element; matplotlib escapes the text in it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])
