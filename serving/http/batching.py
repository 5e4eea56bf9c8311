"""The micro-batcher: what queued while a model was busy is its next batch. There is no timer, so nothing waits in vain.

Callers submit *groups*, each the songs of one request, and get a result of their own. The model runs in a thread of its
own, so the event loop stays free.
"""

import asyncio
import contextlib
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

Group = TypeVar("Group", bound=Sized)
Result = TypeVar("Result")
Run = Callable[[Sequence[Group]], Sequence[Result | Exception]]


class QueueFullError(Exception):
    """Too much is waiting already."""


@dataclass(frozen=True, eq=False)
class Waiting(Generic[Group, Result]):
    """A group whose caller waits."""

    group: Group
    result: "asyncio.Future[Result]"
    since: float  # time.perf_counter() when it came.


@dataclass(frozen=True)
class Ran:
    """What one batch took, for the metrics."""

    groups: int
    size: int
    queued_s: Sequence[float]  # Of each group.
    seconds: float
    waiting: int  # The size of all groups that wait now.


@dataclass(frozen=True)
class Batch(Generic[Group, Result]):
    """What the thread gets."""

    waiting: list[Waiting[Group, Result]]
    loop: asyncio.AbstractEventLoop
    deliver: Callable[[Sequence[Waiting[Group, Result]], Sequence[Result | Exception], float, float], None]


class MicroBatcher(Generic[Group, Result]):
    """Runs a function on batches of groups, one batch at a time."""

    def __init__(
        self,
        name: str,
        run: Run[Group, Result],
        *,
        max_waiting: int,
        batch_size: int,
        report: Callable[[Ran], None] = lambda _: None,
    ) -> None:
        """Start the thread that runs batches.

        Args:
            name: the thread's name.
            run: takes the groups of a batch and returns a result, or an error, for each; called in the thread.
            max_waiting: the most that may wait, counted in the sizes of groups.
            batch_size: a batch takes groups until their sizes add up to this; a larger group is a batch of its own.
            report: told of every batch, in the event loop.
        """
        self._max_waiting = max_waiting
        self._batch_size = batch_size
        self._report = report
        self._queue: deque[Waiting[Group, Result]] = deque()
        self._waiting = 0
        self._busy_since: float | None = None
        self._batches: queue.SimpleQueue[Batch[Group, Result] | None] = queue.SimpleQueue()
        # Not a pool: at exit Python waits for the threads of a pool, and one in which a model hangs would never end.
        threading.Thread(target=_work, args=(run, self._batches), name=name, daemon=True).start()
        weakref.finalize(self, self._batches.put, None)  # The thread does not know this object, and ends with it.

    @property
    def waiting(self) -> int:
        """The size of all groups that wait, those of the running batch not among them."""
        return self._waiting

    @property
    def busy_s(self) -> float:
        """For how long the running batch has been running."""
        return 0.0 if self._busy_since is None else time.perf_counter() - self._busy_since

    async def submit(self, group: Group) -> Result:
        """Return the result of `group`, or raise its error; a `QueueFullError` at once if it cannot wait.

        Whoever cancels this has left the queue: if the batch has not begun, the model never sees the group.
        """
        if self._waiting and self._waiting + len(group) > self._max_waiting:
            raise QueueFullError(f"{self._waiting} are waiting, at most {self._max_waiting} may")
        loop = asyncio.get_running_loop()
        waiting = Waiting(group, loop.create_future(), time.perf_counter())
        self._queue.append(waiting)
        self._waiting += len(group)
        if self._busy_since is None:
            self._busy_since = waiting.since
            loop.call_soon(self._next)  # Not now: requests that were read in the same turn of the loop come along.
        try:
            result: Result = await waiting.result
            return result
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self._waiting -= len(group)
            raise

    def _next(self) -> None:
        """Hand the next batch to the thread."""
        batch: list[Waiting[Group, Result]] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].group) <= self._batch_size):
            waiting = self._queue.popleft()
            self._waiting -= len(waiting.group)
            if not waiting.result.done():  # Its caller may have been cancelled in this turn of the loop.
                batch.append(waiting)
                size += len(waiting.group)
        self._busy_since = time.perf_counter() if batch else None
        if batch:
            self._batches.put(Batch(batch, asyncio.get_running_loop(), self._deliver))

    def _deliver(
        self,
        batch: Sequence[Waiting[Group, Result]],
        results: Sequence[Result | Exception],
        started: float,
        seconds: float,
    ) -> None:
        self._next()
        for waiting, result in zip(batch, results, strict=True):
            if waiting.result.done():  # Its caller has left.
                continue
            if isinstance(result, Exception):
                waiting.result.set_exception(result)
            else:
                waiting.result.set_result(result)
        queued_s = [started - one.since for one in batch]
        self._report(Ran(len(batch), sum(len(one.group) for one in batch), queued_s, seconds, self._waiting))


def _work(run: Run[Group, Result], batches: "queue.SimpleQueue[Batch[Group, Result] | None]") -> None:
    """Run one batch after the other, in the thread."""
    while (batch := batches.get()) is not None:
        started = time.perf_counter()
        results: Sequence[Result | Exception]
        try:
            results = run([one.group for one in batch.waiting])
        except Exception as error:
            results = [error] * len(batch.waiting)
        seconds = time.perf_counter() - started
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            batch.loop.call_soon_threadsafe(batch.deliver, batch.waiting, results, started, seconds)
        del batch, results  # Or the songs live until the next batch comes.
