"""The bundle that answers now, and how another takes its place without a pause.

A reload reads the bundle's folder again: verified, loaded and warmed up beside the old one, then swapped. Requests in
flight end with the bundle they began with. If the new one is bad, nothing happens but an error. Every worker watches
one file, `Settings.reload_file`, and reloads when it changes: SIGHUP to the server changes it, and so does the worker
that was asked over HTTP, once it has seen that the new bundle is good.
"""

import asyncio
import logging

from segue.serving.http.engine import Engine
from segue.serving.http.monitoring import Monitoring, forget_dead_processes
from segue.serving.http.settings import Settings

WATCH_EVERY_S = 0.5

logger = logging.getLogger(__name__)


class BundleSlot:
    """The open engine of a worker."""

    def __init__(self, settings: Settings, monitoring: Monitoring, engine: Engine) -> None:
        """Begin with `engine`."""
        self.settings = settings
        self.monitoring = monitoring
        self.engine = engine
        self._loading = asyncio.Lock()
        self._seen = self._changed()
        monitoring.loaded(has_teacher=engine.has_teacher)

    @classmethod
    def open(cls, settings: Settings, monitoring: Monitoring) -> "BundleSlot":
        """Open the bundle that the settings name; without its teacher, if only that cannot be loaded."""
        return cls(settings, monitoring, Engine.open(settings, monitoring, teacher_must_load=False))

    @property
    def ready(self) -> bool:
        """Whether this worker wants requests."""
        return self.engine.has_teacher or self.settings.ready_without_teacher

    async def reload(self) -> str:
        """Swap in what the bundle's folder holds now, and return its version; any error leaves the old one."""
        async with self._loading:
            try:
                new = await asyncio.to_thread(Engine.open, self.settings, self.monitoring, teacher_must_load=True)
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
        if self.settings.reload_file is not None:
            self.settings.reload_file.touch()
            self._seen = self._changed()

    async def watch(self) -> None:
        """Write the metrics, and reload whenever the reload file changes, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self.monitoring.flush()
            forget_dead_processes()
            if self._changed() == self._seen:
                continue
            self._seen = self._changed()
            try:
                await self.reload()
            except Exception:
                logger.exception("the new bundle was refused, the old one stays")

    def _changed(self) -> int:
        file = self.settings.reload_file
        return 0 if file is None or not file.exists() else file.stat().st_mtime_ns
