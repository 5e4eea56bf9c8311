"""Fixtures of the serving floor's tests: the HTTP service, in this process."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from segue.serving.bundle.load import load_bundle
from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.endpoints.endpoint import Endpoint
from segue.serving.http.endpoints.registry import ENDPOINTS
from segue.serving.http.engine import Engine
from segue.serving.http.guard import Guard
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.server_folder import ServerFolder
from segue.serving.http.settings import Settings
from segue.serving.http.tokens import Tokens

Message = MutableMapping[str, Any]


class Client:
    """Asks the service, without a network."""

    def __init__(self, runner: asyncio.Runner, app: Any) -> None:
        self.runner = runner
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://segue")

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.runner.run(self.http.get(path, **how))

    def post(
        self, body: Any, content_type: str = "application/json", path: str = "/v1/classify", **headers: str
    ) -> Any:
        """Send `body` as it is."""
        headers = {"content-type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.runner.run(self.http.post(path, content=body, headers=headers))

    def classify(self, songs: list[dict[str, Any]], **settings: float | str) -> httpx.Response:
        return self.runner.run(self.http.post("/v1/classify", json={"songs": songs, **settings}))


OpenSlot = Callable[[Settings, Monitoring, ServerFolder | None], BundleSlot]


def untried(settings: Settings, monitoring: Monitoring, folder: ServerFolder | None) -> BundleSlot:
    """Open a bundle without trying it in a process of its own first, which takes a second."""
    engine = Engine.open(load_bundle(settings.bundle), settings, monitoring)
    return BundleSlot(settings, monitoring, engine, folder)


class OwnClient(Client):
    """A service of its own, without BentoML."""

    def __init__(
        self, runner: asyncio.Runner, settings: Settings, endpoints: Sequence[Endpoint], open_slot: OpenSlot
    ) -> None:
        self.registry = CollectorRegistry()
        self.monitoring = Monitoring(self.registry)
        folder = None if settings.server_folder is None else ServerFolder(settings.server_folder)
        self.slot = open_slot(settings, self.monitoring, folder)
        self.guard = Guard(endpoints, self.slot, Tokens.of(settings), nothing, ())
        super().__init__(runner, self.guard)

    def metrics(self) -> str:
        """Return what Prometheus would scrape."""
        self.monitoring.flush()
        return generate_latest(self.registry).decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one series; 0 where there is none."""
        self.monitoring.flush()
        return self.registry.get_sample_value(name, labels) or 0.0


async def nothing(*_: Any) -> None:
    """Stand where BentoML's app does."""


OwnService = Callable[..., OwnClient]


@pytest.fixture
def own_service(bundle: Path) -> Iterator[OwnService]:
    """Return a function that makes a service with the settings that it is given."""
    with asyncio.Runner() as runner:

        def make(
            endpoints: Sequence[Endpoint] = ENDPOINTS, open_slot: OpenSlot = untried, **settings: Any
        ) -> OwnClient:
            return OwnClient(runner, dataclasses.replace(Settings(bundle=bundle), **settings), endpoints, open_slot)

        yield make


@pytest.fixture(scope="session")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Run the service on the tiny bundle; one for all tests, since BentoML's metrics cannot be registered twice."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        # BentoML reads these as it is imported.
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path_factory.mktemp("metrics")))
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
        patch.setenv("BENTOML_DO_NOT_TRACK", "true")
        patch.setenv("SEGUE_BUNDLE", str(bundle))
        patch.setenv("SEGUE_DEADLINE_S", "600")  # A busy machine is no reason to fail,
        patch.setenv("SEGUE_TEACHER_TIMEOUT_S", "600")  # nor to answer without the teacher.
        from segue.serving.http.service import GenreService

        app = cast(Any, GenreService).to_asgi()
        with running(runner, app):
            yield Client(runner, app)


class running:  # noqa: N801 - used like a function
    """Start an ASGI app, and stop it when the block ends."""

    def __init__(self, runner: asyncio.Runner, app: Callable[..., Awaitable[None]]) -> None:
        self._runner, self._app = runner, app

    def __enter__(self) -> None:
        self._runner.run(self._start())

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stop())

    async def _start(self) -> None:
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._app({"type": "lifespan", "asgi": {}}, self._told.get, self._said.put))
        await self._told.put({"type": "lifespan.startup"})
        assert (await self._said.get())["type"] == "lifespan.startup.complete"

    async def _stop(self) -> None:
        await self._told.put({"type": "lifespan.shutdown"})
        assert (await self._said.get())["type"] == "lifespan.shutdown.complete"
        await self._task
