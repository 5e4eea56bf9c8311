"""The page of a study: what was asked, what was found, and pictures like those of the original."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from segue.page import FINE, NONE, WATCH, drawing, svg, write_page
from segue.training.studies.study import Found, Picture
from segue.training.studies.verdict import interval

if TYPE_CHECKING:
    from segue.training.study import Studied

MOST_CURVES = 7  # Settings whose curves are drawn: the best ones, as in the original.
COLOURS = (FINE, WATCH, "#2b8a3e", "#ae3ec9", "#0c8599", "#f08c00", "#495057")


def write_study_page(studied: "Studied", pictures: Sequence[Picture], page: Path) -> None:
    """Write the page of a study."""
    from segue.training.study import rows_of

    with drawing():
        drawn = [DRAWN[one](studied.found) for one in pictures]
    template = Path(__file__).parent / "study.html.j2"
    write_page(page, template, studied=studied, rows=rows_of(studied.found), pictures=[one for one in drawn if one])


def curves(found: Found) -> Markup | None:
    """Draw accuracy and error over the epochs: each seed thin, their mean thick."""
    ranked = sorted(
        (name for name in found.outcomes if any(one.epochs for one in found.outcomes[name])),
        key=lambda name: -float(np.mean(found.accuracies(name))),
    )[:MOST_CURVES]
    if not ranked:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, colour in zip(ranked, COLOURS, strict=False):
        runs = [one.epochs for one in found.outcomes[name] if one.epochs]
        _lines(left, [[epoch.validation_accuracy for epoch in run] for run in runs], name, colour)
        _lines(right, [[epoch.validation_nll for epoch in run] for run in runs], name, colour)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="epoch", title="Accuracy on validation songs")
    right.set(xlabel="epoch", title="Error on validation songs, nats a song")
    left.legend(frameon=False, fontsize=7)
    made = svg(figure)
    plt.close(figure)
    return made


def _lines(axes: Axes, runs: Sequence[Sequence[float]], name: str, colour: str) -> None:
    for run in runs if len(runs) > 1 else ():
        axes.plot(range(1, len(run) + 1), run, color=colour, linewidth=0.6, alpha=0.35)
    shortest = min(map(len, runs))
    mean = np.mean([run[:shortest] for run in runs], axis=0)
    marker = "o" if shortest < 3 else None
    axes.plot(range(1, shortest + 1), mean, color=colour, linewidth=1.8, marker=marker, markersize=3, label=name)


def bars(found: Found) -> Markup:
    """Draw the mean accuracy of each setting, with its interval over the seeds."""
    names = list(found.outcomes)
    figure, axes = plt.subplots(figsize=(10, max(1.6, 0.3 * len(names) + 0.8)), layout="constrained")
    intervals = [interval(found.accuracies(name)) for name in names]
    places = np.arange(len(names))[::-1]
    best = found.best()
    axes.barh(
        places, [one.mean for one in intervals], color=[FINE if name == best else NONE for name in names], height=0.7
    )
    for place, one in zip(places, intervals, strict=True):
        if one.low < one.high:
            axes.plot([one.low, one.high], [place, place], color=WATCH, linewidth=1.4)
        axes.annotate(f" {one.mean:.3f}", (max(one.high, one.mean), place), va="center", fontsize=7)
    axes.set_yticks(places, names)
    axes.set(xlim=(0, None), title="Accuracy on validation songs, mean and 95 % interval over the seeds")
    made = svg(figure)
    plt.close(figure)
    return made


def boxes(found: Found) -> Markup:
    """Draw the spread of the accuracy: all settings together, and each as a point."""
    values = [one.accuracy for _, one in found.each()]
    figure, axes = plt.subplots(figsize=(10, 1.8), layout="constrained")
    axes.boxplot(values, orientation="horizontal", widths=0.5, medianprops={"color": WATCH}, showmeans=True)
    axes.plot(values, np.full(len(values), 1.0), "o", color=FINE, markersize=4, alpha=0.6)
    axes.set_yticks([])
    axes.set_title(f"Best accuracy of {len(values)} trainings: box of the quartiles, mean as a triangle")
    made = svg(figure)
    plt.close(figure)
    return made


def convergence(found: Found) -> Markup | None:
    """Draw what each call of a search came to, and the best so far."""
    searched = [(name, one.trials) for name, one in found.each() if one.trials]
    if not searched:
        return None
    figure, axes = plt.subplots(figsize=(10, 3.2), layout="constrained")
    for at, (name, trials) in enumerate(searched):
        colour = COLOURS[at % len(COLOURS)]
        values = [trial.objective for trial in trials]
        calls = range(1, len(values) + 1)
        axes.plot(calls, values, "o", color=colour, markersize=3, alpha=0.5)
        axes.step(calls, np.maximum.accumulate(values), where="post", color=colour, linewidth=1.8, label=name)
    axes.legend(frameon=False, fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="call", title="Objective of each call, and the best so far")
    made = svg(figure)
    plt.close(figure)
    return made


DRAWN = {"curves": curves, "bars": bars, "boxes": boxes, "convergence": convergence}
