"""What the suites share: how a call is measured, songs, and a bundle of the study's sizes.

`--quick` measures fewer sizes, for a shorter time. `--results FILE` writes the figures in the form of all benchmarks,
beside what pytest-benchmark saves.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from segue.bench.bundle_speed import synthetic
from segue.bench.results import Condition, Figure, Watch, command_of, results
from segue.bench.suites.made import make_bundle
from segue.data.song import Floats
from segue.data.synth import synth
from segue.data.table import SongTable

LEAST_ROUND_S = 0.01  # A call that is shorter is repeated within a round.
BLOCKS = 15  # Of a benchmark's rounds, each with a median of its own.
FIGURES = pytest.StashKey[list[Figure]]()
WATCH = pytest.StashKey[Watch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suites."""
    group = parser.getgroup("segue")
    group.addoption("--quick", action="store_true", help="fewer sizes, for a shorter time")
    group.addoption("--results", type=Path, metavar="FILE", help="write the figures to a results file")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look at the machine before anything is measured."""
    session.config.stash[FIGURES] = []
    session.config.stash[WATCH] = Watch().__enter__()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the results file."""
    config = session.config
    watch, figures, out = config.stash[WATCH], config.stash[FIGURES], config.getoption("results")
    watch.__exit__()
    if out is not None and figures:
        command = command_of("make bench", *(["QUICK=1"] if config.getoption("quick") else []))
        results("suites", command, figures, watch).write(out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fill in sizes: of a quick run the first and the last, and the most threads."""
    quick = metafunc.config.getoption("quick")
    for name, sizes, quick_sizes in (
        ("batch_songs", (1, 8, 64, 256, 1024), (1, 256)),
        ("threads", (1, 2), (2,)),
    ):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, quick_sizes if quick else sizes)


class Measure:
    """Measures a call: warmed up, in rounds of 10 ms or one call, for about a second (quick: a quarter of one)."""

    def __init__(self, benchmark: BenchmarkFixture, config: pytest.Config) -> None:
        """Measure by a fixture of pytest-benchmark."""
        self._benchmark = benchmark
        self._figures = config.stash[FIGURES]
        self._budget_s = 0.25 if config.getoption("quick") else 1.0

    def __call__(
        self, group: str, call: Callable[[], Any], amount: float, unit: str = "songs/s", *, least: int = 5,
        **conditions: Condition,
    ) -> Any:  # fmt: skip
        """Measure `call`, which does `amount` of work; return what it returned last.

        Args:
            group: of benchmarks that are compared; one of them is the baseline.
            call: what is measured.
            amount: of work in a call.
            unit: of amount a second.
            least: rounds at least, however long they take.
            conditions: what tells it from the others of its group.
        """
        call()
        started = time.perf_counter()
        call()
        once_s = time.perf_counter() - started
        iterations = max(1, round(LEAST_ROUND_S / once_s))
        rounds = max(least, round(self._budget_s / (once_s * iterations)))
        self._benchmark.group = group
        self._benchmark.extra_info.update(conditions, amount=amount, unit=unit)
        pedantic: Callable[..., Any] = self._benchmark.pedantic
        found = pedantic(call, rounds=rounds, iterations=iterations, warmup_rounds=1)
        if self._benchmark.stats is not None:  # None with --benchmark-disable
            rates = [amount / statistics.median(block) for block in _blocks(self._benchmark.stats.stats.data)]
            self._figures.append(Figure.of(group, "throughput", unit, rates, better="higher", **conditions))
        return found


def _blocks(seconds: Sequence[float]) -> list[list[float]]:
    """Return the rounds in `BLOCKS` blocks, each of rounds that followed each other."""
    return [block.tolist() for block in np.array_split(np.array(seconds), min(BLOCKS, len(seconds)))]


@pytest.fixture
def measure(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Measure:
    """How a call is measured."""
    return Measure(benchmark, request.config)


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether the run is quick."""
    return bool(request.config.getoption("quick"))


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for large files, emptied at the end."""
    folder = tmp_path_factory.mktemp("suites")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def windows() -> Floats:
    """Synthetic songs of one window, (1024, 120, 25)."""
    return np.stack(synthetic(1024, 10))


@pytest.fixture(scope="session")
def table(space: Path, quick: bool) -> SongTable:
    """A table of synthetic songs, mapped into memory."""
    synth(space / "songs.arrow", 5_000 if quick else 20_000)
    return SongTable(space / "songs.arrow")


@pytest.fixture(scope="session")
def bundle(space: Path) -> Path:
    """A bundle of the study's sizes, hardly trained, with 30 % of songs falling back."""
    return make_bundle(space / "made")
