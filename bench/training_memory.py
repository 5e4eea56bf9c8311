"""Measure how much memory training holds on small and large song sets: it should not grow with the songs.

A teacher of one hidden layer, with its fold teachers, is trained for one epoch in a process of its own. What it maps
from the song table is not counted: the system takes that back whenever it wants to. The figures go to docs/results/
and the page about them.

Example:
    python -m segue.bench.training_memory
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from segue.atomic import atomic_file
from segue.bench.memory import peak_bytes
from segue.command import run, to_json
from segue.data.synth import synth
from segue.errors import ConfigError
from segue.provenance import Provenance, provenance
from segue.publish import write_block

COMMAND = "python -m segue.bench.training_memory"
TRAINING = "--folds 2 --epochs 1 dense --hidden 64"


@dataclass(frozen=True)
class Held:
    """What training on so many songs took."""

    songs: int
    table_bytes: int
    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class MemoryBenchmark:
    """What was measured."""

    training: str  # Options of `segue train-teacher`.
    held: tuple[Held, ...]
    provenance: Provenance

    def __str__(self) -> str:
        """Return the table as Markdown."""
        rows = [(f"{one.songs:,}", one.table_bytes / 1e6, one.peak_bytes / 1e6, one.seconds) for one in self.held]
        heads = ("songs", "table on disk, MB", "peak memory, MB", "seconds")
        made = self.provenance
        return (
            f"{tabulate(rows, heads, tablefmt='github', floatfmt=',.0f', disable_numparse=[0])}\n\n"
            f"`segue train-teacher {self.training}`.\n"
            f"{made.time[:10]}, commit {made.commit}, {made.machine}."
        )


def training_memory(
    songs: tuple[int, ...] = (5_000, 50_000),
    results: Path = Path("docs/results/training_memory.json"),
    page: Path = Path("docs/training-speed.md"),
) -> MemoryBenchmark:
    """Measure how much memory training holds.

    Args:
        songs: Sizes of the synthetic song sets.
        results: The file for the figures.
        page: The page whose table is written anew.
    """
    if not songs:
        raise ConfigError("songs: expected at least one size, found none")
    found = MemoryBenchmark(TRAINING, tuple(map(_held, songs)), provenance())
    with atomic_file(results) as draft:
        draft.write_text(to_json(found) + "\n")
    write_block(page, COMMAND, str(found))
    return found


def _held(songs: int) -> Held:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "songs.arrow"
        synth(table, songs)
        started = time.perf_counter()
        words = ["-m", "segue.training.train_teacher", str(table), "--out", f"{folder}/run", *TRAINING.split()]
        return Held(songs, table.stat().st_size, peak_bytes(words), time.perf_counter() - started)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(training_memory, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
