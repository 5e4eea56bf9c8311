"""The bundle that answers now, and how another takes its place without a pause.

A reload reads the bundle's folder again: verified, tried in a process of its own, loaded and warmed up beside the old
one, then swapped. Requests in flight end with the bundle they began with. If the new one is bad, or takes too long,
nothing happens but an error. Every worker watches one mark, in the server's folder, and reloads when it changes: SIGHUP
to the server changes it, and so does the worker that was asked over HTTP, once it has seen that the new bundle is good.
A server of a release store reloads as well whenever another release becomes the latest. Nobody calls it a second time,
so it tries a release that it could not load again by itself: a machine that was too busy yesterday is not so today.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from segue.errors import BundleError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.http.audio import Analysers
from segue.serving.http.engine import Engine
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.server_folder import ServerFolder
from segue.serving.http.settings import Settings
from segue.serving.http.shadow import Shadow
from segue.serving.http.trial import find_faults
from segue.serving.http.watchdog import Watchdog
from segue.serving.releases.follow import Follower
from segue.serving.releases.store import ReleaseStore

WATCH_EVERY_S = 0.5
FLUSH_EVERY_S = 2.0  # So much older the other workers' metrics may be.
LOOK_TIMEOUT_S = 30.0  # For a release store to say whether it has changed.
AGAIN_S = 5.0  # After which a release that could not be loaded is tried again; each time twice as long ...
MOST_AGAIN_S = 300.0  # ... up to this.

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class BundleSlot:
    """The open engine of a worker."""

    def __init__(
        self,
        settings: Settings,
        monitoring: Monitoring,
        engine: Engine,
        folder: ServerFolder | None = None,
        follower: Follower | None = None,
        shadow: Shadow | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Begin with `engine`; `folder` is the server's, None where this is its only process.

        Where a release store is served, `follower` gave the bundle of `engine`. A `shadow` is offered what it answers.
        """
        self.settings = settings
        self.monitoring = monitoring
        self.engine = engine
        self.analysers = Analysers(settings) if settings.audio else None
        self._folder = folder
        self._follower = follower
        self.shadow = shadow
        self._watchdog = watchdog
        self._loading = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._looked_at = time.monotonic()
        self._failed = 0  # Times that the latest release could not be loaded.
        self._again_at = 0.0
        self._flush_at = 0.0
        self._seen = self._asked_at()
        monitoring.loaded(has_teacher=engine.has_teacher)

    @classmethod
    def open(
        cls,
        settings: Settings,
        monitoring: Monitoring,
        folder: ServerFolder | None = None,
        watchdog: Watchdog | None = None,
    ) -> "BundleSlot":
        """Open the bundle that the settings name; without its teacher, if only that cannot be loaded."""
        follower = Follower(ReleaseStore(settings.releases)) if settings.releases else None
        engine = open_engine(settings, monitoring, follower, watchdog, teacher_must_load=False)
        shadow = Shadow.open(settings, monitoring, engine.bundle.manifest.units)
        return cls(settings, monitoring, engine, folder, follower, shadow, watchdog)

    @property
    def release(self) -> str | None:
        """The name of the release that answers; None where a bundle is served that is in no store."""
        return None if self._follower is None else self._follower.name_of(self.engine.bundle.manifest.version)

    @property
    def takes_audio(self) -> bool:
        """Whether the bundle answers for audio files, and the settings let it."""
        return self.analysers is not None and self.engine.bundle.manifest.features == "segue-audio-1"

    @property
    def ready(self) -> bool:
        """Whether this worker wants requests."""
        return self.engine.has_teacher or self.settings.ready_without_teacher

    async def reload(self) -> str:
        """Swap in what the bundle's folder holds now, and return its version; any error leaves the old one."""
        async with self._loading:
            try:
                new = await _in_a_thread_of_its_own(
                    lambda: open_engine(
                        self.settings, self.monitoring, self._follower, self._watchdog, teacher_must_load=True
                    ),
                    2 * self.settings.load_timeout_s,  # To try it, and to read and load it.
                )
            except Exception:
                self.monitoring.reloaded("refused")
                raise
            old, self.engine = self.engine, new  # The old one ends with the last request that began with it.
            self.monitoring.loaded(has_teacher=True)
            self.monitoring.reloaded("swapped")
            version = new.bundle.manifest.version
            logger.info("bundle %s took the place of %s", version, old.bundle.manifest.version)
            return version

    def tell_the_others(self) -> None:
        """Let every other worker reload too."""
        if self._folder is not None:
            self._folder.ask_for_reload()
            self._seen = self._asked_at()

    async def watch(self) -> None:
        """Write the metrics, and reload whenever that is asked for, until cancelled; no error ends it."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                if time.monotonic() >= self._flush_at:  # Which takes some milliseconds.
                    self._flush_at = time.monotonic() + FLUSH_EVERY_S
                    self.monitoring.flush()
                if self._following is not None and not self._following.done():
                    continue
                if self._asked_at() != self._seen or await self._has_moved():
                    self._following = asyncio.create_task(self._follow())
            except Exception:
                logger.exception("the watch for reloads goes on after an error")

    async def _follow(self) -> None:
        """Reload, as somebody else was asked to."""
        self._seen = self._asked_at()
        try:
            await self.reload()
            self._failed = 0
        except Exception:
            wait_s = min(AGAIN_S * 2**self._failed, MOST_AGAIN_S)
            self._failed, self._again_at = self._failed + 1, time.monotonic() + wait_s
            then = f"; the release is tried again in {wait_s:g} s" if self._follower else ""
            logger.exception("the new bundle was refused, the old one stays%s", then)

    async def _has_moved(self) -> bool:
        """Return whether another release has become the latest, or one that could not be loaded is due again."""
        follower = self._follower
        if follower is None or time.monotonic() - self._looked_at < follower.look_every_s:
            return False
        if self._failed and time.monotonic() >= self._again_at:
            return True
        self._looked_at = time.monotonic()
        return await _in_a_thread_of_its_own(follower.moved, LOOK_TIMEOUT_S)

    def _asked_at(self) -> int:
        return 0 if self._folder is None else self._folder.reload_asked_at()


def read_bundle(settings: Settings, follower: Follower | None = None) -> Bundle:
    """Return the bundle that the settings name: the latest release of their store, else the one in their folder."""
    if settings.releases:
        return (follower or Follower(ReleaseStore(settings.releases))).latest().bundle
    return load_bundle(settings.bundle)


def open_engine(
    settings: Settings,
    monitoring: Monitoring,
    follower: Follower | None = None,
    watchdog: Watchdog | None = None,
    *,
    teacher_must_load: bool,
) -> Engine:
    """Read the bundle of the settings, or the latest release; try its models elsewhere, then load the same bytes.

    A `BundleError` if that fails. Only where `teacher_must_load` is false may the teacher be missing.
    """
    bundle = read_bundle(settings, follower)
    faults = find_faults(bundle, settings)
    if "student" in faults or (faults and teacher_must_load):
        raise BundleError("; ".join(faults.values()))
    if faults:
        logger.error("the teacher cannot be loaded; the student answers alone: %s", faults["teacher"])
    return Engine.open(bundle, settings, monitoring, watchdog, with_teacher=not faults)


async def _in_a_thread_of_its_own(call: Callable[[], Result], limit_s: float) -> Result:
    """Return what `call` does; a `BundleError` after `limit_s`, and then the thread is left to itself.

    Not in one of the loop's threads: there are few, and others wait for them.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: Exception | None) -> None:
        if future.done():  # Nobody waits any more.
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="segue-load", daemon=True).start()
    try:
        async with asyncio.timeout(limit_s):
            return await future
    except TimeoutError:
        raise BundleError(f"the bundle could not be read and loaded within {limit_s:g} s") from None
