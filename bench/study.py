"""The study's own measurement: passes over 50,000 songs, its eager teacher and student, and Segue's models beside them.

The study ran a teacher (a recurrence of 341 neurons without batch normalisation) and a student (3000 -> 1784 -> 10), in
eager mode, 50 songs at a time, 20 times over 50,000 songs. The same is done here: the networks are untrained, for speed
does not depend on what they know. Segue runs the same two as it exports them, its other students, and the cascade. All
go over the songs in turn, pass after pass.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from segue.bench.bundle_speed import synthetic
from segue.bench.networks import CLASSES, EagerStudent, EagerTeacher, graphs
from segue.bench.results import Figure, Results, Watch, results
from segue.data.song import Floats, Songs
from segue.data.table import SongTable
from segue.errors import SongError
from segue.machine import usable_cores
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import BATCH_WINDOWS, CalibratedModel, Cascade, open_cascade
from segue.serving.ladder import Ladder
from segue.serving.predictions import MODELS
from segue.serving.runtime import OnnxModel
from segue.serving.tables import check_units

PASSES, SONGS = 20, 50_000
QUICK_PASSES, QUICK_SONGS = 3, 2_000
EAGER_BATCH = 50
STATE, HIDDEN = 341, 1784
FALLBACK_RATES = (0.1, 0.25, 0.5)
STUDENT = "flat-1784-int8"  # Of the cascade where there is no bundle.
GRAPHS = ("teacher-fp32", "teacher-int8", "flat-1784-fp32", STUDENT, "pooled-512-int8")


@dataclass(frozen=True)
class Published:
    """What the study reports of a model, in seconds a pass; the wall time is of all 20."""

    mean: float
    least: float
    most: float
    variance: float
    wall: float


PUBLISHED = {
    "study, teacher": Published(45.94, 45.46, 46.67, 0.114, 918.0),
    "study, student": Published(9.42, 9.30, 10.02, 0.026, 191.0),
}


def measure_study(bundle: Bundle | None, command: str, *, songs: Path | None, quick: bool) -> Results:
    """Do the study's measurement.

    Args:
        bundle: whose models and cascade are measured beside those of the study's sizes.
        command: what was typed.
        songs: a song table to go over, again and again where it has fewer songs. Default: synthetic songs.
        quick: 3 passes over 2,000 songs.
    """
    passes, n_songs = (QUICK_PASSES, QUICK_SONGS) if quick else (PASSES, SONGS)
    windows = _windows(bundle, songs, n_songs)
    with Watch() as watch:
        ways = {
            **dict(_eager(windows)),
            **dict(_segue(windows)),
            **(dict(_of_bundle(bundle, windows)) if bundle else {}),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for name, _ in tqdm(list(ways.items()) * passes, unit=" passes", disable=None, file=sys.stderr):
            started = time.perf_counter()
            ways[name]()
            taken[name].append(time.perf_counter() - started)
    figures = [figure for name, seconds in taken.items() for figure in study_figures(name, seconds, n_songs)]
    figures += [figure for name, one in PUBLISHED.items() for figure in _published(name, one)]
    notes = [
        f"{passes} passes over {n_songs:,} songs, all models in turn. Eager networks: {EAGER_BATCH} songs at a time, "
        f"{usable_cores()} threads. 'study': as published, on another machine, over 50,000 songs."
    ]
    return results("study", command, figures, watch, notes)


def study_figures(model: str, seconds: Sequence[float], n_songs: int) -> Iterator[Figure]:
    """Yield a row of the study's table: of the seconds a pass the mean, extremes, variance and sum, and the songs/s."""
    rates = [n_songs / one for one in seconds]
    yield Figure.of("study", "throughput", "songs/s", rates, better="higher", model=model)
    spread = (min(seconds), max(seconds))
    yield Figure("study", "mean pass", "s", statistics.fmean(seconds), *spread, (), "lower", {"model": model})
    variance = statistics.variance(seconds) if len(seconds) > 1 else 0.0
    for name, unit, value in (
        ("shortest", "s", spread[0]),
        ("longest", "s", spread[1]),
        ("variance", "s2", variance),
        ("wall", "s", sum(seconds)),
    ):
        yield Figure("study", name, unit, value, value, value, (), "lower", {"model": model})


def _published(model: str, one: Published) -> Iterator[Figure]:
    values = {"mean pass": one.mean, "shortest": one.least, "longest": one.most, "wall": one.wall}
    rate, slow, fast = (SONGS / seconds for seconds in (one.mean, one.most, one.least))
    yield Figure("study", "throughput", "songs/s", rate, slow, fast, (), "higher", {"model": model})
    for name, value in values.items():
        spread = (one.least, one.most) if name == "mean pass" else (value, value)
        yield Figure("study", name, "s", value, *spread, (), "lower", {"model": model})
    yield Figure("study", "variance", "s2", one.variance, one.variance, one.variance, (), "lower", {"model": model})


def _windows(bundle: Bundle | None, songs: Path | None, n_songs: int) -> Floats:
    """Return the central windows of so many songs, (n_songs, 120, 25)."""
    if songs is None:
        return synthetic(n_songs, len(CLASSES)).windows()[0]
    table = SongTable(songs)
    if bundle:
        check_units(table, bundle)
    if not len(table):
        raise SongError(f"{songs}: expected songs to go over, found none")
    return table.songs(np.resize(np.arange(len(table)), n_songs)).windows()[0]


def _eager(windows: Floats) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the study's networks, called as it called them."""
    torch.set_num_threads(usable_cores())
    batches = [torch.from_numpy(windows[at : at + EAGER_BATCH]) for at in range(0, len(windows), EAGER_BATCH)]

    def go(network: torch.nn.Module) -> None:
        with torch.inference_mode():
            for batch in batches:
                network(batch)

    yield "eager torch, teacher", partial(go, EagerTeacher(state=STATE, batch_norm=False).eval())
    yield "eager torch, student", partial(go, EagerStudent(hidden=HIDDEN).eval())


def _segue(windows: Floats) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the same networks as Segue exports and runs them, and a cascade of the two at several fallback rates."""
    chosen = {name: graph for name, graph in graphs(windows[:BATCH_WINDOWS]) if name in GRAPHS}
    models = {
        name: CalibratedModel(
            OnnxModel(graph.SerializeToString(), name, provider="cpu", arena=not name.startswith("teacher")),
            windows=1,
            temperature=1.0,
        )
        for name, graph in chosen.items()
    }
    batches = _batches(windows)
    for name, model in models.items():
        yield f"Segue, {name}", partial(_all, model.predict, batches)
    cascade = Cascade([models[STUDENT], models["teacher-int8"]], Ladder(MODELS, (0.0,)))
    yield from _cascades(f"Segue, cascade of {STUDENT} and teacher-int8", cascade, batches)


def _of_bundle(bundle: Bundle, windows: Floats) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the models of a bundle, and its cascade at several fallback rates."""
    cascade, batches = open_cascade(bundle, provider="cpu"), _batches(windows)
    for name, model in zip(bundle.manifest.rung_names, cascade.models, strict=True):
        yield f"bundle, {name}", partial(_all, model.predict, batches)
    yield from _cascades("bundle, cascade", cascade, batches)


def _cascades(name: str, cascade: Cascade, batches: Sequence[Songs]) -> Iterator[tuple[str, Callable[[], None]]]:
    doubts = cascade.student.predict(batches[0]).doubt_nats
    for rate in FALLBACK_RATES:
        threshold = float(np.quantile(doubts, 1 - rate))

        def answer(songs: Songs, threshold: float = threshold) -> object:
            return cascade.answer(songs, threshold)

        yield f"{name}, {rate:.0%} fall back", partial(_all, answer, batches)


def _batches(windows: Floats) -> list[Songs]:
    return [Songs.of(windows[at : at + BATCH_WINDOWS]) for at in range(0, len(windows), BATCH_WINDOWS)]


def _all(call: Callable[[Songs], object], batches: Sequence[Songs]) -> None:
    for songs in batches:
        call(songs)
