"""Fixtures of the serving floor's tests: the HTTP service, in this process."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest


class Client:
    """Asks the service, without a network."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner, self._client = runner, client

    def get(self, path: str) -> httpx.Response:
        return self._runner.run(self._client.get(path))

    def post(self, body: bytes) -> httpx.Response:
        """Send `body` as it is."""
        headers = {"content-type": "application/json"}
        return self._runner.run(self._client.post("/v1/classify", content=body, headers=headers))

    def classify(self, songs: list[dict[str, Any]], **settings: float) -> httpx.Response:
        return self._runner.run(self._client.post("/v1/classify", json={"songs": songs, **settings}))


@pytest.fixture(scope="session")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Run the service on the tiny bundle; one for all tests, since BentoML's metrics cannot be registered twice."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        # BentoML reads these as it is imported.
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path_factory.mktemp("metrics")))
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
        patch.setenv("BENTOML_DO_NOT_TRACK", "true")
        patch.setenv("SEGUE_BUNDLE", str(bundle))
        from serving.service import GenreService

        app = cast(Any, GenreService).to_asgi()
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        yield Client(runner, httpx.AsyncClient(transport=transport, base_url="http://segue"))
        runner.run(lifespan.__aexit__(None, None, None))
