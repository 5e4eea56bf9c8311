"""Show that the load generator is right, and why it is not one of the libraries that could stand in for it.

wrk, the generator of `segue load`, aiohttp and httpx each ask the same service in a closed loop over the same number of
connections, by turns. The service leaves them a core, so that it is the limit and not who asks. Where their requests a
second agree with wrk's, what they say of the service is the service's; a library that gets fewer measures itself.

Example:
    python -m segue.bench.generator_check artifacts/bundle
"""

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import httpx
from tabulate import tabulate
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.bundle_speed import synthetic
from segue.bench.generator import Address, closed_loop
from segue.bench.peers.wrk import write_requests, wrk
from segue.bench.request_bodies import BODIES, requests
from segue.bench.results import Figure, Results, Watch, command_of, results
from segue.bench.servers import serving
from segue.command import run
from segue.data.song import Floats
from segue.machine import usable_cores
from segue.publish import write_block

COMMAND = "python -m segue.bench.generator_check"
GROUP = "generators"
WITHIN = 0.1  # Of wrk's requests a second.
CLASSES = 10


@dataclass(frozen=True)
class GeneratorCheck:
    """What each generator got out of the same service."""

    results: Results

    @property
    def ratio(self) -> float:
        """Ours over wrk's requests a second, the median of the rounds' ratios, at the worst number of songs."""
        figures = {(one.conditions["generator"], one.conditions["songs"]): one for one in self.results.select(GROUP)}
        sizes = {songs for _, songs in figures}
        ratios = [
            statistics.median(a / b for a, b in zip(figures["segue", n].rounds, figures["wrk", n].rounds, strict=True))
            for n in sizes
        ]
        return max(ratios, key=lambda ratio: abs(ratio - 1))

    @property
    def exit_code(self) -> int:
        """0 if ours and wrk agree."""
        return int(abs(self.ratio - 1) > WITHIN)

    def __str__(self) -> str:
        rows = [
            (one.conditions["songs"], one.conditions["generator"], one.value, f"{one.low:,.0f} to {one.high:,.0f}")
            for one in self.results.select(GROUP)
        ]
        table = tabulate(
            rows, ("songs", "generator", "requests/s", "rounds"), floatfmt=("", "", ",.0f"), tablefmt="github"
        )
        verdict = f"Ours over wrk's: {self.ratio:.3f}; {1 - WITHIN:g} to {1 + WITHIN:g} is agreement."
        return "\n\n".join([table, verdict, *filter(None, [self.results.warning]), self.results.origin])


def generator_check(
    bundle: Positional[Path],
    sizes: tuple[int, ...] = (1, 64),
    connections: int = 16,
    seconds: float = 4.0,
    rounds: int = 5,
    out: Path | None = None,
    page: Path | None = None,
) -> GeneratorCheck:
    """Compare load generators on the service of a bundle, raw bodies.

    Args:
        bundle: The bundle's folder.
        sizes: Songs in a request.
        connections: Connections.
        seconds: How long each generator asks, in each round.
        rounds: Rounds; in each, every generator has its turn.
        out: A file to write the results to, as JSON.
        page: A page whose block the result is written into.
    """
    sample = synthetic(256, CLASSES).windows()[0]
    found: dict[tuple[str, int], list[float]] = {}
    with (
        Watch() as watch,
        serving(bundle, {"SEGUE_WORKERS": str(max(usable_cores() - 1, 1))}) as server,
        TemporaryDirectory() as folder,
    ):
        address = Address("127.0.0.1", server.port)
        asked = [
            (name, size, ask)
            for size in sizes
            for name, ask in _generators(sample, size, address, connections, seconds, Path(folder)).items()
        ]
        closed_loop(address, requests(sample, "raw", 1), connections=connections, seconds=seconds)
        for name, size, ask in tqdm(asked * rounds, unit=" turns", disable=None, file=sys.stderr):
            found.setdefault((name, size), []).append(ask())
    figures = [
        Figure.of(GROUP, "throughput", "requests/s", per_s, better="higher", generator=name, songs=size)
        for (name, size), per_s in found.items()
    ]
    measured = results("load", command_of(COMMAND, *sys.argv[1:]), figures, watch)
    if out is not None:
        measured.write(out)
    check = GeneratorCheck(measured)
    if page is not None:
        write_block(page, COMMAND, str(check))
    return check


def _generators(
    sample: Floats, size: int, address: Address, connections: int, seconds: float, folder: Path
) -> dict[str, Callable[[], float]]:
    """Return what asks with each generator, and returns requests a second."""
    whole = requests(sample, "raw", size)
    file = write_requests(folder / f"{size}", whole)
    content_type, write = BODIES["raw"]
    bodies = [write(sample[at : at + size]) for at in range(0, len(sample), size)]
    url, headers = f"http://{address}/v1/classify", {"content-type": content_type}
    return {
        "wrk": lambda: wrk(address.port, file, connections=connections, seconds=seconds).requests_per_s,
        "segue": lambda: closed_loop(address, whole, connections=connections, seconds=seconds).good_per_s,
        "aiohttp": lambda: asyncio.run(_with_aiohttp(url, headers, bodies, connections, seconds)),
        "httpx": lambda: asyncio.run(_with_httpx(url, headers, bodies, connections, seconds)),
    }


async def _with_aiohttp(
    url: str, headers: dict[str, str], bodies: Sequence[bytes], connections: int, seconds: float
) -> float:
    cycle, end, answered = itertools.cycle(bodies), time.perf_counter() + seconds, 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), headers=headers) as session:

        async def caller() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                async with session.post(url, data=next(cycle)) as answer:
                    await answer.read()
                    answered += answer.status == 200

        await asyncio.gather(*(caller() for _ in range(connections)))
    return answered / seconds


async def _with_httpx(
    url: str, headers: dict[str, str], bodies: Sequence[bytes], connections: int, seconds: float
) -> float:
    cycle, end, answered = itertools.cycle(bodies), time.perf_counter() + seconds, 0
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(headers=headers, limits=limits) as client:

        async def caller() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                answer = await client.post(url, content=next(cycle))
                answered += answer.status_code == 200

        await asyncio.gather(*(caller() for _ in range(connections)))
    return answered / seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; the exit code is 1 where the generator and wrk disagree."""
    return run(generator_check, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
