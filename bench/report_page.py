"""The page of benchmarks: what is drawn of a run depends on the groups of figures that it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from segue.bench.results import Condition, Figure, Results, plain, table
from segue.page import FINE, INK, NONE, WATCH, drawing, svg, write_page

COLOURS = (FINE, WATCH, "#2b8a3e", "#ae3ec9", "#0c8599", "#f08c00", "#495057", "#c2255c")
WIDTH = 10.4  # Inches, of every picture: the page shows them equally wide.
STUDY = "study, "  # How models are called whose figures the study published.


@dataclass(frozen=True)
class Drawn:
    """A picture, or none, and the table of its figures."""

    title: str
    says: str  # How to read it.
    picture: Markup | None
    headers: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """What the page shows of one run."""

    run: Results
    drawn: list[Drawn]


def write_report(runs: Sequence[Results], page: Path) -> int:
    """Write the page of some runs and return how many pictures it has."""
    with drawing():
        sections = [Section(run, _draw(run)) for run in runs]
    write_page(page, Path(__file__).parent / "bench-report.html.j2", sections=sections)
    return sum(one.picture is not None for section in sections for one in section.drawn)


def _draw(run: Results) -> list[Drawn]:
    groups = list(dict.fromkeys(one.group for one in run.figures))
    found = []
    for group in sorted(groups, key=lambda one: list(PICTURES).index(one) if one in PICTURES else len(PICTURES)):
        figures = run.select(group)
        title, says, draw = PICTURES.get(group, (group, "", _bars_by_conditions))
        picture = draw(figures)
        made = None
        if picture is not None:
            made = svg(picture)
            plt.close(picture)
        found.append(Drawn(title, says, made, *table(figures)))
    return found


def _dial(figures: Sequence[Figure]) -> Picture:
    """Draw accuracy, or agreement where songs have no labels, over songs/s."""
    names = {one.name for one in figures}
    quality = "accuracy" if "accuracy" in names else "agreement with the teacher"
    of = {(one.name, _number(one, "asked")): one for one in figures}
    asked = sorted({_number(one, "asked") for one in figures})
    picture, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    speed, value = ([of[name, rate] for rate in asked] for name in ("throughput", quality))
    axes.errorbar(
        [one.value for one in speed],
        [one.value for one in value],
        xerr=_errors(speed),
        yerr=_errors(value),
        color=FINE, ecolor=NONE, marker="o", capsize=2, linewidth=2,
    )  # fmt: skip
    for rate, x, y in zip(asked, speed, value, strict=True):
        reached = of["fallback rate", rate].value
        text = "student only" if reached == 0 else "teacher only" if reached == 1 else f"{reached:.0%} fall back"
        axes.annotate(text, (x.value, y.value), (7, 5), textcoords="offset points", fontsize=8)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    _log(axes, "x")
    axes.set(xlabel="songs/s", ylabel=f"{quality}, share of songs")
    axes.grid(color="0.93")
    axes.margins(x=0.16)
    return picture


def _by_batch(figures: Sequence[Figure]) -> Picture:
    """Draw songs/s over the batch, a line a model, a panel for each number of threads."""
    figures = [one for one in figures if one.name == "throughput"]
    threads = sorted({_number(one, "threads") for one in figures})
    picture, panels = plt.subplots(
        1, len(threads), figsize=(WIDTH, 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, number in zip(panels[0], threads, strict=True):
        some = [one for one in figures if one.conditions["threads"] == number]
        _lines(axes, some, "model", "batch_songs")
        axes.set(xlabel="songs in a call", title=f"{number:g} thread{'s' if number != 1 else ''}")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        _log(axes, "y")
        axes.grid(color="0.93")
    panels[0][0].set_ylabel("songs/s")
    panels[0][0].legend(frameon=False)
    return picture


def _lines(axes: Axes, figures: Sequence[Figure], line: str, along: str) -> None:
    for name, colour in zip(dict.fromkeys(one.conditions[line] for one in figures), COLOURS, strict=False):
        points = sorted((one for one in figures if one.conditions[line] == name), key=lambda one: _number(one, along))
        x = [_number(one, along) for one in points]
        axes.errorbar(
            x, [one.value for one in points], yerr=_errors(points), label=str(name), color=colour, marker="o",
            markersize=4, capsize=2,
        )  # fmt: skip


def _latency(figures: Sequence[Figure]) -> Picture | None:
    """Draw latency over load: a panel for p50 and p99, a line for each kind of load."""
    quantiles = [name for name in ("p50", "p99") if any(one.name == name for one in figures)]
    if not quantiles:
        return None
    rates = {_without_name(one): one for one in figures if one.name == "throughput"}
    picture, panels = plt.subplots(1, len(quantiles), figsize=(WIDTH, 4), squeeze=False, layout="constrained")
    for axes, name in zip(panels[0], quantiles, strict=True):
        lines: dict[str, list[tuple[Figure, Figure]]] = {}
        for one in figures:
            if one.name == name and _without_name(one) in rates:
                kept = {key: one.conditions.get(key) for key in ("loop", "body", "songs")}
                label = ", ".join(
                    f"{key} {value}" if key == "songs" else str(value) for key, value in kept.items() if value
                )
                lines.setdefault(label, []).append((rates[_without_name(one)], one))
        for (label, points), colour in zip(lines.items(), COLOURS * 3, strict=False):
            points.sort(key=lambda pair: pair[0].value)
            axes.errorbar(
                [rate.value for rate, _ in points], [one.value for _, one in points],
                xerr=_errors([rate for rate, _ in points]), yerr=_errors([one for _, one in points]),
                marker="o", markersize=4, capsize=2, color=colour, label=label,
            )  # fmt: skip
        axes.set(xlabel="answers, requests/s", ylabel=f"latency {name}, ms")
        _log(axes, "y")
        axes.grid(color="0.93")
    panels[0][0].legend(frameon=False, fontsize=7)
    return picture


def _number(one: Figure, condition: str) -> float:
    return float(one.conditions[condition])


def _without_name(one: Figure) -> tuple[tuple[str, Condition], ...]:
    return tuple(sorted(one.conditions.items()))


def _study(figures: Sequence[Figure]) -> Picture:
    """Draw the seconds of a pass, the study's own beside ours, and each model's songs/s."""
    passes = [one for one in figures if one.name == "throughput"]
    colours = [NONE if one.title.startswith(f"throughput, {STUDY}") else FINE for one in passes]
    picture, axes = plt.subplots(figsize=(WIDTH, 0.32 * len(passes) + 1), layout="constrained")
    _horizontal(axes, passes, [str(one.conditions["model"]) for one in passes], colours)
    axes.set_xlabel("songs/s")
    return picture


def _peers(figures: Sequence[Figure]) -> Picture | None:
    """Draw requests/s and p99 of each server: a row of panels for each kind of request."""
    drawn = [one for one in figures if one.name in ("throughput", "p99") and "body" in one.conditions]
    kinds = list(dict.fromkeys((one.conditions["body"], one.conditions.get("songs", 1)) for one in drawn))
    servers = list(dict.fromkeys(one.conditions["server"] for one in drawn))
    if not drawn:
        return None
    picture, panels = plt.subplots(
        len(kinds), 2, figsize=(WIDTH, len(kinds) * (0.26 * len(servers) + 0.9)), squeeze=False, layout="constrained"
    )
    for row, (body, songs) in zip(panels, kinds, strict=True):
        for axes, name, unit in zip(row, ("throughput", "p99"), ("requests/s", "p99, ms"), strict=True):
            some = [
                one for one in drawn
                if one.name == name and (one.conditions["body"], one.conditions.get("songs", 1)) == (body, songs)
            ]  # fmt: skip
            some.sort(key=lambda one: one.value if one.better == "lower" else -one.value)
            labels = [str(one.conditions["server"]) for one in some]
            _horizontal(axes, some, labels, [FINE if "segue" in label.lower() else NONE for label in labels])
            axes.set(xlabel=unit, title=f"{body}, {songs} song{'s' if songs != 1 else ''} a request")
            if name == "throughput":
                axes.set_xscale("linear")
    return picture


def _bars_by_conditions(figures: Sequence[Figure]) -> Picture | None:
    """Draw a bar for each throughput of a group."""
    some = [one for one in figures if one.name == "throughput"]
    if not some:
        return None
    picture, axes = plt.subplots(figsize=(WIDTH, 0.3 * len(some) + 0.8), layout="constrained")
    varied = [key for key in some[0].conditions if len({one.conditions.get(key) for one in some}) > 1]
    labels = [", ".join(str(one.conditions.get(key, "")) for key in varied or list(one.conditions)) for one in some]
    fastest = max(one.value for one in some)
    _horizontal(axes, some, labels, [FINE if one.value == fastest else NONE for one in some])
    axes.set_xlabel(some[0].unit)
    return picture


def _no_picture(_: Sequence[Figure]) -> None:
    """Leave figures of several units to their table."""


def _horizontal(axes: Axes, figures: Sequence[Figure], labels: Sequence[str], colours: Sequence[str]) -> None:
    """Draw horizontal bars with their spread and their values, the first on top."""
    places = np.arange(len(figures))[::-1]
    values = [one.value for one in figures]
    axes.barh(places, values, xerr=_errors(figures), color=colours, height=0.7, error_kw={"ecolor": INK, "capsize": 2})
    for place, one in zip(places, figures, strict=True):
        right = (max(one.value, one.high), place)
        axes.annotate(plain(one.value), right, (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, labels)
    if values and min(values) > 0 and max(values) > 20 * min(values):
        _log(axes, "x")
    axes.margins(x=0.12)


def _log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with numbers as people write them."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Return how far the spread of each figure reaches below and above its value."""
    return [[max(one.value - one.low, 0) for one in figures], [max(one.high - one.value, 0) for one in figures]]


PICTURES: dict[str, tuple[str, str, Callable[[Sequence[Figure]], Picture | None]]] = {
    "dial": ("The dial", "Up is better answers, right is faster. A setting is a threshold of the cascade.", _dial),
    "models": ("Songs a second, by batch and threads", "From songs in memory to answers.", _by_batch),
    "load": ("Latency under load", "Open loop: a latency counts from when its request was due.", _latency),
    "study": ("The study's passes", "Grey: as the study published them, on its machine. Blue: on this one.", _study),
    "peers": ("Other servers of the same models", "Blue: Segue. The best is on top.", _peers),
    "ceilings": ("What the machine can do", "Measured in the same rounds.", _no_picture),
}
