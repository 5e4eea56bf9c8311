"""The watchdog: models that are asked in the event loop's own thread hold up everybody, so none may hang there.

A thread looks on. A model that is not done within a second is told to stop, which ONNX Runtime does before its next
operator. If it does not, a single operator hangs and nothing in this process can end it: then the worker has to go.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

LOOK_EVERY_S = 0.25
LOOKS_TO_STOP = 4  # Looks, not seconds: a machine that sleeps, or has no time for anybody, makes no model a bad one.
LOOKS_TO_GIVE_UP = 24

logger = logging.getLogger(__name__)


class Watchdog:
    """Watches over what one thread does, one thing at a time: `with watchdog.over(stop): ...`."""

    def __init__(self, tell_callers: Callable[[], None] = lambda: None) -> None:
        """Start to look on; `tell_callers` is called before the process ends, from the watchdog's thread."""
        self.stopped = False  # Whether what was watched last was told to stop.
        self._tell_callers = tell_callers
        self._stop: Callable[[], None] | None = None  # Of what is under way.
        self._looks = 0
        threading.Thread(target=_look_on, args=(weakref.ref(self),), name="segue-watchdog", daemon=True).start()

    def over(self, stop: Callable[[], None]) -> "Watchdog":
        """Watch over a block, and call `stop` if it takes too long; `stopped` says afterwards whether that happened."""
        self.stopped, self._looks, self._stop = False, 0, stop
        return self

    def __enter__(self) -> None:
        """Begin; `over` has."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End to watch."""
        self._stop = None

    def look(self) -> None:
        """Look once at what is under way."""
        stop = self._stop
        if stop is None:
            return
        self._looks += 1
        if self._looks == LOOKS_TO_STOP:
            self.stopped = True
            logger.error("a model is not done within %g s and is told to stop", LOOKS_TO_STOP * LOOK_EVERY_S)
        if self._looks >= LOOKS_TO_STOP:
            stop()
        if self._looks >= LOOKS_TO_GIVE_UP:
            logger.critical("a model hangs and does not stop: this worker ends, its callers are told to come back")
            self._tell_callers()
            os._exit(1)


def _look_on(of: "weakref.ref[Watchdog]") -> None:
    """Look as long as the watchdog is there."""
    while (watchdog := of()) is not None:
        watchdog.look()
        del watchdog
        time.sleep(LOOK_EVERY_S)
