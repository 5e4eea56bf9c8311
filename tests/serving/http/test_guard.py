"""The guard: tokens, caps, ids, headers and metrics, whoever answers behind it."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from segue.serving.http.bodies import RAW
from tests.serving.conftest import OwnClient, OwnService

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
