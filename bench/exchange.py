"""Exchange two bundles at random moments of reloads, under load, and compare every answer with its version's models.

64 callers ask with bodies of every type, as they are and in gzip, with every dial, for answers of both types. Meanwhile
the service reloads again and again, told by HTTP and by SIGHUP in turn, and at a random moment of each reload another
bundle takes the folder's place. Once with one worker, once with two. Any wrong answer ends in exit code 1.

Example:
    python -m segue.bench.exchange artifacts/bundle --songs 50000
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.checked import Oracle, Tally, ask, copy_bundle, exchange_names, make_opposite
from segue.bench.servers import ADMIN, Server, serving
from segue.command import run
from segue.errors import ServiceError
from segue.serving.bundle.load import load_bundle

ROUNDS = (("HTTP", 1), ("SIGHUP", 1), ("HTTP", 2), ("SIGHUP", 2))  # Who tells the service, and its workers.
RELOAD_TIMEOUT_S = 300.0
BETWEEN_SIGNALS_S = 2.0  # A reload takes about that.


@dataclass(frozen=True)
class Round:
    """What one round found."""

    told_by: str
    workers: int
    songs: int
    versions: int  # That answers came from.
    exchanges: int
    swapped: int  # Reloads that took a bundle, of all workers; over HTTP also those of the others, which follow.
    refused: int  # Reloads that found the folder half gone.
    degraded: int
    unanswered: int
    wrong: int


@dataclass(frozen=True)
class Exchanged:
    """What all rounds found; none has a wrong answer."""

    rounds: tuple[Round, ...]

    def __str__(self) -> str:
        return tabulate([vars(one) for one in self.rounds], headers="keys", intfmt=",", tablefmt="github")


def exchange(bundle: Positional[Path], songs: int = 50_000, callers: int = 64, seed: int = 0) -> Exchanged:
    """Exchange bundles under load.

    Args:
        bundle: The bundle's folder. It is copied; the other one is made of it, and its models say the opposite.
        songs: Songs that are asked about, in all rounds together.
        callers: Callers at a time.
        seed: Of the questions, and of the moments of the exchanges.
    """
    found: list[Round] = []
    with TemporaryDirectory() as temporary, tqdm(total=songs, unit=" songs", disable=None, file=sys.stderr) as progress:
        here, there = Path(temporary) / "bundle", Path(temporary) / "other"
        copy_bundle(bundle, here)
        oracle = Oracle([load_bundle(here), make_opposite(load_bundle(here), there)])
        for number, (told_by, workers) in enumerate(ROUNDS):
            with serving(here, {"SEGUE_WORKERS": str(workers)}) as server:
                rng, tally, state = random.Random(seed + number), Tally(), Counter[str]()
                most = songs // len(ROUNDS)
                asyncio.run(_round(server, here, there, oracle, tally, state, told_by, most, callers, rng, number))
                swapped, refused = _reloads(server)
            if tally.n_wrong:
                raise ServiceError(f"{tally.n_wrong} wrong answers, among them:\n" + "\n".join(tally.wrong))
            progress.update(tally.songs)
            unanswered = len(tally.broken_at) + tally.refused.total()
            found.append(
                Round(
                    told_by, workers, tally.songs, len(tally.by_version), state["exchanges"], swapped, refused,
                    tally.degraded, unanswered, tally.n_wrong,
                )
            )  # fmt: skip
    return Exchanged(tuple(found))


async def _round(
    server: Server,
    here: Path,
    there: Path,
    oracle: Oracle,
    tally: Tally,
    state: "Counter[str]",
    told_by: str,
    most: int,
    callers: int,
    rng: random.Random,
    seed: int,
) -> None:
    reloading = asyncio.create_task(_reload_and_exchange(server, here, there, told_by, state, rng))
    await ask(server.port, oracle, tally, callers=callers, goes_on=lambda: tally.songs < most, seed=seed)
    reloading.cancel()


async def _reload_and_exchange(
    server: Server, here: Path, there: Path, told_by: str, state: "Counter[str]", rng: random.Random
) -> None:
    """Reload without end, and exchange the bundles at a random moment of each reload."""
    took_s = BETWEEN_SIGNALS_S
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=RELOAD_TIMEOUT_S) as client:
        while True:
            started = time.perf_counter()
            if told_by == "HTTP":
                reload = asyncio.ensure_future(client.post("/v1/admin/reload", headers=ADMIN))
            else:
                os.kill(server.process.pid, signal.SIGHUP)
                reload = asyncio.ensure_future(asyncio.sleep(BETWEEN_SIGNALS_S))  # type: ignore[arg-type]
            await asyncio.sleep(rng.random() * took_s)
            exchange_names(here, there)
            state["exchanges"] += 1
            await reload
            if told_by == "HTTP":
                took_s = time.perf_counter() - started


def _reloads(server: Server) -> tuple[int, int]:
    """Return how many reloads took a bundle and how many were refused, of all workers."""
    lines = httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=RELOAD_TIMEOUT_S).text.splitlines()
    counts = [
        sum(int(float(line.split()[1])) for line in lines if line.startswith(f'segue_reloads_total{{result="{result}"'))
        for result in ("swapped", "refused")
    ]
    return counts[0], counts[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exchange."""
    return run(exchange, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
