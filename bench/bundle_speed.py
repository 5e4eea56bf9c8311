"""What `segue bench` measures of a bundle: every model at every batch, the machine's ceilings, the dial."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from segue.bench.ceilings import COPY_BYTES, PRODUCT_FLOP, WINDOW_BYTES, flop_per_window, matrix_product, memory_copy
from segue.bench.compare import CEILINGS, PRODUCT
from segue.bench.results import CONFIDENCE, Figure
from segue.bench.timing import Cell, figures_of, in_turn
from segue.data.song import Bools, Ints, Songs
from segue.data.synth import Difficulty, draw_genres, draw_songs
from segue.data.table import NO_LABEL, SongTable
from segue.errors import ConfigError, SongError
from segue.machine import usable_cores
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import Cascade, open_cascade
from segue.serving.runtime import Provider
from segue.serving.tables import check_units

COPY = "memory copy"
DIAL_RATES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # Fallback rates.
DIAL_BATCH = 1024
MOST_DIAL_SONGS = 10_000  # That accuracy and agreement along the dial are measured on.


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    batches: tuple[int, ...]  # Songs in a call.
    threads: tuple[int, ...]  # Of each model.
    rounds: int  # With 15, a slowdown of 1.3 times of one figure is nearly always told from noise.
    seconds: float  # In all rounds together, of each figure.

    @classmethod
    def of(
        cls, quick: bool, batches: Sequence[int] | None, threads: Sequence[int] | None, seconds: float | None
    ) -> "Plan":
        """Return a plan; what is None is set by `quick`."""
        batches = batches if batches is not None else (1, 64, 1024) if quick else (1, 8, 64, 256, 1024)
        threads = threads if threads is not None else (usable_cores(),) if quick else (1, usable_cores())
        seconds = seconds if seconds is not None else 0.4 if quick else 1.0
        if not batches or min(batches) < 1 or seconds <= 0 or not threads or min(threads) < 1:
            raise ConfigError(
                "expected batches of at least 1 song, at least 1 thread and seconds above 0, found "
                f"{batches}, {threads} and {seconds}"
            )
        return cls(tuple(dict.fromkeys(batches)), tuple(dict.fromkeys(threads)), 15 if quick else 21, seconds)


def measure_bundle(bundle: Bundle, songs: Path | None, plan: Plan, provider: Provider) -> list[Figure]:
    """Measure a bundle on a song table, or on synthetic songs; every figure round after round, all in turn."""
    sample, labels = _songs(bundle, songs, max(*plan.batches, DIAL_BATCH))
    cascades = {number: open_cascade(bundle, provider=provider, threads=number) for number in plan.threads}
    fastest = cascades[max(plan.threads)]
    timed = sample[:DIAL_BATCH]
    thresholds = _thresholds(fastest, sample)
    cells = [
        *(
            Cell(CEILINGS, PRODUCT, PRODUCT_FLOP / 1e9, "GFLOP/s", matrix_product(n), {"threads": n})
            for n in sorted({1, *cascades})
        ),
        Cell(CEILINGS, COPY, COPY_BYTES / 1e9, "GB/s", memory_copy(), {"threads": 1}),
        *(
            Cell("models", "throughput", batch, "songs/s", call, {"model": name, "batch_songs": batch, "threads": n})
            for n, cascade in cascades.items()
            for batch in plan.batches
            for name, call in _calls(bundle, cascade, sample[:batch]).items()
        ),
        *(
            Cell("dial", "throughput", len(timed), "songs/s", partial(fastest.answer, timed, nats), {"asked": rate})
            for rate, nats in thresholds.items()
        ),
    ]
    taken = in_turn(cells, rounds=plan.rounds, seconds=plan.seconds / plan.rounds)
    found = [
        figure
        for cell, calls in zip(cells, taken, strict=True)
        for figure in figures_of(cell, calls, latencies=cell.group == "models")
    ]
    return [
        *found,
        *_over_teacher(found, bundle.manifest.rung_names[-1]),
        *_shares(bundle, fastest, timed, found),
        *_dial(fastest, sample, labels, thresholds),
    ]


def synthetic(n_songs: int, n_classes: int) -> Songs:
    """Return synthetic songs of 120 segments."""
    difficulty = Difficulty()
    genres = draw_genres(max(n_classes, 2), 0, difficulty)
    return Songs.of(draw_songs(n_songs, genres, difficulty, np.random.default_rng(0))[0])


def _songs(bundle: Bundle, songs: Path | None, least: int) -> tuple[Songs, Ints | None]:
    """Return songs to measure on, at least so many of them, and their classes if all have one."""
    if songs is None:
        return synthetic(least, len(bundle.manifest.classes)), None
    table = SongTable(songs)
    check_units(table, bundle)
    if not len(table):
        raise SongError(f"{songs}: expected songs to measure on, found none")
    labels = table.labels_among(bundle.manifest.classes)
    rows = np.arange(min(len(table), MOST_DIAL_SONGS))
    rows = np.resize(rows, max(least, len(rows)))
    return table.songs(rows), labels[rows] if (labels[rows] != NO_LABEL).all() else None


def _calls(bundle: Bundle, cascade: Cascade, songs: Songs) -> dict[str, Callable[[], object]]:
    """Return what is called of each rung's model, and of the cascade, by name."""
    calls: dict[str, Callable[[], object]] = {}
    for name, model in zip(bundle.manifest.rung_names, cascade.models, strict=True):
        calls[name] = partial(model.predict, songs)
    return calls | {"cascade": partial(cascade.answer, songs)}


def _over_teacher(found: Sequence[Figure], teacher: str) -> Iterator[Figure]:
    """Yield each throughput over that of the last rung at the same batch and threads, round by round."""
    rates = [one for one in found if one.group == "models" and one.name == "throughput"]
    last = {
        (one.conditions["batch_songs"], one.conditions["threads"]): one.rounds
        for one in rates
        if one.conditions["model"] == teacher
    }
    for one in rates:
        others = last[one.conditions["batch_songs"], one.conditions["threads"]]
        times = [ours / theirs for ours, theirs in zip(one.rounds, others, strict=True)]
        yield Figure.of("models", "over teacher", "times", times, better="higher", **one.conditions)


def _shares(bundle: Bundle, cascade: Cascade, songs: Songs, found: Sequence[Figure]) -> list[Figure]:
    """Return how much of the ceiling each throughput reaches, round by round; see `segue.bench.ceilings`."""
    rungs, manifest = bundle.manifest.all_rungs, bundle.manifest
    if any(manifest.entry(rung).provider != "CPUExecutionProvider" for rung in rungs):
        return []
    flop = [flop_per_window(bundle.model(manifest.entry(rung))) for rung in rungs]
    size = [len(bundle.model(manifest.entry(rung))) for rung in rungs]
    windows = [float(model.predict(songs).windows.mean()) for model in cascade.models]
    reached = cascade.answer(songs).reached
    asked = {name: [float(name == other) for other in manifest.rung_names] for name in manifest.rung_names}
    asked["cascade"] = [float((reached >= rung).mean()) for rung in range(len(rungs))]
    rates = {(one.name, one.conditions["threads"]): np.array(one.rounds) for one in found if one.group == CEILINGS}
    shares = []
    for one in found:
        if one.group != "models" or one.name != "throughput":
            continue
        name, batch, threads = (one.conditions[key] for key in ("model", "batch_songs", "threads"))
        parts = list(zip(asked[str(name)], flop, size, windows, strict=True))
        if any(share and operations is None for share, operations, *_ in parts):
            continue
        gflop = sum(share * (operations or 0.0) * seen for share, operations, _, seen in parts) / 1e9
        weights = sum(weights for share, _, weights, _ in parts if share) / float(batch)
        gigabytes = (weights + WINDOW_BYTES * sum(share * seen for share, *_, seen in parts)) / 1e9
        least_s = np.maximum(gflop / rates[PRODUCT, threads], gigabytes / rates[COPY, 1])
        rounds = (np.array(one.rounds) * least_s).tolist()
        shares.append(Figure.of("models", "of ceiling", "share", rounds, better="higher", **one.conditions))
    return shares


def _thresholds(cascade: Cascade, songs: Songs) -> dict[float, float]:
    """Return a threshold for each fallback rate of `DIAL_RATES`, in nats."""
    doubts = np.nan_to_num(cascade.student.predict(songs).doubt_nats, nan=np.inf)
    return {rate: float(np.quantile(doubts, 1 - rate)) if rate < 1 else -1.0 for rate in DIAL_RATES}


def _dial(cascade: Cascade, songs: Songs, labels: Ints | None, thresholds: dict[float, float]) -> Iterator[Figure]:
    """Yield what the answers are worth at each threshold."""
    teacher = cascade.teacher.predict(songs).probs.argmax(axis=1)
    for rate, nats in thresholds.items():
        answers = cascade.answer(songs, nats)
        yield _share("fallback rate", answers.fell_back, rate)
        yield _share("agreement with the teacher", answers.choice == teacher, rate)
        if labels is not None:
            yield _share("accuracy", answers.choice == labels, rate)


def _share(name: str, hits: Bools, asked: float) -> Figure:
    """Return the share of songs for which something holds, with its interval (Wilson)."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, "wilson")
    value = float(hits.mean())
    return Figure("dial", name, "share", value, interval.low, interval.high, (), "higher", {"asked": asked})
