"""Deadlines of many requests, with one timer for all of them, and a look whether their callers are still there.

`asyncio.timeout` makes a timer for every block, and nearly every request is answered long before it would ring. Here a
request is a line in a table, which is looked through now and then.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, cast

LOOK_EVERY_S = 0.05  # So much later than its deadline a block may end.

CallerLeaves = Callable[[], Coroutine[Any, Any, None]]


class Deadlines:
    """The deadlines of a worker: `with deadlines.within(seconds): ...`."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: set[Deadline] = set()
        self._is_looking = False

    def within(self, seconds: float, caller_leaves: CallerLeaves | None = None) -> "Deadline":
        """Return a block that a task may spend so many seconds in; then it is cancelled and gets a `TimeoutError`.

        Args:
            seconds: from now on.
            caller_leaves: returns once nobody wants the result; then the task gets a `ConnectionAbortedError`. It is
                asked only where the block lasts longer than most.
        """
        return Deadline(self, asyncio.get_running_loop().time() + seconds, caller_leaves)

    def open(self, one: "Deadline") -> None:
        """Begin to look at a deadline."""
        self._open.add(one)
        if not self._is_looking:
            self._is_looking = True
            loop = asyncio.get_running_loop()
            loop.call_later(LOOK_EVERY_S, self._look, loop)

    def close(self, one: "Deadline") -> None:
        """End to look at one."""
        self._open.discard(one)

    def is_open(self, one: "Deadline") -> bool:
        """Tell whether the task of one is in its block."""
        return one in self._open

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in tuple(self._open):
            one.look(now)
        self._is_looking = bool(self._open)
        if self._is_looking:
            loop.call_later(LOOK_EVERY_S, self._look, loop)


class Deadline:
    """A block of a task, and when it has to end."""

    __slots__ = ("_all", "_caller_leaves", "_cancelling", "_ended_by", "_looks", "_task", "_watcher", "due")

    def __init__(self, of: Deadlines, due: float, caller_leaves: CallerLeaves | None) -> None:
        """Belong to all of them; the task is the one that enters."""
        self.due = due  # By the loop's clock; may be moved.
        self._all = of
        self._caller_leaves = caller_leaves
        self._watcher: asyncio.Task[None] | None = None
        self._looks = 0
        self._ended_by: type[Exception] | None = None

    def __enter__(self) -> "Deadline":
        """Begin."""
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._all.open(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End; whoever was cancelled by the deadline, and by nobody else, gets its error, as from `asyncio.timeout`."""
        self._all.close(self)
        if self._watcher is not None:
            self._watcher.cancel()
        if self._ended_by is not None:
            is_ours = self._task.uncancel() <= self._cancelling
            if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise self._ended_by from None

    def end(self) -> None:
        """Let it be over, as soon as the task waits for something."""
        asyncio.get_running_loop().call_soon(self._end, TimeoutError)

    def look(self, now: float) -> None:
        """End the block if it is over time; begin to watch its caller if it takes long."""
        if now >= self.due:
            self._end(TimeoutError)
        self._looks += 1
        if self._looks == 2 and self._caller_leaves is not None:  # At the first look it may just have begun.
            self._watcher = asyncio.create_task(self._caller_leaves())
            self._watcher.add_done_callback(self._caller_left)

    def _caller_left(self, watcher: "asyncio.Task[None]") -> None:
        if not watcher.cancelled():
            self._end(ConnectionAbortedError)

    def _end(self, error: type[Exception]) -> None:
        if self._ended_by is None and self._all.is_open(self):
            self._ended_by = error
            self._task.cancel()
