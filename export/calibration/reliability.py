"""Reliability diagrams: how many are right of the answers that a model is so sure of."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from segue.data.metrics import Probs, ece, nll
from segue.data.song import Ints
from segue.export.calibration.picture import COLOURS, GREY

BINS = 10
LEAST_SONGS = 5  # For a bar; fewer say nothing.


def draw_reliability(picture: Path, labels: Ints, models: Mapping[str, tuple[Probs, Probs]]) -> None:
    """Draw how often answers are right over how sure the model is of them, before and after calibration.

    Args:
        picture: the file; its suffix is the format.
        labels: (n,) the right classes.
        models: by name, the probabilities (n, n_classes) before and after.
    """
    figure, grid = plt.subplots(
        len(models), 2, figsize=(8.4, 3.9 * len(models)), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for row, (name, both) in enumerate(models.items()):
        for axes, when, probs in zip(grid[row], ("before", "after"), both, strict=True):
            _draw(axes, probs, labels, COLOURS[name])
            axes.set_title(f"{name}, {when} calibration", loc="left", fontweight="bold")
        grid[row, 0].set_ylabel("share of those answers that is right")
    for axes in grid[-1]:
        axes.set_xlabel("how sure the model is: its largest probability")
    figure.suptitle(
        "A bar that ends on the dashed line keeps its word: of the answers given with 70%, 70% are right.\n"
        "Grey: how many answers are that sure. "
        f"Measured on {len(labels):,} calibration songs that no temperature was fitted on.",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _draw(axes: Axes, probs: Probs, labels: Ints, colour: str) -> None:
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bin_of, minlength=BINS)
    enough = np.flatnonzero(counts >= LEAST_SONGS)
    accuracy = np.bincount(bin_of, right, BINS)[enough] / counts[enough]
    error = np.sqrt(accuracy * (1 - accuracy) / counts[enough])
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2, zorder=3)
    axes.bar(
        (enough + 0.5) / BINS, accuracy, 0.92 / BINS, yerr=error, color=colour, alpha=0.75, ecolor="0.35", capsize=2
    )
    shares = counts / counts.sum()
    axes.bar((np.arange(BINS) + 0.5) / BINS, -0.12 * shares / shares.max(), 0.92 / BINS, color="0.8")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.text(0.03, 0.97, f"ece {ece(probs, labels):.3f}\nnll {nll(probs, labels):.3f}", va="top", fontsize=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.14, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
