"""The guard: tokens, caps, ids, headers and metrics, whoever answers behind it."""

import asyncio
import gc
import gzip
import json
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import orjson
import pytest

from segue.errors import SegueError
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW
from segue.serving.http.refusal import Refusal
from tests.serving.conftest import Message, OwnClient, OwnService

SONG = bytes(12_000)  # Silence is a sound song.


def asked(service: OwnClient, authorization: str | None = None, path: str = "/v1/model", method: str = "GET") -> Any:
    headers = {} if authorization is None else {"authorization": authorization}
    return service.runner.run(service.http.request(method, path, headers=headers))


def test_without_tokens_anybody_may_classify_and_nobody_reload(own_service: OwnService) -> None:
    service = own_service()
    assert service.post(SONG, RAW).status_code == 200
    refused = asked(service, "Bearer anything", "/v1/admin/reload", "POST")
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "nobody may do this: the server has no token called admin",
    )


@pytest.mark.parametrize("path", ["/v1/model", "/v1/tradeoff"])
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer s3cret", 200),
        ("bearer  other ", 200),
        ("Bearer s3cre", 401),
        ("Bearer root", 401),
        ("Basic s3cret", 401),
        ("s3cret", 401),
        ("Bearer", 401),
        ("Bearer \u00e9", 401),
        (None, 401),
    ],
)
def test_with_tokens_only_their_holders_may_ask(
    own_service: OwnService, authorization: Any, status: int, path: str
) -> None:
    service = own_service(tokens=("shop=s3cret", "radio=other", "admin=root"))
    encoded = authorization if authorization is None else authorization.encode()
    response = asked(service, encoded, path)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json() == {"error": "expected a bearer token of this server"}
        assert service.post(SONG, RAW).status_code == 401


def test_only_the_admins_token_reloads(own_service: OwnService) -> None:
    service = own_service(tokens=("shop=s3cret", "admin=root"))
    statuses = {
        given: asked(service, given, "/v1/admin/reload", "POST").status_code
        for given in (None, "Bearer s3cret", "Bearer root")
    }
    assert statuses == {None: 401, "Bearer s3cret": 401, "Bearer root": 200}


def test_tokens_come_from_a_file_too(own_service: OwnService, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# who may ask\nshop = s3cret\n\nadmin = root\n")
    service = own_service(tokens_file=file)
    assert asked(service, "Bearer s3cret").status_code == 200
    assert asked(service).status_code == 401


def chunks(total: int) -> AsyncIterator[bytes]:
    """Send bytes without saying how many."""

    async def some() -> AsyncIterator[bytes]:
        for _ in range(total // 1000):
            yield bytes(1000)

    return some()


def test_a_body_may_have_so_many_bytes_declared_or_not(own_service: OwnService) -> None:
    service = own_service(max_body_bytes=24_000)
    most, more = service.post(bytes(24_000), RAW), service.post(bytes(36_000), RAW)
    assert (most.status_code, more.status_code) == (200, 413)
    assert more.json()["error"] == "body: expected at most 24000 bytes, found 36000"
    most, more = service.post(chunks(24_000), RAW), service.post(chunks(36_000), RAW)
    assert (most.status_code, more.status_code) == (200, 413)
    assert more.json()["error"] == "body: expected at most 24000 bytes, found more"


def test_a_gzip_bomb_is_refused_after_the_cap(own_service: OwnService) -> None:
    service = own_service(max_body_bytes=24_000)
    assert service.post(gzip.compress(bytes(24_000)), RAW, content_encoding="gzip").status_code == 200
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 24_000
    response = service.post(bomb, RAW, content_encoding="gzip")
    assert (response.status_code, response.json()["error"]) == (
        413,
        "body: expected at most 24000 bytes after gzip, found more",
    )
    assert service.post(SONG, RAW, content_encoding="br").status_code == 415


def test_an_answer_is_json_or_arrow_and_nothing_else(own_service: OwnService) -> None:
    response = own_service().post(SONG, RAW, accept="text/html")
    assert (response.status_code, response.json()["error"].split(",")[0]) == (
        406,
        "accept: expected application/json or application/vnd.apache.arrow.stream",
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("authorization", ("Bearer s3cret", "Bearer other")),
        ("content-type", (RAW, "application/json")),
        ("content-encoding", ("identity", "gzip")),
        ("x-request-id", ("mine-1", "mine-2")),
    ],
)
def test_a_header_that_is_given_twice_is_refused(own_service: OwnService, name: str, values: tuple[str, ...]) -> None:
    service = own_service(tokens=("shop=s3cret",))
    headers = {"content-type": RAW, "authorization": "Bearer s3cret"}
    repeated = [*((key, value) for key, value in headers.items() if key != name), *((name, value) for value in values)]
    response = service.runner.run(service.http.post("/v1/classify", content=SONG, headers=repeated))
    assert response.status_code == 400
    assert response.json()["error"] == f"{name}: expected this header once, found it 2 times"


def test_two_accept_headers_are_one_list(own_service: OwnService) -> None:
    service = own_service()
    headers = [("content-type", RAW), ("accept", "text/html"), ("accept", ARROW)]
    response = service.runner.run(service.http.post("/v1/classify", content=SONG, headers=headers))
    assert response.headers["content-type"] == ARROW


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("treshold=0.4", "query: expected mode or threshold, found 'treshold'"),
        ("Threshold=0.4", "query: expected mode or threshold, found 'Threshold'"),
        ("threshold=0.1&threshold=0.9", "query: expected threshold once, found it twice"),
        ("mode=fast&mode=fast", "query: expected mode once, found it twice"),
        ("threshold=0.4;mode=fast", "threshold: expected a finite number of nats, at least 0, found another value"),
        ("mode", "mode: expected one of fast, balanced, accurate, found another"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(own_service: OwnService, query: str, message: str) -> None:
    response = own_service().post(SONG, RAW, path=f"/v1/classify?{query}")
    assert (response.status_code, response.json()["error"]) == (422, message)


def test_a_query_turns_the_dial_and_nothing_else(own_service: OwnService) -> None:
    service = own_service()
    answer = service.post(SONG, RAW, path="/v1/classify?threshold=0%2E4")
    assert (answer.status_code, answer.json()["threshold"]) == (200, 0.4)
    assert service.get("/v1/model?verbose=1").json() == {"error": "query: expected nothing, found 'verbose'"}


def test_too_many_requests_in_flight_are_told_to_come_back(own_service: OwnService) -> None:
    service = own_service(max_requests=1)

    async def both() -> list[Any]:
        return await asyncio.gather(
            *(service.http.post("/v1/classify", content=SONG, headers={"content-type": RAW}) for _ in range(2))
        )

    first, second = service.runner.run(both())
    assert (first.status_code, second.status_code) == (200, 503)
    assert second.headers["retry-after"] == "1"
    assert second.json() == {"error": "1 requests are in flight already"}
    assert service.post(SONG, RAW).status_code == 200


def test_busy_times_are_logged_once_a_second(own_service: OwnService, caplog: pytest.LogCaptureFixture) -> None:
    service = own_service(max_requests=1)

    async def many() -> list[Any]:
        return await asyncio.gather(
            *(service.http.post("/v1/classify", content=SONG, headers={"content-type": RAW}) for _ in range(5))
        )

    with caplog.at_level(logging.INFO, "segue.serving.http.guard"):
        service.runner.run(many())
        service.guard._log_busy_at = 0.0  # A second later.
        service.runner.run(many())
    assert [(line.message, vars(line)["told_to_come_back"]) for line in caplog.records] == [("busy", 1), ("busy", 4)]
    assert service.metric("segue_refusals_total", reason="too many requests") == 8


def test_a_request_has_an_id_that_comes_back(own_service: OwnService, caplog: pytest.LogCaptureFixture) -> None:
    service = own_service(log_requests=True)
    with caplog.at_level(logging.INFO, "segue.serving.http.guard"):
        assert service.post(SONG, RAW, x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    (line,) = caplog.records
    assert (vars(line)["path"], vars(line)["status"]) == ("/v1/classify", 200)
    made = [service.post(SONG, RAW, x_request_id=given).headers["x-request-id"] for given in ("", "a b", "x" * 65)]
    assert len(set(made)) == 3
    assert all(len(one) == 16 for one in made)


REFUSED: dict[str, tuple[str, bytes]] = {
    "no JSON": (JSON, b"[" * 100_000),
    "songs that are all bad": (JSON, orjson.dumps({"songs": [{"id": "a", "segments": [[2.0] * 25] * 2000}]})),
    "rows of unequal length": (JSON, orjson.dumps({"songs": [{"id": "a", "segments": [[0.0] * 25] * 2000 + [[0.0]]}]})),
    "a bad threshold": (JSON, orjson.dumps({"songs": [{"id": "a", "segments": [[0.0] * 25] * 2000}], "threshold": -1})),
    "no whole songs": (RAW, bytes(100_001)),
    "bad values": (RAW, np.full((50, 120, 25), np.nan, np.float32).tobytes()),
    "a large one": (RAW, np.full((150, 120, 25), np.nan, np.float32).tobytes()),  # Read in a thread.
    "no npy": (NPY, bytes(100_000)),
    "no Arrow": (ARROW, bytes(100_000)),
}


async def send_to(service: OwnClient, kind: str, body: bytes) -> list[int]:
    """Send a body without httpx, which keeps it for a while; return the statuses of the answers."""
    statuses: list[int] = []
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/classify", "query_string": b"", "headers": headers}

    to_come = [body]

    async def receive() -> Message:
        if not to_come:
            await asyncio.Event().wait()  # The caller stays.
        return {"type": "http.request", "body": to_come.pop(), "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await service.guard(scope, receive, send)
    while len(asyncio.all_tasks()) > 1:  # Whoever watched whether the caller stays ends a moment later.
        await asyncio.sleep(0)
    return statuses


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_leaves_nothing_behind_for_the_garbage_collector(own_service: OwnService, name: str) -> None:
    service = own_service()
    kind, body = REFUSED[name]
    service.runner.run(send_to(service, kind, body))  # What is made only once is made by now.
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        held_before = sys.getrefcount(body)
        (status,) = service.runner.run(send_to(service, kind, body))
        deadline = time.monotonic() + 60
        while sys.getrefcount(body) > held_before and time.monotonic() < deadline:
            time.sleep(0.01)  # A thread that has read it lets go of it a moment later.
        held_after = sys.getrefcount(body)
        gc.collect()
        kept = [one for one in gc.garbage if isinstance(one, np.ndarray | FrameType | SegueError | Refusal)]
        held = [one for one in gc.garbage if isinstance(one, dict | list) and len(one) > 1000]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert 400 <= status < 500
    assert held_after <= held_before  # The thread may have held on to the first one for a moment.
    assert kept == held == []


def test_every_answer_has_security_headers(own_service: OwnService) -> None:
    service = own_service()
    for response in (service.post(SONG, RAW), service.post(b"", RAW), service.get("/nothing")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'self'")
        assert "access-control-allow-origin" not in response.headers


def test_no_answer_shows_where_or_how_it_failed(own_service: OwnService, monkeypatch: pytest.MonkeyPatch) -> None:
    service = own_service()
    monkeypatch.setattr(service.slot, "engine", None)
    for response in (service.post(SONG, RAW), service.get("/v1/model")):
        assert response.status_code == 500
        assert response.json() == {"error": "internal error; the log says more under this request's id"}


def test_songs_refusals_and_requests_are_counted(own_service: OwnService) -> None:
    service = own_service()
    songs: list[dict[str, Any]] = [
        {"id": "a", "segments": [[0] * 25]},
        {"id": "b", "segments": []},
        {"id": "c", "segments": [[0] * 25]},
    ]
    answered = service.classify(songs, mode="accurate").json()["songs"]
    service.post(b"", RAW)
    assert service.metric("segue_bad_songs_total") == 1
    who, genre = answered[0]["answered_by"], answered[0]["genre"]
    assert service.metric("segue_songs_total", answered_by=who, genre=genre) == 2
    assert service.metric("segue_fallbacks_total") == 2
    assert service.metric("segue_cross_entropy_nats_count") == 2
    assert service.metric("segue_refusals_total", reason="bad body") == 1
    assert service.metric("segue_requests_total", path="/v1/classify", status="200") == 1
    assert service.metric("segue_requests_total", path="/v1/classify", status="422") == 1
    for model in ("student", "teacher"):
        assert service.metric("segue_batch_songs_sum", model=model) == 2
        assert service.metric("segue_queue_seconds_count", model=model) == 1
    assert service.metric("segue_workers_with_teacher") == 1


def test_no_caller_can_make_a_new_series(own_service: OwnService) -> None:
    service = own_service()
    song: list[dict[str, Any]] = [{"id": "a", "segments": [[0] * 25]}]

    def use() -> None:
        for name in ("one", "two"):
            service.get(f"/{name}")
            service.get(f"/v1/{name}", headers={"authorization": f"Bearer {name}", "x-request-id": name})
            service.post(name.encode(), name)
            service.runner.run(service.http.request("TRACE", "/v1/model"))
            service.classify(song, mode=name)
            service.classify(song, threshold=len(name))

    use()
    names = {line.partition(" ")[0] for line in service.metrics().splitlines()}
    use()
    assert {line.partition(" ")[0] for line in service.metrics().splitlines()} == names
    assert not any("one" in name or "two" in name for name in names)


def test_a_log_line_is_json_with_the_id_of_its_request(own_service: OwnService) -> None:
    from segue.serving.http.guard import request_id
    from segue.serving.http.logs import json_handler

    record = logging.LogRecord("segue.serving.http.guard", logging.INFO, "", 0, "request", None, None)
    record.status = 404
    token = request_id.set("mine-1")
    handler = json_handler()
    try:
        assert handler.filter(record)
    finally:
        request_id.reset(token)
    line = json.loads(handler.format(record))
    assert (line["level"], line["message"], line["status"], line["request_id"]) == ("INFO", "request", 404, "mine-1")
    assert line["time"]
