"""A toy endpoint, added as docs/contributing/endpoints.md says: everything that knows endpoints knows it."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from segue.serving.http.bodies import RAW
from segue.serving.http.document import documented
from segue.serving.http.endpoints.endpoint import Endpoint, by_path
from segue.serving.http.endpoints.registry import ENDPOINTS
from tests.serving.conftest import OwnService

PAGE = Path(__file__).parents[3] / "docs" / "contributing" / "endpoints.md"
SONG = bytes(12_000)


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """Return the endpoint that the page writes, from a module of its own."""
    (written,) = re.findall(r'^```python\n("""POST.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "count_endpoint.py").write_text(written)
    monkeypatch.syspath_prepend(tmp_path)
    endpoint: Endpoint = import_module("count_endpoint").ENDPOINT
    yield endpoint
    del sys.modules["count_endpoint"]


def test_a_toy_endpoint_answers_within_the_limits_of_all(own_service: OwnService, count: Endpoint) -> None:
    service = own_service(endpoints=(*ENDPOINTS, count), tokens=("shop=s3cret",), max_body_bytes=24_000)
    ask = {"content_type": RAW, "path": "/v1/count"}
    assert service.post(SONG * 2, authorization="Bearer s3cret", **ask).json() == {"songs": 2}
    assert service.post(SONG * 2, **ask).status_code == 401
    assert service.post(SONG * 3, authorization="Bearer s3cret", **ask).status_code == 413
    assert service.get("/v1/count").status_code == 405
    again = service.post(SONG, RAW, "/v1/count?again=1", authorization="Bearer s3cret")
    assert (again.status_code, again.json()["error"]) == (422, "query: expected nothing, found 'again'")
    assert service.post(SONG, authorization="Bearer s3cret").status_code == 400  # The others are what they were.


def test_a_toy_endpoint_has_metrics_of_its_own(own_service: OwnService, count: Endpoint) -> None:
    service = own_service(endpoints=(*ENDPOINTS, count))
    service.post(SONG, RAW, "/v1/count")
    service.post(SONG, RAW)
    assert service.metric("segue_requests_total", path="/v1/count", status="200") == 1
    assert service.metric("segue_requests_total", path="/v1/classify", status="200") == 1


def test_a_toy_endpoint_is_described(count: Endpoint) -> None:
    described = documented((*ENDPOINTS, count)).openapi()
    assert set(described["paths"]) == {one.path for one in ENDPOINTS} | {"/v1/count"}
    toy = described["paths"]["/v1/count"]["post"]
    assert toy["description"] == "Count the songs of a body, sound or not."
    assert RAW in toy["requestBody"]["content"]
    assert set(toy["responses"]) == {"200", "400", "401", "408", "413", "415", "422", "500", "503"}


def test_an_endpoint_is_there_once_and_below_v1(count: Endpoint) -> None:
    with pytest.raises(ValueError, match="POST /v1/count: expected one endpoint, found two"):
        by_path((count, count))
    with pytest.raises(ValueError, match="/count: expected a path under /v1/"):
        Endpoint("/count", "GET", count.answer)
