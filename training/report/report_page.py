"""The page of `segue report`: how a run learnt and where it fails, drawn for someone who has a minute."""

import dataclasses
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from segue.page import BAND, FINE, INK, NONE, WATCH, drawing, svg, write_page
from segue.training.report.findings import Curve, Report
from segue.training.report.importance import Importance
from segue.training.report.quality import Quality
from segue.training.runs import Run

WIDTH_INCHES = 11.4  # Of the page.
COLUMN_INCHES = 5.0
CURVE_INCHES = 2.1  # High.
LONGEST_NAME = 20
SHADES = LinearSegmentedColormap.from_list("shades", ["white", FINE])


def write_report(report: Report) -> None:
    """Write the page of a report."""
    quality = report.quality
    with drawing():
        write_page(
            report.page,
            Path(__file__).with_name("report.html.j2"),
            report=report,
            columns=columns_of(len(report.curves)),
            curves=_pictures_of(report.curves, report.run.role == "student", len(quality.recall)),
            recall=svg(_draw_recall(quality, report.weak())),
            confusion=svg(_draw_confusion(quality)),
            reliability=svg(_draw_reliability(quality)),
            importance=svg(_draw_importance(report.importances)),
            settings=_settings(report.run),
        )


def _settings(run: Run) -> dict[str, dict[str, str]]:
    """Return every setting and the provenance of a run in words, under the heads they are shown beneath."""
    made = run.provenance
    parts = {"network": run.network, "loop": run.loop, "labels": run.labels, "distillation": run.distillation}
    return {
        **{name: _words(dataclasses.asdict(part)) for name, part in parts.items() if part is not None},
        "songs": _words(run.split_songs),
        "provenance": {
            "commit": made.commit or "none, not a git checkout",
            "time": made.time,
            "machine": made.machine,
            "python": made.python,
            **made.libraries,
        },
    }


def _words(settings: Mapping[str, Any], head: str = "") -> dict[str, str]:
    """Return settings in words; one inside another is named after both."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        inside = dict(enumerate(value, 1)) if isinstance(value, tuple) and any(map(_is_group, value)) else value
        if isinstance(inside, dict):
            found |= _words({str(key): one for key, one in inside.items()}, f"{head}{name} ")
        else:
            found[f"{head}{name}"] = " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
    return found


def _is_group(value: Any) -> bool:
    return isinstance(value, dict)


def _pictures_of(curves: Sequence[Curve], is_student: bool, n_classes: int) -> list[tuple[str, list[Markup]]]:
    """Return a title and the pictures of each fit, all to one scale."""
    # One fit fills the width with its pictures side by side; the pictures of several stand below each other.
    pictures = 2 + is_student if len(curves) == 1 else columns_of(len(curves))
    width = WIDTH_INCHES / max(pictures, 2) - 0.3
    values = [value for curve in curves for epoch in curve.epochs for value in _errors(epoch, is_student)]
    # A network that is far surer than right leaves the picture rather than flattening the curves of the others.
    top = min(max(values, default=1.0), 3 * log(max(n_classes, 2))) * 1.05
    return [
        (
            f"{curve.fit}: epoch {curve.kept} of {len(curve.epochs)} kept",
            [svg(figure) for figure in _draw_curve(curve, is_student, width, top)],
        )
        for curve in curves
    ]


def columns_of(n_fits: int) -> int:
    """Return how many fits stand side by side, so that the last row is nearly full."""
    return max(n_fits, 1) if n_fits < 5 else 3 if n_fits in (5, 6, 9) else 4


def _errors(epoch: Any, is_student: bool) -> tuple[float, ...]:
    return (epoch.validation_nll,) if is_student else (epoch.validation_nll, epoch.train_loss)


def _draw_curve(curve: Curve, is_student: bool, width: float, top: float) -> list[Figure]:
    """Draw accuracy and error over the epochs; a student's training loss is of its own kind and has its own picture."""
    titles = ["accuracy", "cross-entropy, nats", *["distillation loss"] * is_student]
    figures = [Figure(figsize=(width, CURVE_INCHES)) for _ in titles]
    accuracy, error, *rest = (_axes(figure, title) for figure, title in zip(figures, titles, strict=True))
    known = [(epoch.epoch, epoch.train_accuracy) for epoch in curve.epochs if epoch.train_accuracy is not None]
    if known:
        _line(accuracy, *zip(*known, strict=True), colour=NONE)
    epochs = [epoch.epoch for epoch in curve.epochs]
    losses = [epoch.train_loss for epoch in curve.epochs]
    _line(accuracy, epochs, [epoch.validation_accuracy for epoch in curve.epochs], colour=FINE, mark=curve.kept)
    if not is_student:
        _line(error, epochs, losses, colour=NONE)
    _line(error, epochs, [epoch.validation_nll for epoch in curve.epochs], colour=FINE, mark=curve.kept)
    accuracy.set_ylim(0, 1)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    error.set_ylim(0, top)
    for loss in rest:
        _line(loss, epochs, losses, colour=NONE)
        loss.set_ylim(bottom=0)
    return figures


def _axes(figure: Figure, title: str) -> Axes:
    # The margins, in inches, are the same in all, so that pictures below each other have their epochs below each other.
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.45 / width, 0.42 / height, 1 - 0.55 / width, 1 - 0.68 / height))
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color=BAND)
    axes.set_axisbelow(True)
    return axes


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float], *, colour: str, mark: int | None = None) -> None:
    """Draw a curve; `mark` is the epoch that is marked on it."""
    axes.plot(epochs, values, color=colour, linewidth=1.6, marker="o" if len(epochs) < 3 else None, markersize=4)
    if mark is not None:
        value = values[list(epochs).index(mark)]
        axes.axvline(mark, color=INK, linewidth=1, linestyle=":", zorder=0)
        axes.plot([mark], [value], "o", color=colour, markersize=6, markeredgecolor="white")
        # Towards the middle of the picture, where there is room for it.
        side = "right" if mark > (epochs[0] + epochs[-1]) / 2 else "left"
        place, paper = (-6 if side == "right" else 6, 6), {"color": "white", "alpha": 0.8, "pad": 0.5}
        axes.annotate(f"{value:.2f}", (mark, value), place, textcoords="offset points", ha=side, bbox=paper)


def _draw_recall(quality: Quality, weak: Sequence[str]) -> Figure:
    """Draw the recall of each class with its interval, the best first."""
    ranked = sorted(quality.recall.items(), key=lambda one: -np.nan_to_num(one[1].value, nan=-1.0))
    figure, axes = _bars([name for name, _ in ranked])
    for y, (name, share) in enumerate(ranked):
        if not share.songs:
            axes.text(0.01, y, "no songs", va="center", color=NONE)
            continue
        axes.barh(y, share.value, color=WATCH if name in weak else FINE, height=0.64)
        if name in weak:  # A class that was never recognised has no bar to be coloured.
            axes.get_yticklabels()[y].set_color(WATCH)
        axes.hlines(y, *share.interval, color=INK, linewidth=1)
        axes.text(1.03, y, f"{share.part} of {share.songs}", va="center")
    axes.axvline(quality.accuracy, color=INK, linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


def _bars(names: Sequence[str], columns: int = 1) -> tuple[Figure, Any]:
    """Return a picture with a line for each name, from the top down, and its axes."""
    figure = Figure(figsize=(COLUMN_INCHES, 0.9 + 0.3 * max(len(names), 3)), layout="constrained")
    grid = figure.subplots(1, columns, sharex=True, sharey=True)
    first = grid if columns == 1 else grid[0]
    first.set_yticks(range(len(names)), [short(name) for name in names])
    first.set_ylim(len(names) - 0.5, -0.5)
    return figure, grid


def short(name: str) -> str:
    """Return a name that fits beside a picture."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _draw_confusion(quality: Quality) -> Figure:
    """Draw the songs by label and by what was said; the shade is the share of the label's songs."""
    counts = np.array(quality.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n, names = len(counts), [short(name) for name in quality.recall]
    side = max(COLUMN_INCHES, 1.4 + 0.32 * n)
    figure = Figure(figsize=(side, 0.92 * side), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(shares, cmap=SHADES, vmin=0, vmax=1, edgecolor="white", linewidth=1)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else INK
        axes.text(column + 0.5, row + 0.5, str(counts[row, column]), ha="center", va="center", color=colour)
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=45, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.invert_yaxis()
    axes.set_xlabel("said")
    axes.set_ylabel("label")
    axes.spines[:].set_visible(False)
    return figure


def _draw_reliability(quality: Quality) -> Figure:
    """Draw accuracy over confidence, and below it how many songs have that confidence."""
    figure = Figure(figsize=(COLUMN_INCHES, 3.9), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=NONE, linewidth=1, linestyle=":")
    confidences = [one.confidence for one in quality.reliability]
    rights = [one.right.value for one in quality.reliability]
    intervals = [one.right.interval for one in quality.reliability]
    axes.vlines(confidences, *zip(*intervals, strict=True), color=INK, linewidth=1)
    axes.plot(confidences, rights, "o", color=FINE, markersize=6, markeredgecolor="white", clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    below.bar(confidences, [one.right.songs for one in quality.reliability], 0.04, color=FINE)
    below.set_ylabel("songs")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.set_xlabel("confidence")
    below.xaxis.set_major_formatter(PercentFormatter(1))
    figure.align_ylabels()
    return figure


def _draw_importance(importances: Sequence[Importance]) -> Figure:
    """Draw what the recall of each class loses without each block of features."""
    names = list(importances[0].recall)
    figure, grid = _bars(names, len(importances))
    for axes, one in zip(grid, importances, strict=True):
        for y, drop in enumerate(one.recall.values()):
            if np.isfinite(drop.mean):
                points, sd = 100 * drop.mean, 100 * drop.sd
                axes.barh(y, points, color=FINE, height=0.64)
                axes.hlines(y, points - sd, points + sd, color=INK, linewidth=1)
        axes.axvline(0, color=NONE, linewidth=1)
        axes.set_title(f"{one.block}\nall: {100 * one.accuracy.mean:.0f} ± {100 * one.accuracy.sd:.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.spines["left"].set_visible(False)
    figure.supxlabel("points of recall lost", fontsize=9)
    return figure
