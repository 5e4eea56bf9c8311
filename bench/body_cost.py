"""Measure what each hostile body costs to read: memory for each byte received, and how long other threads must wait.

Each body is read alone, in a process of its own, as the service's thread for large bodies reads it, while another
thread looks at the clock. The stall is the processor time that passed between two looks, so that it is that of reading
and not of a busy machine; the smallest of several readings counts.

Example:
    python -m segue.bench.body_cost
    python -m segue.bench.body_cost --page docs/serving/limits.md
"""

import gzip
import multiprocessing
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from segue.bench.hostile import IN_GZIP, bodies
from segue.command import DONE, FAILED, run
from segue.publish import write_block
from segue.serving.http.bodies import read
from segue.serving.http.receiving import inflate
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings

COMMAND = "python -m segue.bench.body_cost"
LOOK_EVERY_S, READINGS = 0.0005, 3
MOST_STALL_S, MOST_BYTES = 0.1, 4.2e8  # Of one body, of 32 MB at most.
SHOWN = 12
SPARE_BYTES = 16e6  # What a small body may take, however small.


@dataclass(frozen=True)
class Cost:
    """What one body costs."""

    body: str
    n_bytes: int  # As received.
    seconds: float  # Processor time of reading it.
    stall_s: float  # Processor time for which no other thread could go on, at most.
    peak_bytes: int  # Memory, beside the body as received.
    refused: bool


@dataclass(frozen=True)
class BodyCosts:
    """What all of them cost."""

    costs: tuple[Cost, ...]

    @property
    def exit_code(self) -> int:
        """Whether all are within bounds."""
        bounded = all(one.stall_s <= MOST_STALL_S and one.peak_bytes <= MOST_BYTES for one in self.costs)
        return DONE if bounded else FAILED

    def __str__(self) -> str:
        shown = dict.fromkeys(
            one
            for key in ("stall_s", "peak_bytes")
            for one in sorted(self.costs, key=lambda one: -getattr(one, key))[: SHOWN // 2]
        )
        rows = [
            (one.body, one.n_bytes / 1e6, one.stall_s * 1e3, one.peak_bytes / 1e6, one.seconds,
             "refused" if one.refused else "answered")
            for one in shown
        ]  # fmt: skip
        table = tabulate(
            rows, ("body", "MB received", "stall ms", "peak MB", "seconds", ""),
            floatfmt=("", ".2f", ".0f", ".0f", ".2f", ""), tablefmt="github",
        )  # fmt: skip
        stall = max(self.costs, key=lambda one: one.stall_s)
        plain = [one for one in self.costs if not one.body.endswith("in gzip")]
        memory = max(plain, key=lambda one: (one.peak_bytes - SPARE_BYTES) / one.n_bytes)
        per_byte = (memory.peak_bytes - SPARE_BYTES) / memory.n_bytes
        return (
            f"{table}\n\nOf {len(self.costs)} bodies, the longest stall: {stall.stall_s * 1e3:.0f} ms ({stall.body}); "
            f"the most memory for a byte, beyond {SPARE_BYTES / 1e6:.0f} MB: {per_byte:.1f} bytes ({memory.body})."
        )


def body_cost(only: str | None = None, page: Path | None = None) -> BodyCosts:
    """Measure what hostile bodies cost to read.

    Args:
        only: The body of this name alone.
        page: A page whose block of figures is written anew.
    """
    found = []
    for name, (kind, body) in tqdm(bodies().items(), disable=None, file=sys.stderr):
        forms = {name: (body, False)} | (
            {f"{name}, in gzip": (gzip.compress(body, 1), True)} if name in IN_GZIP else {}
        )
        for form, (content, packed) in forms.items():
            if only in (None, form):
                found.append(cost_of(form, kind, content, packed=packed))
    costs = BodyCosts(tuple(found))
    if page:
        write_block(page, COMMAND, str(costs))
    return costs


def cost_of(name: str, kind: str, content: bytes, *, packed: bool) -> Cost:
    """Return the cost of a body that is read in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(theirs, kind, content, packed))
    process.start()
    theirs.close()
    seconds, stall_s, peak, refused = ours.recv()
    process.join()
    return Cost(name, len(content), seconds, stall_s, peak, refused)


def _measure(pipe: Any, kind: str, content: bytes, packed: bool) -> None:
    settings = Settings()
    refused = False

    def reads() -> None:
        nonlocal refused
        body = inflate(content, settings.max_body_bytes) if packed else content
        try:
            read(body, kind, "raw", settings.max_songs)
        except Refusal:
            refused = True

    before = _held_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # The highest resident size begins anew.
    looked = [_look(reads) for _ in range(READINGS)]
    peak = _held_bytes("VmHWM") - before
    pipe.send((min(one[0] for one in looked), min(one[1] for one in looked), max(peak, 0), refused))


def _look(reads: Any) -> tuple[float, float]:
    """Return the processor time of a function in a thread, and the most of it between two looks of this thread."""
    thread = threading.Thread(target=reads)
    started = last = time.process_time()
    stall = 0.0
    thread.start()
    while thread.is_alive():
        time.sleep(LOOK_EVERY_S)
        now = time.process_time()
        stall, last = max(stall, now - last), now
    thread.join()
    return last - started, stall


def _held_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the bodies; the exit code is 1 if one costs too much."""
    return run(body_cost, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
