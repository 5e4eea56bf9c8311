"""What an endpoint is: one entry that the guard, the OpenAPI document and the metrics read.

`segue.serving.http.endpoints.registry` lists them; docs/contributing/endpoints.md says how to add one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from starlette.types import Receive

from segue.serving.http import schemas
from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.deadlines import Deadline, Deadlines
from segue.serving.http.receiving import Bodies
from segue.serving.http.settings import Settings
from segue.serving.http.songs_in import JSON

Role = Literal["caller", "admin"]


@dataclass  # Not frozen, which takes four times as long to make.
class Asked:
    """A request that its endpoint may answer: its sender may ask, its body is complete, its query has known names."""

    headers: Mapping[bytes, bytes]
    accept: str  # All Accept headers, as one.
    query: Mapping[str, str]
    body: bytes
    slot: BundleSlot
    bodies: Bodies
    deadlines: Deadlines
    receive: Receive  # Says when the caller leaves.

    @property
    def settings(self) -> Settings:
        """The settings of the service."""
        return self.slot.settings

    def header(self, name: str) -> str:
        """Return a header's value, "" where there is none."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    def before_its_deadline(self) -> Deadline:
        """Return a block in which the answer is made: it ends in time, or when the caller hangs up."""
        return self.deadlines.within(self.settings.deadline_s, self._caller_leaves)

    async def _caller_leaves(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


@dataclass
class Response:
    """An answer."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


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


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    return Response(orjson.dumps(content), status, headers=headers or {})
