"""The page of a verdict: what the gate said, and the figures behind it."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from segue.export.retrain.gate import GateRules, Recall, Verdict
from segue.export.retrain.suspects import Suspect
from segue.page import FINE, INK, NONE, WATCH, drawing, svg
from segue.template import render

TEMPLATE = Path(__file__).with_name("verdict.html.j2")
DRAWN_CLASSES = 24
BINS = 41


def verdict_page(verdict: Verdict, rules: GateRules, recipe: str, suspects: Sequence[Suspect] = ()) -> str:
    """Return the page of a verdict as HTML."""
    with drawing():
        pictures = {
            "gain": svg(_draw_gain(verdict)),
            "tradeoffs": svg(_draw_tradeoffs(verdict)),
            "recalls": svg(_draw_recalls(verdict.recalls)),
        }
    return render(
        TEMPLATE, verdict=verdict, rules=rules, recipe=recipe, suspects=suspects, pictures=pictures, verb="retrain"
    )


def _draw_gain(verdict: Verdict) -> Figure:
    gain = verdict.gain
    low, high = gain.points_between
    figure = Figure(figsize=(5.6, 2.2), layout="constrained")
    axes = figure.add_subplot()
    colour = FINE if low > 0 else WATCH
    axes.hist(gain.resampled_points, BINS, color=NONE, alpha=0.6)
    axes.axvline(0, color=INK, linewidth=1, linestyle=":")
    top = axes.get_ylim()[1]
    axes.hlines(top * 0.08, low, high, color=colour, linewidth=4)
    axes.plot([gain.points], [top * 0.08], "o", color=colour, markersize=9)
    axes.annotate(f"{gain.points:+.1f}", (gain.points, top * 0.08), (0, 9), textcoords="offset points", ha="center")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("points of accuracy, challenger minus champion")
    return figure


def _draw_tradeoffs(verdict: Verdict) -> Figure:
    figure = Figure(figsize=(5.6, 2.2), layout="constrained")
    axes = figure.add_subplot()
    for name, rows, colour in zip(("champion", "challenger"), verdict.tradeoffs, (NONE, FINE), strict=True):
        points = [(row.us_per_song, row.accuracy) for row in rows]
        axes.plot(*zip(*points, strict=True), ".-", color=colour, markersize=3, linewidth=1.2, label=name)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("microseconds a song")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _draw_recalls(recalls: Sequence[Recall]) -> Figure:
    shown = sorted(recalls, key=lambda one: one.challenger - one.champion)[:DRAWN_CLASSES]
    figure = Figure(figsize=(5.6, 0.7 + 0.26 * max(len(shown), 3)), layout="constrained")
    axes = figure.add_subplot()
    for row, one in enumerate(shown):
        colour = WATCH if one.lost_beyond_chance else FINE
        axes.hlines(row, one.champion, one.challenger, color=colour, linewidth=2)
        axes.plot([one.champion], [row], "o", color=NONE, markersize=7)
        axes.plot([one.challenger], [row], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(shown)), [f"{one.genre[:28]} ({one.songs})" for one in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("recall")
    return figure
