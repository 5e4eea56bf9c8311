"""Write the figures of README.md from the results in docs/results/, so that no number there is typed by hand.

Example:
    python -m segue.bench.figures
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from segue.bench.results import read_results
from segue.command import run
from segue.errors import ConfigError
from segue.publish import write_block

README = Path("README.md")
RESULTS = Path("docs/results")
COMMAND = "make figures"


@dataclass(frozen=True)
class Figures:
    """What was written."""

    page: Path

    def __str__(self) -> str:
        return f"{self.page}: figures written from {RESULTS}"


def figures() -> Figures:
    """Write the figures of README.md."""
    write_block(README, COMMAND, figures_text(RESULTS))
    return Figures(README)


def figures_text(results: Path) -> str:
    """Return the figures of README.md as Markdown, from `demo.json` and `speed.json` in the folder `results`."""
    demo, speed = _read(results / "demo.json"), read_results(results / "speed.json")
    found = demo["evaluation"]
    measured = speed.select("models", "throughput")
    threads = max((int(one.conditions["threads"]) for one in measured), default=0)
    songs_per_s = {
        (one.conditions["model"], int(one.conditions["batch_songs"])): one.value
        for one in measured
        if one.conditions["threads"] == threads
    }
    batches = sorted({batch for _, batch in songs_per_s})
    rows = [
        [name, f"{found[name]['accuracy']:.3f}", *(f"{songs_per_s[name, batch]:,.0f}" for batch in batches)]
        for name in ("student", "teacher", "cascade")
    ]
    headers = ["", "accuracy", *(f"songs/s, {batch} at a time" for batch in batches)]
    made = speed.provenance
    return (
        f"{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n\n"
        f"Measured on {found['songs']:,} unseen synthetic songs; "
        f"{found['fallback_rate']:.0%} of them went on to the teacher.\n"
        f"{made.time[:10]}, commit {made.commit}, {made.machine}."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected results as JSON: {error}") from None
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Write the figures."""
    return run(figures, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
