"""Measure the exported graphs, the study's eager teacher and the machine's matrix products beside each other.

The networks are untrained, of the study's sizes: speed does not depend on what they know. All are called in turn, round
after round, and the median of each counts. Ratios are what to quote, of a machine that does nothing else. A small run
is then trained, exported and loaded.

Example:
    python -m segue.bench.models
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from tabulate import tabulate
from torch import Tensor

from segue.atomic import atomic_file
from segue.bench.networks import EagerTeacher, graphs
from segue.command import run, to_json
from segue.data.synth import Difficulty, draw_genres, draw_songs
from segue.errors import ConfigError, RunError
from segue.machine import usable_cores
from segue.provenance import Provenance, provenance
from segue.publish import write_block
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.runtime import OnnxModel, onnxruntime
from segue.serving.timing import seconds_per_call
from segue.training.networks.recurrent import RecurrentConfig

COMMAND = "python -m segue.bench.models"
TEACHER_FLOP = 2 * 120 * (25 + 341) * 341  # Of a song.
PRODUCT = 1024  # Rows and columns of the matrices whose product tells the machine's rate.
LEAST_S = 0.02  # A call that is shorter is repeated.
SETTLE_S = 0.05  # Calls that do not count, until the threads of whatever ran before no longer wait for work in a loop.
BATCHES = {
    "teacher-fp32": (1, 256, 1024),
    "teacher-int8": (1, 256, 1024),
    "teacher-unrolled": (1, 256, 1024),
    "teacher-operator": (1, 256, 1024),
    "flat-1784-fp32": (1, 256),
    "flat-1784-int8": (1, 256),
    "flat-828-fp32": (1, 256),
    "flat-828-int8": (1, 256),
    "pooled-512-fp32": (1, 256),
    "pooled-512-int8": (1, 256),
}
SCANS = ("teacher-fp32", "teacher-int8")
OPERATOR = "teacher-operator"
PLAIN = "teacher-operator, plain"  # ONNX Runtime as it comes, its threads inside the operator.
EAGER, EAGER_BATCHES = "eager torch", (1, 50)
Call = Callable[[], object]
Key = tuple[str, int]  # A graph, and songs in a call.


@dataclass(frozen=True)
class Speed:
    """One graph at one batch size."""

    graph: str
    batch_songs: int
    songs_per_s: float


@dataclass(frozen=True)
class Ratio:
    """A figure over another one of the same run."""

    what: str
    ratio: float
    wanted: float | None  # At least this.


@dataclass(frozen=True)
class ModelsBenchmark:
    """What was measured."""

    speeds: tuple[Speed, ...]
    product_gflop_per_s: float  # Of a float32 matrix product, by numpy.
    ratios: tuple[Ratio, ...]
    load_ms: float  # Of a bundle with the study's teacher and flat student: read, and every sha256 verified.
    open_ms: float  # The same, and both models opened.
    export_s: float  # Of both, every form tried and timed.
    threads: int
    provenance: Provenance

    def __str__(self) -> str:
        """Return the tables as Markdown."""
        found = {(one.graph, one.batch_songs): one.songs_per_s for one in self.speeds}
        batches = sorted({batch for _, batch in found})
        speeds = [
            (graph, *(f"{found[graph, batch]:,.0f}" if (graph, batch) in found else "" for batch in batches))
            for graph in dict.fromkeys(one.graph for one in self.speeds)
        ]
        ratios = [
            (one.what, f"{one.ratio:.2f}", "" if one.wanted is None else f"{one.wanted:g}", _verdict(one))
            for one in self.ratios
        ]
        made = self.provenance
        return (
            f"{_table(speeds, ('songs/s', *(f'{batch} at a time' for batch in batches)))}\n\n"
            f"{_table(ratios, ('times', 'found', 'wanted', ''))}\n\n"
            f"Matrix product, float32: {self.product_gflop_per_s:.0f} GFLOP/s. A bundle of the teacher and the flat\n"
            f"student is exported in {self.export_s:.0f} s, every form tried and timed; its files are verified in "
            f"{self.load_ms:.0f} ms, with both\nmodels opened in {self.open_ms:.0f} ms.\n\n"
            f"{made.time[:10]}, commit {made.commit}, {self.threads} threads, {made.machine}."
        )


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _verdict(one: Ratio) -> str:
    return "" if one.wanted is None else "reached" if one.ratio >= one.wanted else "missed"


def models(
    rounds: int = 20, results: Path = Path("docs/results/models.json"), page: Path = Path("docs/models.md")
) -> ModelsBenchmark:
    """Measure the exported graphs.

    Args:
        rounds: How often each figure is taken; the median counts.
        results: The file for the figures.
        page: The page whose table is written anew.
    """
    if rounds < 1:
        raise ConfigError(f"rounds: expected at least 1, found {rounds}")
    with TemporaryDirectory() as folder:
        speeds, product_s = _speeds(Path(folder), rounds)
        load_ms, open_ms, export_s = _bundle(Path(folder))
    product = 2 * PRODUCT**3 / product_s / 1e9
    found = ModelsBenchmark(
        tuple(Speed(graph, batch, speed) for (graph, batch), speed in speeds.items()),
        product,
        ratios_of(speeds, product),
        load_ms,
        open_ms,
        export_s,
        usable_cores(),
        provenance(),
    )
    with atomic_file(results) as draft:
        draft.write_text(to_json(found) + "\n")
    write_block(page, COMMAND, str(found))
    return found


def _speeds(folder: Path, rounds: int) -> tuple[dict[Key, float], float]:
    """Return the most songs/s by graph and batch, and the seconds of a matrix product, all taken in turn."""
    difficulty = Difficulty()
    songs = draw_songs(1024, draw_genres(10, 0, difficulty), difficulty, np.random.default_rng(1))[0]
    left, right = np.random.default_rng(0).standard_normal((2, PRODUCT, PRODUCT), dtype=np.float32)
    for name, exported in graphs(songs):
        onnx.save(exported, folder / f"{name}.onnx")
    torch.set_num_threads(usable_cores())
    eager = EagerTeacher(state=RecurrentConfig().state).eval()
    calls: dict[Key, Call] = {}
    for graph, batches in BATCHES.items():
        file = folder / f"{graph}.onnx"
        model = OnnxModel(file.read_bytes(), file.name, provider="cpu", arena=graph not in SCANS)
        calls |= {(graph, batch): partial(model.logits, songs[:batch]) for batch in batches}
    plain = onnxruntime().InferenceSession(folder / "teacher-operator.onnx", providers=["CPUExecutionProvider"])
    calls |= {(PLAIN, batch): partial(plain.run, None, {"segments": songs[:batch]}) for batch in (1, 256, 1024)}
    seconds = _in_turn(
        {
            **{key: _timer(call) for key, call in calls.items()},
            **{(EAGER, batch): partial(_settled, eager, torch.from_numpy(songs[:batch])) for batch in EAGER_BATCHES},
            ("product", 0): _timer(lambda: left @ right),
        },
        rounds,
    )
    product_s = seconds.pop(("product", 0))
    return {(graph, batch): batch / taken for (graph, batch), taken in seconds.items()}, product_s


def _timer(call: Call) -> Callable[[], float]:
    """Return what times a call, repeated where it is short."""
    call()
    repeats = max(1, round(LEAST_S / _seconds(call, 1)))
    settling = max(1, round(SETTLE_S / _seconds(call, 1)))

    def seconds() -> float:
        _seconds(call, settling)
        return _seconds(call, repeats)

    return seconds


def _settled(eager: EagerTeacher, batch: Tensor) -> float:
    started = time.perf_counter()
    while time.perf_counter() - started < SETTLE_S:
        eager.seconds(batch)
    return eager.seconds(batch)


def _seconds(call: Call, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _in_turn(timers: dict[Key, Callable[[], float]], rounds: int) -> dict[Key, float]:
    """Return the median seconds of each timer."""
    taken = [{key: timer() for key, timer in timers.items()} for _ in range(rounds)]
    return {key: statistics.median(one[key] for one in taken) for key in timers}


def ratios_of(songs_per_s: dict[Key, float], product_gflop_per_s: float) -> tuple[Ratio, ...]:
    """Return the ratios that matter, of songs/s by graph and songs in a call."""

    def times(graph: str, batch: int, other: str, other_batch: int | None = None) -> float:
        return songs_per_s[graph, batch] / songs_per_s[other, other_batch or batch]

    rate = TEACHER_FLOP / 1e9 / product_gflop_per_s
    students = [graph for graph in BATCHES if not graph.startswith("teacher")]
    teacher = "teacher-fp32"
    return (
        *(Ratio(f"teacher, Scan, over the RNN operator, batch {n}", times(teacher, n, PLAIN), 4) for n in (256, 1024)),
        *(
            Ratio(
                f"teacher, Scan, over the RNN operator with our threads, batch {n}", times(teacher, n, OPERATOR), None
            )
            for n in (256, 1024)
        ),
        *(
            Ratio(f"teacher, Scan, over the rate of matrix products, batch {n}", songs_per_s[teacher, n] * rate, 0.75)
            for n in (256, 1024)
        ),
        Ratio("teacher, Scan, over eager torch, batch 1", times("teacher-fp32", 1, EAGER), 4),
        *(
            Ratio(f"teacher, int8 over fp32, batch {n}", times("teacher-int8", n, "teacher-fp32"), None)
            for n in (1, 256)
        ),
        *(
            Ratio(f"flat-1784, int8 over fp32, batch {n}", times("flat-1784-int8", n, "flat-1784-fp32"), wanted)
            for n, wanted in ((256, 2), (1, 3))
        ),
        *(
            Ratio(f"{one}, batch 256, over the eager teacher, batch 50", times(one, 256, EAGER, 50), wanted)
            for one in students
            for wanted in (100 if one.startswith("pooled") else None,)
        ),
    )


def _bundle(folder: Path) -> tuple[float, float, float]:
    """Train, export and load a bundle of full size; return the ms of loading, those of opening, the s of exporting."""
    songs, teacher, student, bundle = (folder / name for name in ("songs.arrow", "teacher", "student", "bundle"))
    _segue("synth", songs, "--songs", 1000)
    _segue("train-teacher", songs, "--out", teacher, "--folds", 2, "--epochs", 1, "recurrent")
    flat = ("--look", "flat", "--hidden", 1784)
    _segue("train-student", songs, "--teacher", teacher, "--out", student, "--epochs", 1, *flat)
    started = time.perf_counter()
    _segue("export", student, "--out", bundle)
    export_s = time.perf_counter() - started
    load_s = statistics.median(seconds_per_call(lambda: load_bundle(bundle)))
    open_s = statistics.median(seconds_per_call(lambda: open_cascade(load_bundle(bundle))))
    return load_s * 1e3, open_s * 1e3, export_s


def _segue(*words: object) -> None:
    command = [sys.executable, "-m", "segue", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RunError(f"{' '.join(command)} failed: {ended.stderr.strip().splitlines()[-1]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the graphs."""
    return run(models, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
