"""Measure the training loop beside the plainest one, with one thread and with one for each core.

What is measured is `segue.bench.training_speed`, in a process of its own. The figures go to docs/results/ and the page
about them.

Example:
    python -m segue.bench.training
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.errors import ConfigError
from segue.machine import usable_cores
from segue.provenance import Provenance, provenance
from segue.publish import write_block

COMMAND = "python -m segue.bench.training"


@dataclass(frozen=True)
class TrainingBenchmark:
    """What was measured."""

    measured: tuple[dict[str, Any], ...]  # Each a `segue.bench.training_speed.TrainingSpeed`.
    provenance: Provenance

    def __str__(self) -> str:
        """Return the table as Markdown."""
        rows = [
            (one["threads"], one["songs_per_s"], one["plain_songs_per_s"], one["ratio"], one["largest_difference"])
            for one in self.measured
        ]
        heads = ("threads", "songs/s", "plain loop, songs/s", "ratio", "largest difference of losses")
        first, made = self.measured[0], self.provenance
        return (
            f"{tabulate(rows, heads, tablefmt='github', floatfmt=('', ',.0f', ',.0f', '.2f', '.0e'))}\n\n"
            f"BN-RNN of {first['state']} neurons, batches of {first['batch_songs']} songs, parts of "
            f"{first['bptt_steps']} steps; medians of {first['rounds']} rounds, the two loops in turn; losses of the "
            f"first {first['compared_steps']} training steps.\n"
            f"{made.time[:10]}, commit {made.commit}, {made.machine}."
        )


def training(
    threads: tuple[int, ...] = (1, usable_cores()),
    rounds: int = 15,
    results: Path = Path("docs/results/training_speed.json"),
    page: Path = Path("docs/training-speed.md"),
) -> TrainingBenchmark:
    """Measure the training loop beside the plainest one.

    Args:
        threads: Threads that torch computes with; each number is measured.
        rounds: Epochs of each loop, in turn.
        results: The file for the figures.
        page: The page whose table is written anew.
    """
    if not threads:
        raise ConfigError("threads: expected at least one number, found none")
    found = TrainingBenchmark(tuple(_measured(number, rounds) for number in threads), provenance())
    with atomic_file(results) as draft:
        draft.write_text(to_json(found) + "\n")
    write_block(page, COMMAND, str(found))
    return found


def _measured(threads: int, rounds: int) -> dict[str, Any]:
    words = ["-m", "segue.bench.training_speed", "--threads", threads, "--rounds", rounds, "--json"]
    done = subprocess.run([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ConfigError(f"segue.bench.training_speed failed with {threads} threads and {rounds} rounds")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(training, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
