"""Measure many calls in turn, round after round, so that a machine that slows down slows all of them."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from segue.bench.results import Condition, Figure

SETTLE_S = 0.02  # Calls that do not count, until the threads of whatever ran before no longer wait for work in a loop.
LATENCIES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Cell:
    """Something to be measured."""

    group: str
    name: str
    amount: float  # Of work in a call: songs, GFLOP, GB.
    unit: str  # Of amount a second.
    call: Callable[[], object]
    conditions: dict[str, Condition]


def in_turn(cells: Sequence[Cell], *, rounds: int, seconds: float) -> list[list[list[float]]]:
    """Return the seconds of every call, by cell and round.

    Args:
        cells: what is called.
        rounds: in each, every cell has its turn, after calls that do not count.
        seconds: how long a turn lasts; one call at least.
    """
    taken: list[list[list[float]]] = [[] for _ in cells]
    for cell in cells:
        cell.call()
    turns = tqdm(range(rounds * len(cells)), unit=" turns", disable=None, file=sys.stderr)
    for turn in turns:
        at = turn % len(cells)
        _calls(cells[at].call, SETTLE_S)
        taken[at].append(_calls(cells[at].call, seconds))
    return taken


def figures_of(cell: Cell, taken: Sequence[Sequence[float]], *, latencies: bool = True) -> list[Figure]:
    """Return the throughput, by the median call of each round, and the latencies of all calls."""
    rates = [cell.amount / statistics.median(calls) for calls in taken]
    found = [Figure.of(cell.group, cell.name, cell.unit, rates, better="higher", **cell.conditions)]
    if latencies:
        all_ms = [call_s * 1e3 for calls in taken for call_s in calls]
        for name, q in LATENCIES.items():
            found.append(Figure.quantile(cell.group, name, "ms", all_ms, q, better="lower", **cell.conditions))
    return found


def _calls(call: Callable[[], object], seconds: float) -> list[float]:
    taken: list[float] = []
    started = now = time.perf_counter()
    while not taken or now - started < seconds:
        before = now
        call()
        now = time.perf_counter()
        taken.append(now - before)
    return taken
