"""The trade-off as a picture: what the dial gives, and what it would give if songs fell back blindly or perfectly."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from serving.bundle import TradeoffRow

Scale = Callable[[ArrayLike], NDArray[np.float64]]

CASCADE, TEACHER, STUDENT, GREY = "#3b5bdb", "#2b8a3e", "#e8590c", "0.55"


def draw_tradeoff(
    picture: Path, rows: Sequence[TradeoffRow], *, threshold_nats: float, teacher_accuracy: float, songs: int
) -> None:
    """Draw accuracy over fallback rate into the file `picture`.

    Args:
        picture: the file; its suffix is the format.
        rows: the trade-off table.
        threshold_nats: the default threshold, which is marked.
        teacher_accuracy: the accuracy of the teacher alone.
        songs: how many songs the table was measured on.
    """
    rates = [row.fallback_rate for row in rows]
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    axes.fill_between(
        rates, [row.random_accuracy for row in rows], [row.accuracy for row in rows], color=CASCADE, alpha=0.08
    )
    axes.plot(
        rates,
        [row.oracle_accuracy for row in rows],
        color=GREY,
        linestyle=":",
        label="oracle: the right songs fall back",
    )
    axes.plot(
        rates,
        [row.accuracy for row in rows],
        color=CASCADE,
        linewidth=2.2,
        label="cascade: the uncertain songs fall back",
    )
    axes.plot(rates, [row.random_accuracy for row in rows], color=GREY, linestyle="--", label="random songs fall back")
    axes.axhline(teacher_accuracy, color=TEACHER, linewidth=1, label=f"teacher only: {teacher_accuracy:.3f}")
    axes.plot(0, rows[0].accuracy, "s", color=STUDENT, label=f"student only: {rows[0].accuracy:.3f}")
    default = min(rows, key=lambda row: abs(row.threshold_nats - threshold_nats))
    axes.plot(default.fallback_rate, default.accuracy, "o", color=CASCADE, markersize=9)
    axes.annotate(
        f"default: {threshold_nats:.2f} nats\n{default.accuracy:.3f} at {default.us_per_song:.0f} µs a song",
        (default.fallback_rate, default.accuracy),
        (12, -10),
        textcoords="offset points",
        ha="left" if default.fallback_rate < 0.75 else "right",
        va="top",
        color=CASCADE,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("fallback rate: share of songs that go on to the teacher")
    axes.set_ylabel(f"accuracy on {songs:,} calibration songs")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    cost = axes.secondary_xaxis("top", functions=_cost_axis(rows))
    cost.set_xlabel("cost, microseconds a song")
    axes.spines["right"].set_visible(False)
    axes.legend(loc="best", fontsize=9, edgecolor="none", framealpha=0.8)
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
