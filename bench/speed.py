"""Measure songs per second and latency of every rung and of the cascade, all in one run.

Every figure is the median over many calls, from songs in memory to answers. Absolute figures drift with the machine;
the ratio to the teacher is what to quote.

Example:
    segue bench artifacts/bundle
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.command import run
from segue.data.song import Songs
from segue.data.synth import Difficulty, draw_genres, draw_songs
from segue.data.table import SongTable
from segue.errors import ConfigError, SongError
from segue.machine import usable_cores
from segue.provenance import Provenance, provenance
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import Cascade, open_cascade
from segue.serving.runtime import Provider
from segue.serving.tables import check_units
from segue.serving.timing import seconds_per_call


@dataclass(frozen=True)
class Speed:
    """One rung, or the cascade, at one batch size."""

    model: str  # The name of the rung: student, teacher, or student:9 where a model has several.
    batch_songs: int
    songs_per_s: float
    p50_ms: float  # A call with the whole batch.
    p99_ms: float
    times_teacher: float  # Songs/s over the teacher's, same batch, same run.


@dataclass(frozen=True)
class Benchmark:
    """What `segue bench` measured."""

    bundle: Path
    version: str
    fallback_rate: float  # Of the songs it was measured on.
    threads: int
    speeds: tuple[Speed, ...]
    provenance: Provenance

    def __str__(self) -> str:
        table = tabulate(
            [tuple(vars(speed).values()) for speed in self.speeds],
            ("", "batch", "songs/s", "p50 ms", "p99 ms", "x teacher"),
            floatfmt=("", "", ",.0f", ".2f", ".2f", ".1f"),
        )
        return (
            f"{self.bundle} (version {self.version}), {self.threads} threads, {self.provenance.machine}\n"
            f"{self.fallback_rate:.0%} of the songs fall back at the default threshold\n\n{table}"
        )


def bench(
    bundle: Positional[Path],
    songs: Path | None = None,
    batches: tuple[int, ...] = (1, 16, 256, 1024),
    seconds: float = 1.0,
    threads: int | None = None,
    provider: Provider = "auto",
) -> Benchmark:
    """Measure songs per second and latency.

    Args:
        bundle: The bundle's folder.
        songs: A song table to measure on. Default: synthetic songs.
        batches: Songs in a call.
        seconds: How long each figure is measured.
        threads: Threads of each model. Default: one for each core.
        provider: Where the models run; auto takes a GPU where there is one.
    """
    if not batches or min(batches) < 1 or seconds <= 0:
        raise ConfigError(f"expected batches of at least 1 song and seconds above 0, found {batches} and {seconds}")
    opened = load_bundle(bundle)
    cascade = open_cascade(opened, provider=provider, threads=threads)
    if songs is None:
        sample = synthetic(max(batches), len(opened.manifest.classes))
    else:
        table = SongTable(songs)
        check_units(table, opened)
        if not len(table):
            raise SongError(f"{songs}: expected songs to measure on, found none")
        sample = table.songs(np.resize(np.arange(len(table)), max(batches)))
    names = opened.manifest.rung_names
    speeds: list[Speed] = []
    for batch in tqdm(batches, unit=" batch sizes", disable=None, file=sys.stderr):
        speeds += _measure(cascade, names, sample[:batch], seconds)
    return Benchmark(
        bundle=bundle,
        version=opened.manifest.version,
        fallback_rate=float(cascade.answer(sample).fell_back.mean()),
        threads=threads or usable_cores(),
        speeds=tuple(speeds),
        provenance=provenance(),
    )


def synthetic(n_songs: int, n_classes: int) -> Songs:
    """Return synthetic songs of 120 segments."""
    difficulty = Difficulty()
    genres = draw_genres(max(n_classes, 2), 0, difficulty)
    return Songs.of(draw_songs(n_songs, genres, difficulty, np.random.default_rng(0))[0])


def _measure(cascade: Cascade, names: Sequence[str], songs: Songs, seconds: float) -> list[Speed]:
    """Measure each rung, by its name, and the cascade."""
    calls: dict[str, Callable[[], object]] = {
        name: partial(model.predict, songs) for name, model in zip(names, cascade.models, strict=True)
    }
    calls["cascade"] = partial(cascade.answer, songs)
    taken = {name: np.array(seconds_per_call(call, budget_s=seconds)) for name, call in calls.items()}
    teacher_s = float(np.median(taken[names[-1]]))
    return [
        Speed(
            model=name,
            batch_songs=len(songs),
            songs_per_s=len(songs) / float(np.median(times)),
            p50_ms=float(np.median(times)) * 1e3,
            p99_ms=float(np.quantile(times, 0.99)) * 1e3,
            times_teacher=teacher_s / float(np.median(times)),
        )
        for name, times in taken.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue bench`."""
    return run(bench, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
