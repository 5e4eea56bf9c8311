"""What an endpoint is: one entry that the guard, the OpenAPI document and the metrics read.

`segue.serving.http.endpoints.registry` lists them; docs/contributing/endpoints.md says how to add one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson
from starlette.responses import Response
from starlette.types import Receive

from segue.serving.http import schemas
from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.receiving import Bodies
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings

Role = Literal["caller", "admin"]
WATCH_AFTER_S = 0.05  # Most answers take less; only longer ones are worth watching whether the caller has left.


@dataclass(frozen=True)
class Asked:
    """A request that its endpoint may answer: its sender may ask, its body is complete, its query has known names."""

    headers: Mapping[bytes, bytes]
    accept: str  # All Accept headers, as one.
    query: Mapping[str, str]
    body: bytes
    slot: BundleSlot
    bodies: Bodies
    receive: Receive  # Says when the caller leaves.

    @property
    def settings(self) -> Settings:
        """The settings of the service."""
        return self.slot.settings

    def header(self, name: str) -> str:
        """Return a header's value, "" where there is none."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @contextmanager
    def while_connected(self) -> Iterator[None]:
        """Cancel the block when the caller hangs up: nobody would read the answer."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        watchers: list[asyncio.Task[None]] = []
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self.receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(WATCH_AFTER_S, lambda: watchers.append(loop.create_task(watch())))
        try:
            yield
        except asyncio.CancelledError:
            if not gone or task.uncancel():
                raise
            raise Refusal(499, "caller gone", "the caller left before the answer was there") from None
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()


Handler = Callable[[Asked], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path of the service."""

    path: str  # Under /v1; its metrics have it as their label.
    method: Literal["GET", "POST"]
    answer: Handler  # Its docstring is what the OpenAPI document says of the endpoint.
    role: Role = "caller"  # Who may ask: whoever has a token, where there are any; or only the holder of admin's.
    query: Mapping[str, Any] = field(default_factory=dict)  # The parameters that it takes: name -> OpenAPI parameter.
    body: Mapping[str, Any] | None = None  # OpenAPI's words for the body that it takes; None: no body is read.
    reply: Any = None  # The model of its answer.
    responses: Mapping[int | str, dict[str, Any]] = field(default_factory=dict)  # Other answers, for OpenAPI.

    def __post_init__(self) -> None:
        """Refuse what the guard could not tell from the paths of probes and documents."""
        if not self.path.startswith("/v1/"):
            raise ValueError(f"{self.path}: expected a path under /v1/")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI is told of refusals with these statuses."""
    return {status: {"model": schemas.Problem} for status in statuses}


def by_path(endpoints: Sequence[Endpoint]) -> dict[str, dict[str, Endpoint]]:
    """Return the endpoints of each path, by method; a `ValueError` where one is there twice."""
    found: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.method in found.setdefault(endpoint.path, {}):
            raise ValueError(f"{endpoint.method} {endpoint.path}: expected one endpoint, found two")
        found[endpoint.path][endpoint.method] = endpoint
    return found


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
