"""The service over HTTP, beside bare uvicorn with the same models; what was in the way is what Segue adds.

`segue load` measures latency under load, `make peers` other servers; here are throughput and what a change did to it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.bench.generator import Address, Load, closed_loop
from segue.bench.request_bodies import requests as requests_of
from segue.bench.servers import serving
from segue.bench.suites.conftest import Measure
from segue.data.song import Floats

CONNECTIONS = 16
UNBOUNDED_S = 600.0
SERVERS = {
    "service": None,
    "bare uvicorn": "segue.bench.suites.bare_uvicorn:alone",
    "bare uvicorn, batched": "segue.bench.suites.bare_uvicorn:batched",
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, bundle: Path) -> Iterator[tuple[str, Address]]:
    """A server that answers, one after the other."""
    with serving(bundle, app=SERVERS[request.param]) as running:
        yield request.param, Address("127.0.0.1", running.port)


@pytest.mark.parametrize(("songs", "requests"), [(1, 500), (64, 60)])
@pytest.mark.parametrize("body", ["raw", "json"])
def test_requests(
    measure: Measure, server: tuple[str, Address], windows: Floats, songs: int, requests: int, body: str
) -> None:
    """So many requests over 16 connections, in a closed loop."""
    name, address = server
    if body == "json" and name != "service":
        pytest.skip("the bare servers take raw bodies only")
    path = "/v1/classify" if name == "service" else "/classify"
    bodies = requests_of(windows[: 256 * songs], body, songs, path=path)
    found: Load = measure(
        f"HTTP, {songs} songs a request",
        lambda: closed_loop(address, bodies, connections=CONNECTIONS, seconds=UNBOUNDED_S, most=requests),
        requests * songs, server=name, body=body, songs=songs,
    )  # fmt: skip
    assert found.failed == 0
