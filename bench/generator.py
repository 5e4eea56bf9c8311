"""A load generator for HTTP/1.1: whole requests, made beforehand, over many connections, in a closed or an open loop.

In a *closed* loop every connection sends its next request once it has its answer, so a slow server is asked less. In an
*open* loop requests come when they come, whether or not the server keeps up, and a latency counts from when its request
was due. A generator that is slow itself would measure itself, so nothing here is a task or a future a request.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from segue.errors import ServiceError

ANSWER_TIMEOUT_S = 30.0  # After the last request was sent.
REUSED_WITHIN_S = 2.0  # A server closes connections that have been idle for some seconds, perhaps as one asks again.
SENT_IN_A_ROW = 16  # Requests that are overdue, before answers are looked at again.


@dataclass(frozen=True)
class Load:
    """What came of some requests."""

    seconds: float  # From the first request to the last answer.
    statuses: dict[int, int]  # How many answers had which status.
    unanswered: int  # Requests without any: the connection broke, or none came in time.
    latencies_ms: NDArray[np.float64]  # Of the answers with status 200.

    @property
    def good_per_s(self) -> float:
        """Answers with status 200 a second."""
        return self.statuses.get(200, 0) / self.seconds if self.statuses else 0.0

    @property
    def failed(self) -> int:
        """Requests without an answer of status 200."""
        return self.unanswered + sum(count for status, count in self.statuses.items() if status != 200)

    def quantile_ms(self, q: float) -> float:
        """Return a quantile of the latencies."""
        return float(np.quantile(self.latencies_ms, q)) if len(self.latencies_ms) else float("nan")


def post(path: str, content_type: str, body: bytes) -> bytes:
    """Return a whole POST request."""
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def closed_loop(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, most: int | None = None
) -> Load:
    """Ask for so many seconds, or until `most` requests were sent; the callers go through `requests` together."""
    return asyncio.run(_closed_loop(port, requests, connections, seconds, most))


def open_loop(port: int, requests: Sequence[bytes], *, per_s: float, seconds: float) -> Load:
    """Ask `per_s` times a second on average, at random times, for so many seconds; then wait for what is under way."""
    return asyncio.run(_open_loop(port, requests, per_s, seconds))


@dataclass
class _Tally:
    """Counts answers as they come."""

    started: float = field(default_factory=time.perf_counter)
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    latencies_s: list[float] = field(default_factory=list)
    last: float = 0.0

    @property
    def under_way(self) -> int:
        return self.sent - self.broken - self.statuses.total()

    def answered(self, status: int, due: float) -> None:
        self.last = time.perf_counter()
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(self.last - due)

    async def wait(self) -> None:
        """Wait until nothing is under way, or too long."""
        deadline = time.perf_counter() + ANSWER_TIMEOUT_S
        while self.under_way and time.perf_counter() < deadline:
            await asyncio.sleep(0.005)

    def load(self) -> Load:
        latencies_ms = np.array(self.latencies_s) * 1e3
        return Load(max(self.last - self.started, 0.0), dict(self.statuses), self.broken + self.under_way, latencies_ms)


async def _closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, most: int | None
) -> Load:
    tally, cycle = _Tally(), itertools.cycle(requests)
    callers: list[_Connection] = []

    def again(connection: _Connection) -> None:
        now = time.perf_counter()
        if now < tally.started + seconds and (most is None or tally.sent < most):
            connection.ask(next(cycle), now)

    for _ in range(connections):
        callers.append(await _Connection.open(port, tally, again))
    tally.started = time.perf_counter()
    for connection in callers:
        again(connection)
    while time.perf_counter() < tally.started + seconds and (tally.under_way or (most or 0) > tally.sent):
        await asyncio.sleep(0.005)
        if all(connection.is_lost for connection in callers):
            raise ServiceError(f"127.0.0.1:{port}: the server closed every connection")
    await tally.wait()
    for connection in callers:
        connection.close()
    return tally.load()


async def _open_loop(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> Load:
    tally, idle, opening = _Tally(), list[_Connection](), set[asyncio.Task[None]]()
    due_s = np.cumsum(np.random.default_rng(0).exponential(1 / per_s, int(per_s * seconds)))

    async def ask_anew(request: bytes, due: float) -> None:
        try:
            (await _Connection.open(port, tally, idle.append)).ask(request, due, sent_already=True)
        except ServiceError:
            tally.broken += 1

    for number, (due, request) in enumerate(
        zip((tally.started + due_s).tolist(), itertools.cycle(requests), strict=False)
    ):
        wait_s = due - time.perf_counter()
        if wait_s > 0 or number % SENT_IN_A_ROW == 0:
            await asyncio.sleep(max(wait_s, 0))
        while idle and idle[-1].is_stale:
            idle.pop().close()
        if idle:
            idle.pop().ask(request, due)
        else:
            tally.sent += 1
            task = asyncio.create_task(ask_anew(request, due))
            opening.add(task)
            task.add_done_callback(opening.discard)
    await tally.wait()
    for connection in idle:
        connection.close()
    return tally.load()


class _Connection(asyncio.Protocol):
    """A connection that is asked one thing at a time, and reads no more of an answer than its status and its length."""

    def __init__(self, tally: _Tally, free: Callable[["_Connection"], None]) -> None:
        self._tally = tally
        self._free = free  # Called when it may be asked again.
        self._due: float | None = None  # Of the request that is under way.
        self._idle_since = time.perf_counter()
        self._found = b""
        self._status = 0
        self._missing: int | None = None  # Bytes of the body that have not come; None: the head has not.
        self.is_lost = False

    @classmethod
    async def open(cls, port: int, tally: _Tally, free: Callable[["_Connection"], None]) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(lambda: cls(tally, free), "127.0.0.1", port)
        except OSError as error:
            raise ServiceError(f"127.0.0.1:{port}: {error}") from None
        return protocol

    @property
    def is_stale(self) -> bool:
        """Whether it had better not be asked again."""
        return self.is_lost or time.perf_counter() > self._idle_since + REUSED_WITHIN_S

    def ask(self, request: bytes, due: float, *, sent_already: bool = False) -> None:
        """Send a request; the tally hears of its answer, and counts it as sent unless it did already."""
        self._due = due
        self._tally.sent += not sent_already
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if self._due is not None:
            self._due = None
            self._tally.broken += 1

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._found += data
            end = self._found.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._found[:end].lower()
            self._status = int(head[9:12])
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._missing = int(length) - (len(self._found) - end - 4)
            self._found = b""
        else:
            self._missing -= len(data)
        if self._missing <= 0 and self._due is not None:
            due, self._due, self._missing = self._due, None, None
            self._tally.answered(self._status, due)
            self._idle_since = self._tally.last
            self._free(self)
