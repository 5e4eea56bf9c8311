"""Receiving bodies: how slowly one may come, and how much of them all a worker holds.

Whole small bodies are read and answered as they come. Large ones, and what gzip makes of small ones, share a bounded
memory: where that is full, the largest body gives way, so that nobody locks smaller ones out. They are parsed in two
threads, one for the largest and one for the others, the smaller ones first, so that the event loop is free meanwhile.
"""

import asyncio
import fcntl
import heapq
import itertools
import math
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from starlette.types import Receive

from segue.machine import give_memory_back
from segue.serving.http.deadlines import Deadline, Deadlines
from segue.serving.http.refusal import Refusal, unavailable

Result = TypeVar("Result")


class InThread(Protocol):
    """Runs a function that takes long in a thread."""

    async def __call__(self, function: Callable[[], Result]) -> Result:
        """Return what the function returns."""


LARGE_BODY_BYTES = 2**16  # What a smaller one can cost is not worth a thread: 2 MB and some milliseconds.
RATE_OVER_S = 5.0
HELD_BODIES = 2  # Of the largest that a body may be, arriving or waiting.
MEDIUM_PART = 8  # Bodies up to this part of the largest do not wait for larger ones.


class _Held:
    """What one request holds of the memory for large bodies."""

    def __init__(self, limit: Deadline) -> None:
        self.n_bytes = 0
        self.gave_way = False
        self._limit = limit

    def give_way(self) -> None:
        self.gave_way = True
        self._limit.end()


class _Lane:
    """A thread for bodies of about a size, and which of them are parsed and answered: the smallest come first."""

    def __init__(self, name: str, free_bytes: int, lock: Path | None = None, *, tidy: bool = False) -> None:
        self.free_bytes = free_bytes
        self._lock = lock
        self._tidy = tidy
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._thread = ThreadPoolExecutor(1, name)

    def queue(self, n_bytes: int, turn: "asyncio.Future[None]") -> None:
        heapq.heappush(self._queue, (n_bytes, next(self._number), turn))
        self.begin_turns()

    def begin_turns(self) -> None:
        while self._queue and (self._queue[0][2].done() or self._queue[0][0] <= self.free_bytes):
            n_bytes, _, turn = heapq.heappop(self._queue)
            if not turn.done():  # Its caller has not left.
                self.free_bytes -= n_bytes
                turn.set_result(None)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._alone, function)

    def _alone(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns while no other worker that has the same lock runs one."""
        with ExitStack() as stack:
            if self._lock is not None:
                with suppress(OSError):  # Whatever tidies temporary folders may have been here.
                    lock = stack.enter_context(self._lock.open("ab"))
                    fcntl.flock(lock, fcntl.LOCK_EX)  # Until it is closed, or the process ends.
            try:
                return function()
            finally:
                if self._tidy:
                    give_memory_back()


class Bodies:
    """The bodies of a worker, from the first byte until they are answered."""

    def __init__(
        self, *, max_body_bytes: int, least_rate: int, deadlines: Deadlines | None = None, lock: Path | None = None
    ) -> None:
        """Hold bodies of up to so many bytes, each of which comes with so many bytes a second at least.

        Workers that share the file `lock` parse one of the largest bodies at a time between them.
        """
        self._deadlines = deadlines or Deadlines()
        self._max_body_bytes = max_body_bytes
        self._least_bytes = least_rate * RATE_OVER_S
        self._held: set[_Held] = set()
        self._lanes = (
            _Lane("segue-medium-bodies", max_body_bytes // 2),
            _Lane("segue-large-bodies", max_body_bytes, lock, tidy=True),
        )

    async def receive(self, receive: Receive) -> bytes:
        """Return the body of a request.

        Raises:
            Refusal: 413, it is too large; 408, it came too slowly; 499, its sender has left; 503, there are too many.
        """
        try:
            with self._deadlines.within(RATE_OVER_S) as limit:
                held = _Held(limit)
                try:
                    return await self._parts(receive, limit, held)
                finally:
                    self._held.discard(held)
        except TimeoutError:
            if held.gave_way:
                raise _no_room() from None
            least = self._least_bytes / RATE_OVER_S
            raise Refusal(
                408, "body too slow", f"body: expected {least:g} bytes a second at least, found fewer"
            ) from None

    async def _parts(self, receive: Receive, limit: Deadline, held: _Held) -> bytes:
        parts: list[bytes] = []
        found = counted = 0  # Bytes; those of them that came before the time of the present limit began.
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(499, "caller gone", "the caller left before the body was there")
            parts.append(message.get("body", b""))
            found += len(parts[-1])
            if found > self._max_body_bytes:
                raise Refusal(413, "too large", f"body: expected at most {self._max_body_bytes} bytes, found more")
            if not message.get("more_body", False):
                return b"".join(parts)
            if found > LARGE_BODY_BYTES:
                self._hold(held, found)
            if found - counted >= self._least_bytes and not held.gave_way:
                counted = found
                limit.due = asyncio.get_running_loop().time() + RATE_OVER_S

    @asynccontextmanager
    async def turn(self, n_bytes: int) -> AsyncIterator[InThread]:
        """Wait until a large body of so many bytes may be parsed and answered; then yield what runs a function.

        The function runs in the one thread that there is for bodies of about that size.

        Raises:
            Refusal: 503, it had to give way to others.
        """
        lane = self._lanes[n_bytes > self._max_body_bytes // MEDIUM_PART]
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.queue(n_bytes, turn)
        try:
            if not turn.done():
                await self._wait(turn, n_bytes)
            yield lane.in_thread
        finally:
            if turn.done() and not turn.cancelled():  # It had begun; a caller who leaves while it waits cancels it.
                lane.free_bytes += n_bytes
            turn.cancel()
            lane.begin_turns()

    async def _wait(self, turn: "asyncio.Future[None]", n_bytes: int) -> None:
        try:
            with self._deadlines.within(math.inf) as limit:
                held = _Held(limit)
                self._hold(held, n_bytes)
                try:
                    await turn
                finally:
                    self._held.discard(held)
        except TimeoutError:
            raise _no_room() from None

    def _hold(self, held: _Held, n_bytes: int) -> None:
        """Count a large body, and let the largest give way until the others fit."""
        held.n_bytes = n_bytes
        self._held.add(held)
        staying = sorted((one for one in self._held if not one.gave_way), key=lambda one: one.n_bytes)
        total = sum(one.n_bytes for one in staying)
        while total > HELD_BODIES * self._max_body_bytes:
            total -= staying[-1].n_bytes
            staying.pop().give_way()


def _no_room() -> Refusal:
    return unavailable("too many bytes", "too many large bodies are here already")


def inflated_bytes(body: bytes, most: int) -> int:
    """Return how many bytes a gzip body holds by what it says of itself, which is checked as it is inflated."""
    return min(int.from_bytes(body[-4:], "little"), most)


def inflate(body: bytes, most: int) -> bytes:
    """Return what a gzip body holds, if that is at most `most` bytes; no more than that is ever in memory."""
    n_bytes = inflated_bytes(body, most)
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = stream.decompress(body, n_bytes + 1)
    except zlib.error:
        raise Refusal(400, "malformed body", "body: expected gzip, found something else") from None
    if len(content) > n_bytes and n_bytes == most:
        raise Refusal(413, "too large", f"body: expected at most {most} bytes after gzip, found more")
    if not stream.eof or stream.unused_data:
        raise Refusal(
            400, "malformed body", "body: expected one whole gzip stream, found one cut off or followed by more"
        )
    return content
