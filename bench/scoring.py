"""Measure `segue score`: beside the models in process, beside pyarrow, beside the study's way, at every size, on Ray.

Each figure that is compared with another is taken in turn with it, round after round, and the median counts. Every run
of `segue score` is a process of its own, whose anonymous memory is watched. Ratios are what to quote, of a machine that
does nothing else.

Example:
    python -m segue.bench.scoring artifacts/bundle --quick
    python -m segue.bench.scoring artifacts/bundle --results docs/results/scoring.json --page docs/scoring.md
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.memory import peak_bytes
from segue.bench.networks import EagerTeacher
from segue.bench.results import Better, Figure, Results, Watch, command_of, results
from segue.command import run
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.machine import usable_cores
from segue.publish import write_block
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import BATCH_WINDOWS, open_cascade
from segue.serving.tables import check_units
from segue.training.networks.recurrent import RecurrentConfig

COMMAND = "python -m segue.bench.scoring"
FALLBACK_RATE = 0.2  # Of the cascade that is measured.
STUDY_BATCH, STUDY_SONGS = 50, 5000
MEGABYTE = 1e6
CATALOGUE = 10**9  # Songs that a cluster is sized for, ...
CORE_HOUR_USD = 0.05  # ... at about what clouds ask for a core an hour, with its memory, ...
DAY_H = 24  # ... and in this time.


@dataclass(frozen=True)
class Target:
    """What a figure should be."""

    least: float | None = None
    most: float | None = None

    def is_reached_by(self, value: float) -> bool:
        """Tell whether a figure is so."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


TARGETS = {
    "student only, Arrow, over the student in process": Target(least=0.9),
    "cascade, Arrow, over what its costs predict": Target(least=0.95),
    "student only, Parquet, over pyarrow's decoding": Target(least=0.9),
    "student only, over the study's way": Target(least=60),
    "cascade, over the study's way": Target(least=15),
    "songs/s, slowest over fastest size": Target(least=0.9),
    "Ray over local": Target(least=0.85),
    "most anonymous memory": Target(most=600),
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    distinct: int  # Songs that are made.
    many: int  # The largest catalogue: these songs, over and over.
    few: int  # The smallest.
    rounds: int  # Each of the songs that are made.
    ray: bool


FULL = Sizes(distinct=200_000, many=1_000_000, few=10_000, rounds=3, ray=True)
QUICK = Sizes(distinct=8_000, many=16_000, few=2_000, rounds=1, ray=False)


@dataclass(frozen=True)
class Run:
    """One run of `segue score`."""

    songs_per_s: float  # Apart from the start.
    fallback_rate: float
    setup_s: float
    peak_bytes: int


@dataclass(frozen=True)
class ScoringBenchmark:
    """What was measured."""

    results: Results

    def __str__(self) -> str:
        figures = self.results.figures
        rates = [(one.title, f"{one.value:,.0f}", one.unit) for one in figures if one.group == "scoring"]
        ratios = [
            (one.name, f"{one.value:.2f}" if one.unit == "times" else f"{one.value:,.0f} {one.unit}",
             TARGETS[one.name], "reached" if TARGETS[one.name].is_reached_by(one.value) else "missed")
            for one in figures if one.group == "scoring targets"
        ]  # fmt: skip
        tables = (
            _table(ratios, ("", "found", "wanted", "")), _table(rates, ("", "", "")), _cluster(self.results),
            self.results.warning or "", f"{self.results.origin}.",
        )  # fmt: skip
        return "\n\n".join(filter(None, tables))


def _cluster(found: Results) -> str:
    """Return what a catalogue of 10^9 songs takes, as Markdown."""
    figures = {one.name: one.value for one in found.figures}
    many = next(name for name in figures if name.startswith("cascade, ") and name.endswith(" songs"))
    rates = {
        "student only": figures[many.replace("cascade", "student only")],
        f"cascade, {figures['fallback rate of the cascade']:.0f} % fallback": figures[many],
        "teacher only": figures["teacher in process"],
    }
    rows = []
    for dial, songs_per_s in rates.items():
        hours = CATALOGUE / songs_per_s / 3600
        dollars = CORE_HOUR_USD * usable_cores() * hours / CATALOGUE * 1e6
        rows.append((dial, f"{hours:,.0f}", f"{hours / DAY_H:,.1f}", f"{dollars:,.3f}"))
    headers = ("10^9 songs", "machine hours", f"machines for {DAY_H} h", "$ per 10^6 songs")
    sizes = {name: figures[f"size of a song, {name}"] for name in ("Arrow", "Parquet")}
    moved = ", ".join(f"{size * CATALOGUE / 1e12:.1f} TB in {name}" for name, size in sizes.items())
    answers_gb = figures["size of an answer"] * CATALOGUE / 1e9
    return (
        f"{_table(rows, headers)}\n\nA machine has {usable_cores()} cores, at {CORE_HOUR_USD:g} $ a core and hour. "
        f"Songs of 120 segments to read: {moved}; answers to write: {answers_gb:.0f} GB."
    )


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "right", "right"))


def scoring(
    bundle: Positional[Path],
    songs: Path | None = None,
    quick: bool = False,
    ray: bool | None = None,
    results: Path | None = None,
    page: Path | None = None,
) -> ScoringBenchmark:
    """Measure `segue score` with a bundle.

    Args:
        bundle: The bundle's folder.
        songs: An Arrow table of as many songs as are measured on. Default: synthetic songs.
        quick: Few songs, once: shows that it runs; the figures say little.
        ray: Measure on Ray too. Default: unless --quick.
        results: The file for the figures.
        page: A page whose block of figures is written anew.
    """
    sizes = QUICK if quick else FULL
    with TemporaryDirectory(prefix="segue-scoring-") as folder, Watch() as watch:
        measured = _Measured(bundle, Path(folder), sizes, songs)
        figures = measured.figures(with_ray=sizes.ray if ray is None else ray)
    found = ScoringBenchmark(_results(figures, watch))
    if results:
        found.results.write(results)
    if page:
        write_block(page, COMMAND, str(found))
    return found


def _results(figures: Sequence[Figure], watch: Watch) -> Results:
    notes = [f"{name}: wanted {target}" for name, target in TARGETS.items()]
    return results("bench", command_of(COMMAND, *sys.argv[1:]), figures, watch, notes)


class _Measured:
    """The songs, and what is measured on them."""

    def __init__(self, bundle: Path, folder: Path, sizes: Sizes, songs: Path | None) -> None:
        """Make the songs, in `folder`; nothing is measured yet."""
        self._bundle, self._folder, self._sizes = bundle, folder, sizes
        self._opened = load_bundle(bundle)
        self._songs = songs or folder / "songs.arrow"
        if songs is None:
            synth(self._songs, songs=sizes.distinct, classes=len(self._opened.manifest.classes), seed=1)
        table = SongTable(self._songs)
        check_units(table, self._opened)
        if len(table) < sizes.distinct:
            raise ConfigError(f"{songs}: expected {sizes.distinct:,} songs, found {len(table):,}")
        self._cascade = open_cascade(self._opened)
        self._batch = table.songs(range(BATCH_WINDOWS))
        some = table.songs(range(4 * BATCH_WINDOWS))
        self._threshold = float(np.quantile(self._cascade.student.predict(some).doubt_nats, 1 - FALLBACK_RATE))
        self._runs = 0

    def figures(self, *, with_ray: bool) -> list[Figure]:
        """Measure everything."""
        sizes, fast, dial = self._sizes, ("--mode", "fast"), ("--threshold", str(self._threshold))
        arrow, parquet = self._link("songs.arrow", 1), self._parquet()
        in_turn: dict[str, Callable[[], float]] = {
            "student in process": self._student,
            "teacher in process": self._teacher,
            "student only, Arrow": lambda: self._score(arrow, *fast).songs_per_s,
            "cascade, Arrow": lambda: self._score(arrow, *dial).songs_per_s,
            "pyarrow decodes Parquet": lambda: _decoding(parquet),
            "student only, Parquet": lambda: self._score(parquet, *fast).songs_per_s,
        }
        rates = _in_turn(in_turn, sizes.rounds)
        fell_back = self._score(arrow, *dial).fallback_rate
        predicted = [
            1 / (1 / student + fell_back / teacher)
            for student, teacher in zip(rates["student in process"], rates["teacher in process"], strict=True)
        ]
        rates["cascade, as its costs predict"] = predicted
        many = self._link("many", max(sizes.many // sizes.distinct, 1))
        rates["the study's way: eager torch, 50 at a time"] = [self._study()]
        student, cascade = self._score(many, *fast), self._score(many, *dial)
        rates["the study's way: eager torch, 50 at a time"].append(self._study())
        few = self._few()
        rates[f"cascade, {sizes.many:,} songs"] = [cascade.songs_per_s]
        of_each_size: dict[str, Callable[[], float]] = {
            f"student only, {sizes.few:,} songs": lambda: self._score(few, *fast).songs_per_s,
            f"student only, {sizes.distinct:,} songs": lambda: self._score(arrow, *fast).songs_per_s,
            f"student only, {sizes.many:,} songs": lambda: self._score(many, *fast).songs_per_s,
        }
        by_size = _in_turn(of_each_size, sizes.rounds)
        rates |= by_size
        held = self._memory(parquet, many, student, cascade)
        study = statistics.median(rates["the study's way: eager torch, 50 at a time"])
        ratios = {
            "student only, Arrow, over the student in process": _over(
                rates, "student only, Arrow", "student in process"
            ),
            "cascade, Arrow, over what its costs predict": _over(
                rates, "cascade, Arrow", "cascade, as its costs predict"
            ),
            "student only, Parquet, over pyarrow's decoding": _over(
                rates, "student only, Parquet", "pyarrow decodes Parquet"
            ),
            "student only, over the study's way": [student.songs_per_s / study],
            "cascade, over the study's way": [cascade.songs_per_s / study],
            "songs/s, slowest over fastest size": [
                min(of_a_round) / max(of_a_round) for of_a_round in zip(*by_size.values(), strict=True)
            ],
        }
        if with_ray:
            engines: dict[str, Callable[[], float]] = {
                "cascade, Arrow, in turn with Ray": lambda: self._score(arrow, *dial).songs_per_s,
                "cascade, Arrow, Ray on this machine": lambda: self._score(arrow, *dial, "--engine", "ray").songs_per_s,
            }
            rates |= _in_turn(engines, sizes.rounds)
            local, ray = engines
            ratios["Ray over local"] = _over(rates, ray, local)
        return [
            *(_figure("scoring targets", name, "times", found) for name, found in ratios.items()),
            _figure("scoring targets", "most anonymous memory", "MB", [max(held.values())], "lower"),
            *(_figure("scoring", name, "songs/s", found) for name, found in rates.items()),
            *(_figure("scoring", f"memory, {name}", "MB", [found], "lower") for name, found in held.items()),
            _figure("scoring", "fallback rate of the cascade", "%", [100 * fell_back], "lower"),
            _figure("scoring", "start of a run", "ms", [1e3 * student.setup_s], "lower"),
            *(_figure("scoring", f"size of {of}", "bytes", [found], "lower") for of, found in self._sizes_of(parquet)),
        ]  # fmt: skip

    def _memory(self, parquet: Path, many: Path, student: Run, cascade: Run) -> dict[str, float]:
        """Return the most anonymous memory of a run, in MB, by what was scored and how."""
        whole = self._one_batch()
        runs = {
            f"student only, {self._sizes.many:,} songs": student,
            f"cascade, {self._sizes.many:,} songs": cascade,
            "accurate": self._score(self._few(), "--mode", "accurate"),
            "Parquet": self._score(parquet, "--mode", "fast"),
            "one record batch": self._score(whole, "--mode", "fast"),
            "to one Parquet file": self._score(many, "--mode", "fast", out="out.parquet"),
            "to CSV, with probabilities": self._score(many, "--mode", "fast", "--probs", out="out.csv"),
            "a promise": self._score(many, "--agree", "0.9"),
        }
        return {name: one.peak_bytes / MEGABYTE for name, one in runs.items()}

    def _score(self, songs: Path, *options: str, out: str = "out") -> Run:
        """Score some songs, in a process of its own."""
        self._runs += 1
        place = self._folder / f"{self._runs}-{out}"
        words = ["-m", "segue", "score", str(self._bundle), str(songs), "--out", str(place), *options, "--json"]
        with NamedTemporaryFile() as output:
            peak = peak_bytes(words, output.file)
            said = json.loads(Path(output.name).read_text())
        seconds = said["seconds"] - said["setup_seconds"]
        return Run(said["songs"] / seconds, said["fallback_rate"], said["setup_seconds"], peak)

    def _sizes_of(self, parquet: Path) -> Iterator[tuple[str, float]]:
        """Yield how many bytes songs and answers take."""
        songs = self._sizes.distinct
        yield "a song, Arrow", self._songs.stat().st_size / songs
        yield "a song, Parquet", parquet.stat().st_size / songs
        answers = self._folder / "1-out"
        yield "an answer", sum(file.stat().st_size for file in answers.glob("part-*.parquet")) / songs

    def _student(self) -> float:
        return _songs_per_s(lambda: self._cascade.student.predict(self._batch), len(self._batch))

    def _teacher(self) -> float:
        return _songs_per_s(lambda: self._cascade.teacher.predict(self._batch), len(self._batch))

    def _study(self) -> float:
        """Return the songs/s of the study's teacher: torch, cell by cell, 50 songs at a time."""
        torch.set_num_threads(usable_cores())
        teacher = EagerTeacher(state=RecurrentConfig().state).eval()
        songs = torch.from_numpy(np.array(self._batch.windows(1)[0][:STUDY_BATCH]))
        teacher.seconds(songs)
        calls = min(STUDY_SONGS, self._sizes.distinct // 8) // STUDY_BATCH
        return STUDY_BATCH * calls / sum(teacher.seconds(songs) for _ in range(calls))

    def _link(self, name: str, times: int) -> Path:
        """Return a folder that has the songs so many times."""
        folder = self._folder / f"{name}-{times}"
        if not folder.exists():
            folder.mkdir()
            for number in range(times):
                (folder / f"{number}.arrow").symlink_to(self._songs.resolve())
        return folder

    def _parquet(self) -> Path:
        return self._write("songs.parquet", self._batches(self._sizes.distinct))

    def _few(self) -> Path:
        place = self._folder / "few.arrow"
        return place if place.exists() else self._write("few.arrow", self._batches(self._sizes.few))

    def _one_batch(self) -> Path:
        """Return an Arrow file of one large record batch."""
        table = pa.Table.from_batches(self._batches(self._sizes.distinct // 4)).combine_chunks()
        return self._write("one-batch.arrow", iter(table.to_batches()))

    def _batches(self, songs: int) -> Iterator[pa.RecordBatch]:
        """Yield the first songs."""
        with pa.OSFile(str(self._songs)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)[:songs]
                songs -= len(batch)
                if len(batch):
                    yield batch

    def _write(self, name: str, batches: Iterator[pa.RecordBatch]) -> Path:
        place = self._folder / name
        first = next(batches)
        opened = (
            pq.ParquetWriter(place, first.schema) if name.endswith(".parquet") else pa.ipc.new_file(place, first.schema)
        )
        with opened as sink:
            for batch in (first, *batches):
                sink.write_batch(batch)
        return place


def _in_turn(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each measure found, round after round."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in tqdm(range(rounds), unit=" rounds", disable=None, file=sys.stderr):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def _over(rates: dict[str, list[float]], one: str, other: str) -> list[float]:
    """Return the ratio of two rates in each round."""
    return [a / b for a, b in zip(rates[one], rates[other], strict=True)]


def _songs_per_s(call: Callable[[], object], songs: int) -> float:
    """Return the rate of a call, over some seconds of it: as long as cores keep their speed."""
    call()
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < 2:
        call()
        calls += 1
    return calls * songs / seconds


def _decoding(parquet: Path) -> float:
    """Return the songs/s at which pyarrow decodes a file, batch after batch, as it does by default."""
    started, songs = time.perf_counter(), 0
    for batch in pq.ParquetFile(parquet).iter_batches(BATCH_WINDOWS, columns=["song_id", "segments"]):
        songs += len(batch)
    return songs / (time.perf_counter() - started)


def _figure(group: str, name: str, unit: str, rounds: Sequence[float], better: Better = "higher") -> Figure:
    return Figure.of(group, name, unit, rounds, better=better)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the scorer."""
    return run(scoring, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
