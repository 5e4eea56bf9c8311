"""Attack the service: hostile bodies, slow senders and callers who hang up, beside honest callers; see whom it hurts.

Every kind of hostile request is sent over and over by several callers, and hundreds of connections send one byte now
and then. Meanwhile honest callers ask, in another process, somebody asks `/livez` ten times a second, and the memory of
the server's processes is read.

Example:
    python -m segue.bench.hostile artifacts/bundle
    python -m segue.bench.hostile artifacts/bundle --each --seconds 5
"""

import asyncio
import contextlib
import gzip
import io
import itertools
import json
import multiprocessing
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tabulate import tabulate
from tyro.conf import Positional

from segue.bench.servers import Server, serving
from segue.command import run
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW

ANSWER_TIMEOUT_S = 30.0
LIVEZ_EVERY_S, MEMORY_EVERY_S, SLOW_EVERY_S = 0.1, 0.05, 1.0
LARGEST = 32 * 2**20 - 1000  # Bytes, just below what the service takes.
HONEST_SONGS = (1, 1, 1, 8)
IN_GZIP = ("empty lists", "nested lists", "as many integers as may be", "1024 songs", "raw, as long as may be")
TARGETS = {"worst /livez": 0.5, "worst memory": 1e9}  # Seconds, bytes.


@dataclass(frozen=True)
class Attack:
    """A request that means no good, as the bytes that are sent."""

    name: str
    head: bytes
    body: bytes
    hang_up: bool = False  # Close the connection once it is sent.


@dataclass
class Harm:
    """What an attack did."""

    attack: str
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)  # Of the attackers' answers; 0: none came.
    livez_s: float = 0.0  # The longest that /livez took.
    peak_bytes: int = 0
    honest: int = 0
    honest_unanswered: int = 0  # No answer of status 200, after what a 503 asks for.
    honest_told_to_come_back: int = 0

    @property
    def is_bounded(self) -> bool:
        """Whether it hurt nobody more than it may."""
        return (
            self.livez_s < TARGETS["worst /livez"]
            and self.peak_bytes < TARGETS["worst memory"]
            and not self.honest_unanswered
        )


@dataclass(frozen=True)
class Harms:
    """What all attacks did."""

    harms: tuple[Harm, ...]

    def __str__(self) -> str:
        rows = [
            (
                one.attack, one.sent, " ".join(f"{status or '-'}:{n}" for status, n in sorted(one.statuses.items())),
                one.livez_s, one.peak_bytes / 1e6, one.honest, one.honest_told_to_come_back, one.honest_unanswered,
            )
            for one in self.harms
        ]  # fmt: skip
        names = ("attack", "sent", "answers", "worst /livez s", "peak MB", "honest", "came back", "unanswered")
        return tabulate(rows, names, floatfmt=("", "", "", ".3f", ",.0f", "", "", ""), tablefmt="github")


def hostile(
    bundle: Positional[Path],
    seconds: float = 60.0,
    callers: int = 16,
    slow: int = 500,
    each: bool = False,
) -> Harms:
    """Attack a server of a bundle, in a process of its own, with its default settings.

    Args:
        bundle: The bundle's folder.
        seconds: How long to attack.
        callers: How many attack at a time, and how many honest callers there are.
        slow: Connections that send a byte a second.
        each: Make each attack on its own, so long each, and not only all at a time.
    """
    names = [one.name for one in make_attacks()] if each else []
    with serving(bundle) as server:
        harms = [attacked(server, [name], seconds, callers, 0, name) for name in names]
        harms.append(attacked(server, None, seconds, callers, slow, f"all, and {slow} slow senders"))
    return Harms(tuple(harms))


def attacked(server: Server, names: Sequence[str] | None, seconds: float, callers: int, slow: int, name: str) -> Harm:
    """Make some attacks, by turns, from a process of their own, beside honest callers."""
    with attacking(server.port, seconds, names=names, callers=callers, slow=slow) as statuses:
        harm = asyncio.run(_beside(server, Harm(name), seconds, callers))
    harm.statuses = statuses
    harm.sent = statuses.total()
    return harm


@contextlib.contextmanager
def attacking(
    port: int, seconds: float, *, names: Sequence[str] | None = None, callers: int, slow: int
) -> Iterator[Counter[int]]:
    """Attack a server from a process of its own while the block runs; it is under way by then.

    The statuses of the answers are counted in what is yielded, once the block has ended; 0: no answer came.

    Args:
        port: of the server.
        seconds: how long, at most; the block should take as long.
        names: of the attacks; None: all.
        callers: how many attack at a time.
        slow: connections that send a byte a second.
    """
    spawn = multiprocessing.get_context("spawn")
    ready, told = spawn.Event(), spawn.SimpleQueue()
    attackers = spawn.Process(target=_make_them, args=(port, names, seconds, callers, slow, ready, told))
    attackers.start()
    ready.wait()
    statuses: Counter[int] = Counter()
    try:
        yield statuses
        statuses.update(told.get())
    finally:
        attackers.terminate()
        attackers.join()


async def _beside(server: Server, harm: Harm, seconds: float, callers: int) -> Harm:
    end = time.perf_counter() + seconds
    await asyncio.gather(
        _ask_livez(server.port, harm, end),
        _watch_memory(server, harm, end),
        *(_ask_honestly(server.port, harm, end, number) for number in range(callers)),
    )
    return harm


def _make_them(
    port: int, names: Sequence[str] | None, seconds: float, callers: int, slow: int, ready: Any, statuses: Any
) -> None:
    attacks = [one for one in make_attacks() if names is None or one.name in names]
    turns = itertools.cycle(random.Random(0).sample(attacks, len(attacks)))
    counts: Counter[int] = Counter()
    ready.set()

    async def make() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(
            *(_attack(port, turns, counts, end) for _ in range(callers)),
            *(_send_slowly(port, end, number) for number in range(slow)),
        )

    asyncio.run(make())
    statuses.put(counts)


# --- who asks ---


async def _ask_livez(port: int, harm: Harm, end: float) -> None:
    while time.perf_counter() < end:
        began = time.perf_counter()
        status = await request(port, b"GET /livez HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
        took = time.perf_counter() - began if status == 200 else ANSWER_TIMEOUT_S
        harm.livez_s = max(harm.livez_s, took)
        await asyncio.sleep(LIVEZ_EVERY_S)


async def _watch_memory(server: Server, harm: Harm, end: float) -> None:
    while time.perf_counter() < end:
        with contextlib.suppress(OSError):
            harm.peak_bytes = max(harm.peak_bytes, await asyncio.to_thread(server.resident_bytes))
        await asyncio.sleep(MEMORY_EVERY_S)


async def _attack(port: int, turns: Iterator[Attack], statuses: Counter[int], end: float) -> None:
    while time.perf_counter() < end:
        one = next(turns)
        statuses[await request(port, one.head + b"\r\n", one.body, hang_up=one.hang_up)] += 1


async def _ask_honestly(port: int, harm: Harm, end: float, number: int) -> None:
    rng = np.random.default_rng(number)
    values = np.zeros((HONEST_SONGS[number % len(HONEST_SONGS)], 120, 25), np.float32)
    values[..., 12:24] = rng.random(values[..., 12:24].shape)
    songs = [{"id": str(n), "segments": song.tolist()} for n, song in enumerate(values)]
    kind, body = ((RAW, values.tobytes()), (JSON, json.dumps({"songs": songs}).encode()))[number % 2]
    while time.perf_counter() < end:
        harm.honest += 1
        for wait_s in (1.0, 1.0, 1.0, 0.0):  # What `Retry-After` says.
            status = await request(port, post_head(kind, len(body)) + b"\r\n", body)
            if status != 503:
                break
            harm.honest_told_to_come_back += 1
            await asyncio.sleep(wait_s)
        harm.honest_unanswered += status != 200
        await asyncio.sleep(0.02)


async def _send_slowly(port: int, end: float, number: int) -> None:
    head = post_head(RAW, 12_000)
    while time.perf_counter() < end:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            pieces = itertools.chain([head, b"\r\n"] if number % 2 else [], itertools.repeat(b"x"))
            while time.perf_counter() < end and not writer.transport.is_closing():
                writer.write(next(pieces))
                await asyncio.sleep(SLOW_EVERY_S)
            writer.close()


async def request(port: int, head: bytes, body: bytes = b"", *, hang_up: bool = False) -> int:
    """Return the status of the answer to a request; 0 where none came."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + body)
            if hang_up:
                await asyncio.sleep(random.random() / 20)
                return 0
            line = await reader.readline()
            await reader.read()
            return int(line.split()[1]) if line else 0
    except (OSError, TimeoutError, ValueError):
        return 0
    finally:
        if writer is not None:
            writer.transport.abort()


# --- what is sent ---


def post_head(kind: str, length: int, *more: str) -> bytes:
    """Return the head of a request with a body, but for the empty line."""
    lines = ["POST /v1/classify HTTP/1.1", "host: bench", f"content-type: {kind}", f"content-length: {length}"]
    return "".join(f"{line}\r\n" for line in [*lines, *more, "connection: close"]).encode()


def make_attacks() -> Iterator[Attack]:
    """Yield all hostile requests."""
    for name, (kind, body) in bodies().items():
        yield Attack(name, post_head(kind, len(body)), body)
        if name in IN_GZIP:
            packed = gzip.compress(body, 1)
            yield Attack(f"{name}, in gzip", post_head(kind, len(packed), "content-encoding: gzip"), packed)
    song = np.zeros((100, 120, 25), np.float32).tobytes()
    yield Attack("hang up while sending", post_head(RAW, len(song)), song[: len(song) // 2], hang_up=True)
    yield Attack("hang up while waiting", post_head(RAW, len(song)), song, hang_up=True)
    yield Attack("a head of 20 MB", b"GET /v1/model HTTP/1.1\r\nx-much: " + b"y" * 20_000_000 + b"\r\n", b"")
    yield Attack("many headers", b"GET /v1/model HTTP/1.1\r\n" + b"a: b\r\n" * 1_000_000, b"")
    yield Attack("requests in a row", b"GET /v1/model HTTP/1.1\r\nhost: b\r\n\r\n" * 20_000, b"")
    yield Attack("no HTTP", bytes(1_000_000), b"")
    chunk = b"1;" + b"x" * 200 + b"\r\nx\r\n"
    chunked = post_head(RAW, 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    yield Attack("tiny chunks", chunked, chunk * 50_000 + b"0\r\n\r\n")


def bodies() -> dict[str, tuple[str, bytes]]:
    """Return bodies that cost more than they seem to."""

    def full(unit: bytes) -> bytes:
        return unit * (LARGEST // len(unit))

    song, end = b'{"songs": [{"id": "a", "segments": [', b"]}]}"
    row = b"[" + b"0," * 24 + b"0],"
    most_numbers = row * (2**23 // 26)
    found = {
        "empty lists": song + full(b"[],") + b"[]" + end,
        "empty objects": song + full(b"{},") + b"{}" + end,
        "nested lists": full(b"["),
        "nested objects": full(b'{"a":'),
        "short texts": song + full(b'"ab",') + b'""' + end,
        "integers": song + b"[" + full(b"-9,") + b"9]" + end,
        "as many integers as may be": song + b"[" + b"999," * (2**23 - 100) + b"9]" + end,
        "a song as long as may be": song + most_numbers + row[:-1] + end,
        "rows of one number": song + full(b"[0.123456789012345678901234567890],") + b"[0]" + end,
        "NaN": song + b"[" + full(b"NaN,") + b"0]" + end,
        "NaN, within the bounds": song + row.replace(b"0", b"NaN") * (2**23 // 26) + row[:-1] + end,
        "long numbers": song + b"[" + full(b"1" * 300 + b",") + b"0]" + end,
        "a million songs": b'{"songs": [' + full(b'{"id":"","segments":[]},') + b"0]}",
        "1024 songs": b'{"songs": ['
        + b",".join(b'{"id":"%d","segments":[%b]}' % (n, (row * 300)[:-1]) for n in range(1024)) + b"]}",
        "an id of 30 MB": b'{"songs": [{"id": "' + full(b"\\u00e9") + b'", "segments": [[0]]}]}',
        "JSON that is no JSON": full(b"\xff"),
        "space": full(b" "),
    }  # fmt: skip
    arrays = {
        "raw, as long as may be": (RAW, bytes(12_000 * 1024)),
        "raw, not finite": (RAW, b"\xff" * (12_000 * 1024)),
        "raw, too many": (RAW, bytes(LARGEST // 12_000 * 12_000)),
        "npy, bytes": (NPY, npy_header(f"({LARGEST // 25}, 25)", "|u1") + bytes(LARGEST // 25 * 25)),
        "npy, no bytes": (NPY, npy_header(f"(0, {10**30})", "<f4")),
        "npy, dimensions": (NPY, npy_header(f"({'1,' * 65})", "<f4") + bytes(4)),
        "npy, halves": (NPY, npy_header(f"({LARGEST // 50}, 25)", "<f2") + b"\xff" * (LARGEST // 50 * 50)),
    }
    return {name: (JSON, body) for name, body in found.items()} | arrays | arrow_bodies()


def npy_header(shape: str, kind: str) -> bytes:
    """Return the header of an .npy file."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(500) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def arrow_bodies() -> dict[str, tuple[str, bytes]]:
    """Return streams that say more than they hold."""
    flat = np.zeros(12_000 * 200, np.float32)
    nested = pa.ListArray.from_arrays(
        np.arange(0, 96_001, 96, dtype=np.int32), pa.FixedSizeListArray.from_arrays(flat, 25)
    )
    ids = pa.array([str(n) for n in range(1000)])
    empty = pa.ListArray.from_arrays(np.zeros(LARGEST // 4 - 1000, np.int32), pa.array([], pa.float32()))
    views = pa.ListViewArray.from_arrays(
        pa.array([0] * 1000, pa.int32()),
        pa.array([96_000] * 1000, pa.int32()),
        pa.FixedSizeListArray.from_arrays(flat, 25),
    )
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 1_000_000]))
    return {
        "Arrow, sound": (ARROW, stream({"song_id": ids, "segments": nested})),
        "Arrow, a song of empty rows": (
            ARROW, stream({"song_id": pa.array(["a"]), "segments": pa.ListArray.from_arrays([0, len(empty)], empty)})),
        "Arrow, views of the same": (ARROW, stream({"song_id": ids, "segments": views})),
        "Arrow, ids of a megabyte": (ARROW, stream({"song_id": shared, "segments": nested})),
        "Arrow, nothing": (ARROW, bytes(LARGEST)),
        "Arrow, empty batches": (ARROW, stream({"song_id": ids[:0], "segments": nested[:0]}, batches=20_000)),
    }  # fmt: skip


def stream(columns: dict[str, pa.Array], batches: int = 1) -> bytes:
    """Return an Arrow IPC stream."""
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as out:
        for _ in range(batches):
            out.write_batch(batch)
    return sink.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the attack; the exit code is 1 if it hurt anybody."""
    return run(hostile, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
