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
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from segue.errors import ConfigError, ServiceError

ANSWER_TIMEOUT_S = 30.0  # After the last request was sent.
REUSED_WITHIN_S = 2.0  # A server closes connections that have been idle for some seconds, perhaps as one asks again.
REOPENED_AFTER_S = 0.1  # A connection that could not be opened.
SENT_IN_A_ROW = 16  # Requests that are overdue, before answers are looked at again.
BROKE, REFUSED, LATE = "connection broke", "cannot connect", f"no answer within {ANSWER_TIMEOUT_S:.0f} s"


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> "Address":
        """Read it from a URL; whatever follows the port is not looked at."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url}: expected an address such as http://127.0.0.1:3000")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Load:
    """What came of some requests."""

    seconds: float  # From the first request to the last answer.
    sent: int
    statuses: dict[int, int]  # How many answers had which status.
    unanswered: dict[str, int]  # Requests without any, by the reason.
    latencies_ms: NDArray[np.float64]  # Of the answers with status 200.
    late_ms: NDArray[np.float64]  # How long after it was due each request was sent: of an open loop.
    songs: int  # That were answered.
    by_teacher: int  # Of these, how many by the teacher,
    degraded: int  # and how many by the student because the teacher was in trouble.
    song_errors: int  # Songs with an error, in answers with status 200.

    @property
    def good_per_s(self) -> float:
        """Answers with status 200 a second."""
        return self.statuses.get(200, 0) / self.seconds if self.statuses else 0.0

    @property
    def songs_per_s(self) -> float:
        """Songs that were answered a second."""
        return self.songs / self.seconds if self.statuses else 0.0

    @property
    def errors(self) -> dict[str, int]:
        """Requests without an answer of status 200, by their kind."""
        by_status = {f"status {status}": count for status, count in self.statuses.items() if status != 200}
        return by_status | self.unanswered

    @property
    def failed(self) -> int:
        """Requests without an answer of status 200."""
        return sum(self.errors.values())

    def quantile_ms(self, q: float) -> float:
        """Return a quantile of the latencies."""
        return float(np.quantile(self.latencies_ms, q)) if len(self.latencies_ms) else float("nan")


def closed_loop(
    address: Address, requests: Sequence[bytes], *, connections: int, seconds: float, most: int | None = None
) -> Load:
    """Ask for so many seconds, or until `most` requests were sent; the callers go through `requests` together.

    Raises:
        ServiceError: nobody listens at the address.
    """
    return asyncio.run(_closed_loop(address, requests, connections, seconds, most))


def open_loop(
    address: Address, requests: Sequence[bytes], *, per_s: float, seconds: float, most: int | None = None, seed: int = 0
) -> Load:
    """Ask `per_s` times a second on average, at random times (a Poisson process), for so many seconds.

    Ends when what is under way by then has been answered. No more than `most` requests are sent.
    """
    gaps_s = np.random.default_rng(seed).exponential(1 / per_s, max(1, int(per_s * seconds * 1.5) + 10))
    due_s = np.cumsum(gaps_s)
    return asyncio.run(_open_loop(address, requests, due_s[due_s < seconds][:most].tolist()))


@dataclass
class _Tally:
    """Counts answers as they come."""

    started: float = field(default_factory=time.perf_counter)
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    last: float = 0.0
    songs: int = 0
    by_teacher: int = 0
    degraded: int = 0
    song_errors: int = 0

    @property
    def under_way(self) -> int:
        return self.sent - self.unanswered.total() - self.statuses.total()

    def answered(self, status: int, body: bytes, due: float) -> None:
        self.last = time.perf_counter()
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(self.last - due)
            # Names and values are looked for as bytes: reading JSON would take longer than all the rest.
            self.songs += body.count(b'"answered_by":')
            self.by_teacher += body.count(b'"answered_by":"teacher"')
            self.degraded += body.count(b'"degraded":true')
            self.song_errors += body.count(b'"error":')

    async def wait(self) -> None:
        """Wait until nothing is under way, or too long."""
        deadline = time.perf_counter() + ANSWER_TIMEOUT_S
        while self.under_way and time.perf_counter() < deadline:
            await asyncio.sleep(0.005)

    def load(self) -> Load:
        unanswered = self.unanswered + Counter({LATE: self.under_way})
        return Load(
            seconds=max(self.last - self.started, 0.0),
            sent=self.sent,
            statuses=dict(self.statuses),
            unanswered=dict(unanswered),
            latencies_ms=np.array(self.latencies_s) * 1e3,
            late_ms=np.array(self.late_s) * 1e3,
            songs=self.songs,
            by_teacher=self.by_teacher,
            degraded=self.degraded,
            song_errors=self.song_errors,
        )


async def _closed_loop(
    address: Address, requests: Sequence[bytes], connections: int, seconds: float, most: int | None
) -> Load:
    tally, cycle, callers = _Tally(), itertools.cycle(requests), set[_Connection]()
    reopening = set[asyncio.Task[None]]()

    def has_time() -> bool:
        return time.perf_counter() < tally.started + seconds and (most is None or tally.sent < most)

    def again(connection: _Connection) -> None:
        if connection.is_lost:
            callers.discard(connection)
            if has_time():
                task = asyncio.create_task(reopen())
                reopening.add(task)
                task.add_done_callback(reopening.discard)
        elif has_time():
            connection.ask(next(cycle), time.perf_counter())

    async def reopen() -> None:
        while has_time():
            try:
                connection = await _Connection.open(address, tally, again)
            except ServiceError:
                tally.sent += 1
                tally.unanswered[REFUSED] += 1
                await asyncio.sleep(REOPENED_AFTER_S)
                continue
            callers.add(connection)
            again(connection)
            return

    for _ in range(connections):
        callers.add(await _Connection.open(address, tally, again))
    tally.started = time.perf_counter()
    for connection in [*callers]:
        again(connection)
    while has_time():
        await asyncio.sleep(0.005)
    await tally.wait()
    for connection in callers:
        connection.close()
    return tally.load()


async def _open_loop(address: Address, requests: Sequence[bytes], due_s: Sequence[float]) -> Load:
    tally, idle, opening = _Tally(), list[_Connection](), set[asyncio.Task[None]]()

    async def ask_anew(request: bytes, due: float) -> None:
        try:
            (await _Connection.open(address, tally, idle.append)).ask(request, due, sent_already=True)
        except ServiceError:
            tally.unanswered[REFUSED] += 1

    for number, (after_s, request) in enumerate(zip(due_s, itertools.cycle(requests), strict=False)):
        due = tally.started + after_s
        wait_s = due - time.perf_counter()
        if wait_s > 0 or number % SENT_IN_A_ROW == 0:
            await asyncio.sleep(max(wait_s, 0))
        tally.late_s.append(time.perf_counter() - due)
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
    """A connection that is asked one thing at a time, and reads of an answer its status, its length and its body."""

    def __init__(self, tally: _Tally, free: Callable[["_Connection"], None]) -> None:
        self._tally = tally
        self._free = free  # Called when it may be asked again, and when it is lost.
        self._due: float | None = None  # Of the request that is under way.
        self._idle_since = time.perf_counter()
        self._found = bytearray()
        self._status = 0
        self._ends_at: int | None = None  # Bytes of the answer that is coming; None: its head has not come.
        self._body_at = 0
        self.is_lost = False

    @classmethod
    async def open(cls, address: Address, tally: _Tally, free: Callable[["_Connection"], None]) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(
                lambda: cls(tally, free), address.host, address.port, ssl=address.tls or None
            )
        except OSError as error:
            raise ServiceError(f"{address}: {error}") from None
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
        self.is_lost = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        was_lost, self.is_lost = self.is_lost, True
        if self._due is not None:
            self._due = None
            self._tally.unanswered[BROKE] += 1
        if not was_lost:
            self._free(self)

    def data_received(self, data: bytes) -> None:
        self._found += data
        if self._ends_at is None:
            end = self._found.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._found[:end]).lower()
            self._status = int(head[9:12])
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            if not length:  # Of an answer in chunks the end would have to be looked for; the service sends none.
                self._transport.abort()
                return
            self._body_at = end + 4
            self._ends_at = self._body_at + int(length)
            self.is_last = b"\r\nconnection: close" in head
        if len(self._found) >= self._ends_at and self._due is not None:
            due, self._due, self._ends_at = self._due, None, None
            body = bytes(self._found[self._body_at :])
            self._found.clear()
            self._tally.answered(self._status, body, due)
            self._idle_since = self._tally.last
            if self.is_last:
                self.close()
            self._free(self)
