"""The trade-off as a picture: what the dial gives, and what it would give if songs fell back blindly or perfectly."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from serving.bundle import Evaluation, Guarantee, TradeoffRow
from serving.tradeoff import area_above_random

Scale = Callable[[ArrayLike], NDArray[np.float64]]

GREY = "0.55"
COLOURS = {"cascade": "#3b5bdb", "teacher": "#2b8a3e", "student": "#e8590c"}


def draw_tradeoff(picture: Path, rows: Sequence[TradeoffRow], found: Evaluation, guarantee: Guarantee) -> None:
    """Draw accuracy over fallback rate into the file `picture`.

    Args:
        picture: the file; its suffix is the format.
        rows: the trade-off table.
        found: how the default threshold does on the same songs; it is marked.
        guarantee: what is said of it.
    """
    rates = [row.fallback_rate for row in rows]
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    lines = {name: [getattr(row, name) for row in rows] for name in ("accuracy", "random_accuracy", "oracle_accuracy")}
    axes.fill_between(rates, lines["random_accuracy"], lines["accuracy"], color=COLOURS["cascade"], alpha=0.1)
    axes.plot(rates, lines["oracle_accuracy"], ":", color=GREY, linewidth=1.6)
    axes.plot(rates, lines["random_accuracy"], "--", color=GREY, linewidth=1.3)
    axes.plot(rates, lines["accuracy"], color=COLOURS["cascade"], linewidth=2.6)
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
