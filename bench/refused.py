"""Refuse many large requests, and see that they leave nothing behind: memory after 10,000 is that after 100.

Requests of several kinds are sent that are refused once they have been read whole: songs with values that are no
numbers, and too many songs. The exit code is 1 where the memory has grown by more than 10 %.

Example:
    python -m segue.bench.refused artifacts/bundle
    python -m segue.bench.refused artifacts/bundle --requests 300 --first 100
"""

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tyro.conf import Positional

from segue.bench.hostile import post_head, request
from segue.bench.servers import Server, serving
from segue.command import DONE, FAILED, run
from segue.errors import ServiceError
from segue.serving.http.bodies import JSON, RAW, SONG_BYTES

CALLERS, SETTLE_S = 4, 3.0
MOST_GROWTH = 1.10


@dataclass(frozen=True)
class Refused:
    """What many refused requests left behind."""

    requests: int
    body_bytes: int  # Of each, about.
    statuses: dict[int, int]
    first: int
    first_mb: float  # Of all the server's processes, after the first requests ...
    last_mb: float  # ... and after all.

    @property
    def exit_code(self) -> int:
        """Whether they left nothing."""
        return DONE if self.last_mb <= MOST_GROWTH * self.first_mb else FAILED

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.requests:,} requests of about {self.body_bytes / 1e6:.1f} MB: {statuses}\n"
            f"memory after {self.first:,}: {self.first_mb:.0f} MB; after all: {self.last_mb:.0f} MB "
            f"({self.last_mb / self.first_mb:.2f} times, at most {MOST_GROWTH:g} wanted)"
        )


def refused(bundle: Positional[Path], requests: int = 10_000, first: int = 100, body_bytes: int = 3_000_000) -> Refused:
    """Send large requests that are refused.

    Args:
        bundle: The bundle's folder.
        requests: How many.
        first: After so many of them the memory is looked at first.
        body_bytes: Of each, about.
    """
    statuses: Counter[int] = Counter()
    with serving(bundle) as server, tqdm(total=requests, disable=None, file=sys.stderr) as progress:
        bodies = itertools.cycle(_bodies(body_bytes))
        asyncio.run(_send(server, bodies, first, statuses, progress))
        first_bytes = server.resident_bytes()
        asyncio.run(_send(server, bodies, requests - first, statuses, progress))
        last_bytes = server.resident_bytes()
    if not set(statuses) <= {400, 413, 422, 503}:
        raise ServiceError(f"expected every request to be refused, found {dict(statuses)}")
    return Refused(requests, body_bytes, dict(statuses), first, first_bytes / 1e6, last_bytes / 1e6)


async def _send(
    server: Server, bodies: Iterator[tuple[str, bytes]], count: int, statuses: Counter[int], progress: "tqdm[None]"
) -> None:
    turns = iter(range(count))

    async def call() -> None:
        for _ in turns:
            kind, body = next(bodies)
            statuses[await request(server.port, post_head(kind, len(body)) + b"\r\n", body)] += 1
            progress.update()

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    await asyncio.sleep(SETTLE_S)  # What is still on its way out.


def _bodies(n_bytes: int) -> list[tuple[str, bytes]]:
    """Return bodies that are refused as a whole, of about so many bytes."""
    songs = min(n_bytes // SONG_BYTES, 1024)
    rows = [[2.0] * 25] * 120  # Beyond the range of a pitch.
    song = json.dumps({"id": "a", "segments": rows}).encode()
    many = b",".join([song] * max(n_bytes // len(song), 1))
    return [
        (RAW, np.full(songs * SONG_BYTES // 4, np.nan, "<f4").tobytes()),
        (RAW, bytes(1025 * SONG_BYTES)),
        (JSON, b'{"songs": [' + many + b"]}"),
        (JSON, b'{"songs": [' + many + b"]"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Send the requests; the exit code is 1 if they left something."""
    return run(refused, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
