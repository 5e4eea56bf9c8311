"""The trade-off as a picture: what the dial gives, and what it would give if songs fell back blindly or perfectly."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from segue.serving.bundle.manifest import Evaluation, Guarantee, TradeoffRow
from segue.serving.tradeoff import area_above_random

Scale = Callable[[ArrayLike], NDArray[np.float64]]

GREY = "0.55"
FAR_APART = 5  # The dearest setting over the cheapest; from there on the cost axis is logarithmic.
BLUE, GREEN, ORANGE = "#3b5bdb", "#2b8a3e", "#d9480f"
COLOURS = {"student": ORANGE, "teacher": GREEN}


def draw_tradeoff(
    picture: Path,
    rows: Sequence[TradeoffRow],
    found: Evaluation,
    guarantee: Guarantee,
    dial_us: float,
    two_rungs: Sequence[TradeoffRow] = (),
) -> None:
    """Draw accuracy over fallback rate into the file `picture`; of a longer ladder, over what a song costs.

    Args:
        picture: the file; its suffix is the format.
        rows: the trade-off table.
        found: how the default threshold does on the same songs; it is marked.
        guarantee: what is said of it.
        dial_us: what a song costs there, in microseconds.
        two_rungs: the table of the first and the last rung alone, where there are more.
    """
    is_ladder = bool(two_rungs)
    if is_ladder:  # A path that other songs gave need not get cheaper with every step on these.
        rows = sorted(rows, key=lambda row: row.us_per_song)
    rates = np.array([row.us_per_song if is_ladder else row.fallback_rate for row in rows])
    curve = np.array([row.accuracy for row in rows])
    random = np.array([row.random_accuracy for row in rows])
    oracle = np.array([row.oracle_accuracy for row in rows])
    student, teacher = found.student.accuracy, found.teacher.accuracy

    figure, axes = plt.subplots(figsize=(9.2, 6.2), layout="constrained")
    axes.axhline(teacher, color=GREEN, linewidth=1.3)
    axes.axhline(student, color=ORANGE, linewidth=1.3)
    axes.plot(rates, oracle, ":", color=GREY, linewidth=1.8, label="oracle: the songs that gain by it go on")
    axes.plot(rates, curve, color=BLUE, linewidth=3, label="cascade: the songs a rung is unsure of go on")
    if is_ladder:
        over = [row.us_per_song for row in two_rungs]
        straight = "two rungs: straight from the first to the last"
        axes.plot(over, [row.accuracy for row in two_rungs], color=BLUE, linewidth=1.2, label=straight)
    axes.plot(rates, random, "--", color=GREY, linewidth=1.6, label="random: any songs go on")
    gain = f"gain over random: {100 * area_above_random(rows):.1f} points on average"
    axes.fill_between(rates, random, curve, color=BLUE, alpha=0.12, linewidth=0, label=gain)

    # Below the lines there is room for the legend and for what is said of the dial.
    low, high = min(random.min(), curve.min(), student, teacher), max(oracle.max(), student, teacher)
    span = max(high - low, 0.1)
    axes.set_ylim(low - 0.45 * span, high + 0.08 * span)
    if not is_ladder:
        axes.set_xlim(0, 1)
    elif rates.max() > FAR_APART * rates.min():
        axes.set_xscale("log")
    ahead = teacher >= student
    for y, text, colour in ((teacher, "teacher only", GREEN), (student, "student only", ORANGE)):
        axes.annotate(
            f"{text}\n{y:.1%} right",
            (1, y),
            (8, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center" if abs(teacher - student) > 0.1 * span else "bottom" if (colour == GREEN) == ahead else "top",
            color=colour,
            annotation_clip=False,
        )
    at = dial_us if is_ladder else found.fallback_rate
    axes.annotate(
        f"the dial: {found.fallback_rate:.0%} reach the last rung,\n{found.cascade.accuracy:.1%} right, "
        f"{dial_us:,.0f} µs a song",
        (at, found.cascade.accuracy),
        (at if is_ladder else min(max(at, 0.17), 0.83), low - 0.06 * span),
        ha="center",
        va="top",
        color=BLUE,
        weight="bold",
        arrowprops={"arrowstyle": "-", "color": BLUE, "shrinkB": 7},
    )
    axes.plot(at, found.cascade.accuracy, "o", color=BLUE, markersize=12, markeredgecolor="white", zorder=5)
    axes.set_xlabel(
        "cost: microseconds a song" if is_ladder else "share of songs that go on to the teacher: the fallback rate"
    )
    axes.set_ylabel(f"share of {found.songs:,} calibration songs answered right")
    for axis in (axes.yaxis,) if is_ladder else (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    if rates[-1] > rates[0] and not is_ladder:
        costs = axes.secondary_xaxis("top", functions=_cost_axis(rows))
        costs.set_xlabel("cost: microseconds a song")
        costs.ticklabel_format(useOffset=False, style="plain")
    axes.grid(axis="y", color="0.93")
    axes.set_axisbelow(True)
    axes.spines["right"].set_visible(False)
    axes.legend(loc="lower center", ncols=2, frameon=False)
    figure.suptitle(
        "The dial: how many songs go on to the teacher, what that gives, what it costs",
        x=0.01,
        ha="left",
        weight="bold",
    )
    figure.supxlabel(textwrap.fill(f"Where it stands is {guarantee}.", 125), x=0.01, ha="left", fontsize=9)
    figure.savefig(picture, dpi=130)
    plt.close(figure)


def _cost_axis(rows: Sequence[TradeoffRow]) -> tuple[Scale, Scale]:
    """Return the maps from fallback rate to cost and back; cost is linear in the rate where songs are alike."""
    first, last = rows[0], rows[-1]
    slope = max((last.us_per_song - first.us_per_song) / max(last.fallback_rate - first.fallback_rate, 1e-9), 1e-9)
    return (
        lambda rate: first.us_per_song + slope * (np.asarray(rate) - first.fallback_rate),
        lambda cost: first.fallback_rate + (np.asarray(cost) - first.us_per_song) / slope,
    )
