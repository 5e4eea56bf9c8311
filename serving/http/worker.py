"""What BentoML leaves open about a worker process: its event loop, and that it ends.

A worker that is told to stop answers what is in flight and ends. It is told so by a signal, or because the first
process of its server is gone, whose port it would hold. If something hangs, it ends all the same once the time to
drain is over.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from typing import Any

from uvicorn.config import LOOP_FACTORIES

from segue.machine import usable_cores
from segue.serving.http.callers import Callers
from segue.serving.http.settings import Settings
from segue.serving.runtime import installed_wheels

PARENT_CHECKED_EVERY_S = 0.5
FEW_CONNECTIONS = 64  # Of a worker. More are spread well enough by chance.
ACCEPTED_AT_ONCE = 1
LEFT_TO_OTHERS_S = 0.005  # So long callers wait for a worker that has fewer, and may be busy, or gone.
ACCEPTED_AFTER_ALL = 8  # At once, of those whom it has not taken by then.

logger = logging.getLogger(__name__)


def count_workers(settings: Settings) -> int:
    """Return how many processes answer: what the settings say, else one a core; a GPU is one process's."""
    on_gpu = settings.provider != "cpu" and "onnxruntime-gpu" in installed_wheels()
    return settings.workers or (1 if on_gpu else usable_cores())


def prepare_worker(settings: Settings, callers: Callers) -> None:
    """Prepare this process to be a worker of a server, in its main thread, before uvicorn begins."""
    use_the_loop_of_asyncio()
    FairLoop.callers = callers
    if settings.server_pid is not None:
        end_with(settings.server_pid)
        end_within(settings.drain_s)


class FairLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, which leaves callers to the other workers until they have as many.

    The workers of a server accept connections from one socket. asyncio accepts as many at once as there are, so that of
    16 callers who come together one worker has them all, for as long as they stay, and the others have nothing to do.
    """

    callers = Callers()

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: Any,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *how: Any,
    ) -> None:
        which = (protocol_factory, sock, sslcontext, server)
        if self.callers.own >= FEW_CONNECTIONS:
            super()._accept_connection(*which, backlog, *how)  # type: ignore[misc]
        elif self.callers.are_more_than_others():
            self._remove_reader(sock.fileno())  # type: ignore[attr-defined]
            self.call_later(LEFT_TO_OTHERS_S, self._accept_after_all, *which, backlog, *how)
        else:
            super()._accept_connection(*which, ACCEPTED_AT_ONCE, *how)  # type: ignore[misc]

    def _accept_after_all(
        self, protocol_factory: Any, sock: Any, sslcontext: Any, server: Any, backlog: int, *how: Any
    ) -> None:
        """Accept callers whom no other worker has taken by now."""
        if sock.fileno() >= 0:  # It was not closed meanwhile.
            which = (protocol_factory, sock, sslcontext, server)
            self._start_serving(*which, backlog, *how)  # type: ignore[attr-defined]
            at_once = ACCEPTED_AFTER_ALL if self.callers.are_more_than_others() else ACCEPTED_AT_ONCE
            super()._accept_connection(*which, at_once, *how)  # type: ignore[misc]

    def _accept_connection2(self, *how: Any) -> Any:
        self.callers.are(self.callers.own + 1)  # Its protocol counts better, but only in some turns of the loop.
        return super()._accept_connection2(*how)  # type: ignore[misc]


def fair_loop(use_subprocess: bool = False) -> type[asyncio.AbstractEventLoop]:
    """Return the event loop, as uvicorn asks for it."""
    return FairLoop


def use_the_loop_of_asyncio() -> None:
    """Let uvicorn take asyncio's event loop where it would take uvloop's.

    uvloop accepts one connection a turn of its loop, however many there are, so that new callers wait for seconds once
    the loop is busy: docs/serving/load.md. BentoML has no setting for it.
    """
    LOOP_FACTORIES["auto"] = f"{__name__}:{fair_loop.__name__}"


def end_with(server_pid: int) -> None:
    """Let this process stop, as at SIGTERM, once it is no longer a child of the process `server_pid`."""

    def watch() -> None:
        while os.getppid() == server_pid:
            time.sleep(PARENT_CHECKED_EVERY_S)
        logger.error("the server's first process was killed: this worker ends too")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="segue-parent", daemon=True).start()


def end_within(drain_s: float) -> None:
    """Let this process end at most `drain_s` seconds after it was told to stop, whatever hangs then.

    Call it in the main thread, before handlers of SIGTERM and SIGINT are set. Those run between two steps of the main
    thread, which may be what hangs; this is told by the system, in a thread of its own.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(told, 1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        time.sleep(drain_s)
        logger.error("not all requests were answered within %g s after the signal to stop: ending now", drain_s)
        os._exit(1)

    threading.Thread(target=watch, name="segue-drain", daemon=True).start()
