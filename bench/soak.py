"""Soak: honest load, all attacks of `segue.bench.hostile`, reloads of exchanged bundles and kills, at a time, for long.

Two workers serve. The younger one is killed now and then, so that the other one lives through it all: its memory and
its descriptors are the ones to watch. Every honest answer is compared with what its version's models say. The exit code
is 1 if one was wrong, or if an honest request was lost that no killed worker can have had.

Example:
    python -m segue.bench.soak artifacts/bundle --minutes 30
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.checked import Oracle, Tally, ask, copy_bundle, exchange_names, make_opposite
from segue.bench.hostile import attacking
from segue.bench.servers import ADMIN, Server, serving
from segue.command import run
from segue.errors import ServiceError
from segue.serving.bundle.load import load_bundle

RELOAD_TIMEOUT_S = 300.0
LOST_WITH_A_WORKER_S = 5.0  # A broken connection is counted to a kill that was at most so long before.
ROWS = 15  # Of the table.


@dataclass(frozen=True)
class Sample:
    """How the server stood at some moment."""

    minute: float
    total_mb: float  # Memory in pages of their own, of all its processes.
    oldest_mb: float  # Of the worker that is not killed.
    oldest_descriptors: int
    songs: int  # Answered so far, and right.
    told_to_come_back: int  # Honest requests, with 503.
    late: int  # With 408 or 504: the machine was too busy.
    lost: int  # Without an answer, or with another one.
    kills: int
    reloads: int


@dataclass
class Course:
    """What happened so far."""

    started: float = field(default_factory=time.perf_counter)
    killed_at: list[float] = field(default_factory=list)
    reloads: int = 0
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Soaked:
    """What a soak found."""

    samples: tuple[Sample, ...]
    attacks: int
    degraded: int
    lost_with_a_worker: int  # Honest requests that broke as a worker was killed ...
    lost_otherwise: int  # ... and others.
    wrong: int

    @property
    def growth(self) -> float:
        """Memory of the oldest worker: mean of the last quarter over that of the second."""
        quarter = max(len(self.samples) // 4, 1)
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return sum(one.oldest_mb for one in late) / max(sum(one.oldest_mb for one in early), 1e-9)

    def __str__(self) -> str:
        shown = self.samples[:: max(len(self.samples) // ROWS, 1)]
        table = tabulate([vars(one) for one in shown], headers="keys", floatfmt=",.1f", intfmt=",", tablefmt="github")
        return (
            f"{table}\n\n{self.attacks:,} attacks; {self.degraded} degraded answers. "
            f"Honest requests lost with a killed worker: {self.lost_with_a_worker}, otherwise: {self.lost_otherwise}; "
            f"wrong answers: {self.wrong}. Memory of the oldest worker, last quarter over second: {self.growth:.2f}."
        )


def soak(
    bundle: Positional[Path],
    minutes: float = 30.0,
    callers: int = 8,
    attackers: int = 4,
    slow: int = 100,
    kill_every_s: float = 60.0,
    reload_every_s: float = 15.0,
    sample_every_s: float = 10.0,
    seed: int = 0,
) -> Soaked:
    """Soak a server of a bundle.

    Args:
        bundle: The bundle's folder. It is copied, and exchanged with one whose models say the opposite.
        minutes: How long.
        callers: Honest callers at a time.
        attackers: Callers who make the attacks of `segue.bench.hostile`.
        slow: Connections that send a byte a second.
        kill_every_s: Seconds between two kills of a worker, on average.
        reload_every_s: Seconds between two reloads, on average.
        sample_every_s: Seconds between two looks at memory and descriptors.
        seed: Of the questions, and of the moments of kills and exchanges.
    """
    with TemporaryDirectory() as temporary:
        here, there = Path(temporary) / "bundle", Path(temporary) / "other"
        copy_bundle(bundle, here)
        oracle, tally, course = Oracle([load_bundle(here), make_opposite(load_bundle(here), there)]), Tally(), Course()
        with serving(here, {"SEGUE_WORKERS": "2"}) as server:
            rng, seconds = random.Random(seed), minutes * 60
            with attacking(server.port, seconds, callers=attackers, slow=slow) as statuses:
                asyncio.run(
                    _soak(server, oracle, tally, course, (here, there), rng, seconds, callers, kill_every_s,
                          reload_every_s, sample_every_s, seed)
                )  # fmt: skip
    kills = course.killed_at
    with_a_worker = sum(any(0 <= at - kill < LOST_WITH_A_WORKER_S for kill in kills) for at in tally.broken_at)
    lost = _lost(tally) - with_a_worker
    if tally.n_wrong or lost:
        details = [f"statuses {dict(tally.refused)}", *tally.wrong]
        raise ServiceError(f"{tally.n_wrong} wrong answers, {lost} honest requests lost: " + "\n".join(details))
    return Soaked(tuple(course.samples), statuses.total(), tally.degraded, with_a_worker, lost, tally.n_wrong)


async def _soak(
    server: Server,
    oracle: Oracle,
    tally: Tally,
    course: Course,
    bundles: tuple[Path, Path],
    rng: random.Random,
    seconds: float,
    callers: int,
    kill_every_s: float,
    reload_every_s: float,
    sample_every_s: float,
    seed: int,
) -> None:
    """Ask honestly, kill and reload, all at a time."""
    oldest = min(await _two_workers(server))
    course.started = time.perf_counter()
    end = course.started + seconds
    others = [
        asyncio.create_task(_sample(server, oldest, tally, course, sample_every_s, seconds)),
        asyncio.create_task(_kill(server, oldest, course, rng, kill_every_s)),
        asyncio.create_task(_reload(server, bundles, course, rng, reload_every_s)),
    ]
    await ask(server.port, oracle, tally, callers=callers, goes_on=lambda: time.perf_counter() < end, seed=seed)
    for one in others:
        one.cancel()
    for result in await asyncio.gather(*others, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _two_workers(server: Server) -> list[int]:
    while len(found := server.workers()) < 2:
        await asyncio.sleep(0.5)
    return found


async def _sample(server: Server, oldest: int, tally: Tally, course: Course, every_s: float, seconds: float) -> None:
    with tqdm(total=round(seconds), unit=" s", disable=None, file=sys.stderr) as progress:
        while True:
            minute = (time.perf_counter() - course.started) / 60
            course.samples.append(
                Sample(
                    minute, server.resident_bytes() / 1e6, server.resident_bytes(oldest) / 1e6,
                    server.descriptors(oldest), tally.songs, tally.refused[503],
                    tally.refused[408] + tally.refused[504], _lost(tally), len(course.killed_at),
                    course.reloads,
                )
            )  # fmt: skip
            progress.update(round(minute * 60) - progress.n)
            await asyncio.sleep(every_s)


async def _kill(server: Server, oldest: int, course: Course, rng: random.Random, every_s: float) -> None:
    """Kill the younger worker, once there is one again."""
    while True:
        await asyncio.sleep(rng.uniform(0.5, 1.5) * every_s)
        for pid in await _two_workers(server):
            if pid != oldest:
                course.killed_at.append(time.perf_counter())
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


async def _reload(
    server: Server, bundles: tuple[Path, Path], course: Course, rng: random.Random, every_s: float
) -> None:
    """Let the service reload, by HTTP and by SIGHUP, and exchange the bundles somewhere in the middle."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=RELOAD_TIMEOUT_S) as client:
        while True:
            await asyncio.sleep(rng.uniform(0.5, 1.5) * every_s)
            course.reloads += 1
            if rng.random() < 0.5:
                os.kill(server.process.pid, signal.SIGHUP)
            else:
                reload = asyncio.create_task(client.post("/v1/admin/reload", headers=ADMIN))
                reload.add_done_callback(lambda one: one.cancelled() or one.exception())  # Its worker may be killed.
            await asyncio.sleep(rng.random() * 3)
            exchange_names(*bundles)


def _lost(tally: Tally) -> int:
    """Return how many honest requests had no answer, or one that blames them."""
    return len(tally.broken_at) + sum(n for status, n in tally.refused.items() if status not in (408, 503, 504))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak."""
    return run(soak, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
