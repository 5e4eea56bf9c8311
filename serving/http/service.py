"""The HTTP service: BentoML's lifecycle, probes, metrics and builds around the endpoints.

Start it with `segue serve`. `segue.serving.http.settings` lists the environment variables that set it.
"""

import asyncio
import gc
import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import bentoml
import bentoml._internal.server as bentoml_server
from _bentoml_sdk import Service
from bentoml.exceptions import BentoMLException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

import segue
from segue.errors import SegueError
from segue.serving.http.bento import ImageWithBundle
from segue.serving.http.bundle_slot import BundleSlot, read_bundle
from segue.serving.http.callers import Callers
from segue.serving.http.connections import Connections, serve_with
from segue.serving.http.document import documented
from segue.serving.http.endpoints.registry import ENDPOINTS
from segue.serving.http.guard import BENTOML_PATHS, Guard
from segue.serving.http.logs import log_json
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.pages import AUDIO_SCRIPT, Pages
from segue.serving.http.server_folder import ServerFolder
from segue.serving.http.settings import Settings
from segue.serving.http.tokens import Tokens
from segue.serving.http.watchdog import Watchdog
from segue.serving.http.worker import count_workers, prepare_worker

# For glibc and Arrow, in the workers: what held a large body goes back to the system when that is answered.
GIVE_MEMORY_BACK = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
}

logger = logging.getLogger(__name__)

app = documented(ENDPOINTS)


class GuardedService(Service[Any]):
    """A BentoML service whose every request passes the guard first."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return the guard, with the data path and BentoML's app behind it, in a process fit to be a worker."""
        settings = Settings.from_environment()
        folder = settings.server_folder
        callers = Callers(folder and folder / "callers")
        prepare_worker(settings, callers)
        pages = Path(bentoml_server.__file__).parent / "static_content"
        files = tuple(f"/static_content/{file.name}" for file in pages.iterdir())
        bentoml_app = super().to_asgi(is_main)
        behind = Pages(
            bentoml_app,
            document=lambda: self.openapi_spec.asdict(),
            metrics=lambda: app.state.slot.monitoring.page(),
            takes_audio=lambda: app.state.slot.takes_audio,
        )
        app.state.behind, app.state.paths_behind = behind, (*BENTOML_PATHS, *files, AUDIO_SCRIPT)
        app.state.connections = Connections(settings, lambda refusal: app.state.guard.cut(refusal), callers)
        serve_with(app.state.connections)

        async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
            # The guard is there before the first request: BentoML makes the service, below, as the lifespan begins.
            await (app.state.guard if scope["type"] == "http" else behind)(scope, receive, send)

        if not settings.cors_origins:
            return entrance
        return CORSMiddleware(
            entrance,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-encoding", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )


@bentoml.service(
    name="segue-cascade",
    service_class=GuardedService,
    workers=count_workers(Settings.from_environment()),
    tracing={"excluded_urls": [".*"]},
    logging={"access": {"enabled": False}},
    image=ImageWithBundle(),
    metrics={"enabled": False},  # BentoML's; ours are at /metrics.
)
@bentoml.asgi_app(app, path="/")
class GenreService:
    """Answers over HTTP with the cascade of one bundle."""

    def __init__(self) -> None:
        """Verify the bundle, load both models and warm them up; only then is the service ready."""
        settings = Settings.from_environment()
        log_json()
        self._settings = settings
        monitoring = Monitoring(folder=settings.server_folder)
        folder = None if settings.server_folder is None else ServerFolder(settings.server_folder)
        watchdog = Watchdog(app.state.connections.abandon)
        self._slot = app.state.slot = BundleSlot.open(settings, monitoring, folder, watchdog)
        app.state.guard = Guard(ENDPOINTS, self._slot, Tokens.of(settings), app.state.behind, app.state.paths_behind)

    @bentoml.on_deployment
    @staticmethod
    def begin() -> None:
        """Prepare the first process of the server: the folder of its workers, and SIGHUP, which reaches each of them.

        A bundle that cannot be read ends the server here: BentoML would start workers that fail again and again. It
        would also end every worker at SIGHUP, good or bad the new bundle. So the signal is blocked before BentoML sets
        its handler, and a thread waits for it.
        """
        settings = Settings.from_environment()
        # A relative path is one in the folder of the Bento's files: workers run there, this process need not.
        home = Path(segue.__file__).resolve().parents[1]
        try:
            read_bundle(replace(settings, bundle=home / settings.bundle))
        except SegueError as error:
            raise BentoMLException(str(error)) from None
        folder = ServerFolder.make()
        os.environ |= {"SEGUE_SERVER_PID": str(os.getpid()), "SEGUE_SERVER_FOLDER": str(folder.path)}
        os.environ |= {name: value for name, value in GIVE_MEMORY_BACK.items() if name not in os.environ}
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

        def wait() -> None:
            while True:
                signal.sigwait({signal.SIGHUP})
                try:
                    folder.ask_for_reload()
                except OSError:
                    logger.exception("SIGHUP came, and the workers could not be told")

        threading.Thread(target=wait, name="segue-sighup", daemon=True).start()

    @bentoml.on_startup
    async def tune(self) -> None:
        """Keep the garbage collector off what lives for ever, and begin to watch for a new bundle."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self._watch = asyncio.create_task(self._slot.watch())

    @bentoml.on_shutdown
    async def stop_watching(self) -> None:
        """End the watch; requests in flight have been answered by now."""
        self._watch.cancel()
        if self._settings.server_folder is not None and os.getppid() != self._settings.server_pid:
            ServerFolder(self._settings.server_folder).remove()  # The server was killed, and could not.

    async def __is_ready__(self) -> bool:
        """Answer `/readyz`."""
        return self._slot.ready
