"""The HTTP service: every song gets its own answer or its own error, and no body comes back."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.data.song import Songs
from segue.data.table import SongTable
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.bodies import READERS
from tests.serving.conftest import Client
from tests.support.bundles import CLASSES
from tests.support.random_songs import random_segments

GOOD = random_segments(130).tolist()
SECRET = "a-song-of-mine"


def changed(row: int, column: int, value: Any) -> list[list[Any]]:
    """Return the good song with one value changed."""
    return [
        [value if (i, j) == (row, column) else one for j, one in enumerate(segment)] for i, segment in enumerate(GOOD)
    ]


BAD = {
    "ragged": ([*GOOD[:5], GOOD[5][:24]], "expected segments of 25 numbers each, found rows of unequal length"),
    "24 features": ([segment[:24] for segment in GOOD], r"expected shape (segments, 25): .*; found (130, 24)"),
    "transposed": (np.transpose(GOOD).tolist(), "found (25, 130)"),
    "flat": (np.ravel(GOOD).tolist(), "found (3250,)"),
    "nan": (changed(3, 2, math.nan), "segment 3: expected finite numbers, found nan in timbre_3"),
    "infinite": (changed(4, 24, math.inf), "segment 4: expected finite numbers, found inf in loudness_start_db"),
    "beyond float32": (changed(0, 0, 1e39), "segment 0: expected finite numbers, found inf in timbre_1"),
    "text": (changed(3, 2, "loud"), "expected numbers, found text"),
    "null": (changed(3, 2, None), "expected numbers, found null"),
    "null instead of segments": (None, "expected numbers, found null"),
    "1e400": (changed(4, 24, 1e400), "segment 4: expected finite numbers, found inf in loudness_start_db"),
    "a boolean among numbers": (changed(3, 2, True), "expected numbers, found a boolean"),
    "2,999 numbers": (np.ravel(GOOD)[:2999].tolist(), "found (2999,)"),
    "booleans": ([[True] * 25], "expected numbers, found a boolean"),
    "an object": ({"timbre": [1.0]}, "expected numbers, found an object"),
    "one number": (7.5, "found ()"),
    "a huge integer": ([[10**400] * 25], "expected numbers, found one too large"),
    "empty": ([], "expected at least one segment, found none"),
    "empty segments": ([[], []], "expected at least one segment, found none"),
    "chroma": (changed(9, 12, 2.0), "segment 9: expected chroma_C between 0 and 1, found 2"),
    "loudness": (changed(9, 24, 3.5), "segment 9: expected loudness_start_db between -60 and 0, found 3.5"),
}


def song(song_id: Any, segments: Any = GOOD) -> dict[str, Any]:
    return {"id": song_id, "segments": segments}


def post(service: Client, body: Any) -> Any:
    """Send anything json.dumps can write, NaN and Infinity among it."""
    return service.post(json.dumps(body).encode())


def test_a_good_song_gets_a_genre(service: Client, bundle: Path) -> None:
    response, manifest = service.classify([song("one")]), load_bundle(bundle).manifest
    assert response.status_code == 200
    body = response.json()
    assert (body["bundle"], body["threshold"]) == (manifest.version, manifest.threshold_nats)
    (answer,) = body["songs"]
    assert set(answer) == {
        "id", "genre", "probabilities", "cross_entropy_nats", "answered_by", "rung", "windows", "degraded",
    }  # fmt: skip
    probabilities = answer["probabilities"]
    assert list(probabilities) == list(CLASSES)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert answer["genre"] == max(probabilities, key=probabilities.__getitem__)
    assert answer["cross_entropy_nats"] == pytest.approx(-math.log(max(probabilities.values())))


def test_answers_come_in_the_order_of_the_songs(service: Client) -> None:
    songs = [song(f"song-{n}", random_segments(n, seed=n).tolist()) for n in (300, 1, 120, 119, 121)]
    together = service.classify(songs).json()["songs"]
    assert [answer["id"] for answer in together] == [one["id"] for one in songs]
    for one, answer in zip(songs, together, strict=True):
        (alone,) = service.classify([one]).json()["songs"]
        assert (alone["genre"], alone["answered_by"]) == (answer["genre"], answer["answered_by"])
        assert alone["cross_entropy_nats"] == pytest.approx(answer["cross_entropy_nats"], abs=1e-5)


def test_the_threshold_of_a_request_overrides_the_bundles(service: Client, bundle: Path, mixed_songs: Path) -> None:
    segments = SongTable(mixed_songs).songs(range(60))
    songs = [song(f"song-{n}", one.tolist()) for n, one in enumerate(segments)]
    cascade = open_cascade(load_bundle(bundle))
    for nats, who in ((2.0, {"student"}), (0.0, {"teacher"})):
        body, expected = service.classify(songs, threshold=nats).json(), cascade.answer(segments, nats)
        assert body["threshold"] == nats
        assert [one["answered_by"] for one in body["songs"]] == [expected.answered_by(row) for row in range(60)]
        assert [one["windows"] for one in body["songs"]] == expected.windows.tolist()
        assert {one["answered_by"] for one in body["songs"]} == who


@pytest.mark.parametrize("name", BAD)
def test_a_bad_song_gets_its_own_error_and_its_neighbours_an_answer(service: Client, name: str) -> None:
    segments, message = BAD[name]
    response = post(service, {"songs": [song("before"), song("wrong", segments), song("after")]})
    before, wrong, after = response.json()["songs"]
    assert response.status_code == 200
    assert before["genre"] == after["genre"]
    assert set(wrong) == {"id", "error"}
    assert wrong["error"].startswith("song 'wrong'")
    for fragment in message.split(".*"):
        assert fragment in wrong["error"]


def test_only_bad_songs_are_unprocessable(service: Client) -> None:
    response = post(service, {"songs": [song(name, segments) for name, (segments, _) in BAD.items()]})
    assert response.status_code == 422
    assert [one["id"] for one in response.json()["songs"]] == list(BAD)
    assert all(f"song {one['id']!r}" in one["error"] for one in response.json()["songs"])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"songs": []}, 422, "songs: expected at least one, found none"),
        ({"songs": [song(SECRET, [])] * 1025}, 413, "songs: expected at most 1024 in a request, found more"),
        ({"songs": [song(SECRET, [])] * 100_000}, 413, "songs: expected at most 1024 in a request, found more"),
        ({"songs": {SECRET: 1}}, 422, "body.songs: expected a list, found an object"),
        ({SECRET: []}, 422, "body: expected songs, threshold, mode and features, found another key"),
        ({}, 422, "body.songs: expected a list of songs, found none"),
        ({"songs": [SECRET]}, 422, "body.songs[0]: expected an object with id and segments, found a string"),
        ({"songs": [{"segments": [SECRET]}]}, 422, "body.songs[0].id: expected one, found none"),
        ({"songs": [{"id": SECRET}]}, 422, "body.songs[0].segments: expected one, found none"),
        ({"songs": [song(SECRET) | {SECRET: 1}]}, 422, "body.songs[0]: expected id and segments, found another key"),
        ({"songs": [song(SECRET), song(None)]}, 422, "body.songs[1].id: expected a string, found null"),
        ({"songs": [song(f"{SECRET}\ud800")]}, 422, "body.songs[0].id: expected text, found half a surrogate pair"),
        ({"songs": [song(SECRET)], "threshold": -0.1}, 422, "threshold: expected a finite number of nats"),
        ({"songs": [song(SECRET)], "threshold": math.nan}, 422, "threshold: expected a finite number of nats"),
        ({"songs": [song(SECRET)], "threshold": math.inf}, 422, "threshold: expected a finite number of nats"),
        ({"songs": [song(SECRET)], "threshold": True}, 422, "threshold: expected a finite number of nats"),
        ({"songs": [song(SECRET)], "threshold": SECRET}, 422, "threshold: expected a finite number of nats"),
        ({"songs": [song(SECRET)], "mode": SECRET}, 422, "mode: expected one of fast, balanced, accurate"),
        ({"songs": [song(SECRET)], "mode": [SECRET]}, 422, "mode: expected one of fast, balanced, accurate"),
        ({"songs": [song(SECRET)], "mode": "fast", "threshold": 1}, 422, "expected a mode or a threshold, found both"),
        ([SECRET], 422, "body: expected an object, found a list"),
        (SECRET, 422, "body: expected an object, found a string"),
        (7, 422, "body: expected an object, found a number"),
        (None, 422, "body: expected an object, found null"),
    ],
)
def test_a_bad_request_is_explained_without_repeating_it(service: Client, body: Any, status: int, message: str) -> None:
    response = post(service, body)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert message in response.json()["error"]
    assert SECRET not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        f'{{"songs": [{SECRET}'.encode(),
        b"\xff\xfe\x00" + SECRET.encode(),
        b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_malformed_json_is_explained_without_repeating_it(service: Client, body: bytes) -> None:
    response = service.post(body)
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert "body: expected JSON, found something else" in response.json()["error"]
    assert SECRET not in response.text


@pytest.mark.parametrize("mode", ["fast", "balanced", "accurate"])
def test_the_mode_of_a_request_turns_the_dial(service: Client, bundle: Path, mode: str) -> None:
    segments = [random_segments(400, seed=n) for n in range(8)]
    songs = [song(f"song-{n}", one.tolist()) for n, one in enumerate(segments)]
    body = service.classify(songs, mode=mode).json()
    cascade = open_cascade(load_bundle(bundle))
    (threshold_nats,) = cascade.ladder.thresholds_nats
    threshold = {"fast": math.inf, "balanced": threshold_nats, "accurate": -1.0}[mode]
    expected = cascade.answer(Songs.of(segments), threshold)
    assert [one["answered_by"] for one in body["songs"]] == [expected.answered_by(row) for row in range(8)]
    assert (body["mode"], body["threshold"]) == (mode, threshold_nats if mode == "balanced" else None)


def test_the_dial_is_in_the_query_or_in_the_body(service: Client) -> None:
    body = json.dumps({"songs": [song("one")]}).encode()
    assert service.post(body, path="/v1/classify?threshold=0.25").json()["threshold"] == 0.25
    assert service.post(body, path="/v1/classify?mode=fast").json()["mode"] == "fast"
    both = service.post(json.dumps({"songs": [song("one")], "mode": "fast"}).encode(), path="/v1/classify?mode=fast")
    assert (both.status_code, both.json()["error"]) == (
        422,
        "expected the dial in the query or in the body, found it in both",
    )


def test_another_method_is_an_error_of_the_same_shape(service: Client) -> None:
    response = service.get("/v1/classify")
    assert (response.status_code, response.json()) == (405, {"error": "method: expected POST, found another"})
    assert response.headers["allow"] == "POST"


def test_the_most_songs_of_a_request_are_answered(service: Client) -> None:
    short = [[0.5] * 24 + [-10]]
    response = service.classify([song(str(n), short) for n in range(1024)])
    assert response.status_code == 200
    assert len({answer["cross_entropy_nats"] for answer in response.json()["songs"]}) == 1
    assert {answer["windows"] for answer in response.json()["songs"]} == {1}


def test_the_service_is_ready(service: Client) -> None:
    assert [service.get(path).status_code for path in ("/readyz", "/livez", "/healthz", "/metrics", "/")] == [200] * 5


def test_what_there_is_not_is_an_error_of_the_same_shape(service: Client) -> None:
    response = service.get("/v1/clasify")
    assert (response.status_code, set(response.json())) == (404, {"error"})


def test_the_service_describes_every_path_with_examples_that_work(service: Client) -> None:
    described = service.get("/docs.json").json()
    assert set(described["paths"]) == {
        "/v1/classify", "/v1/model", "/v1/tradeoff", "/v1/admin/reload", "/livez", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    path = described["paths"]["/v1/classify"]["post"]
    assert set(path["responses"]) >= {"200", "400", "413", "415", "422", "503", "504"}
    bodies = path["requestBody"]["content"]
    assert set(bodies) == {*READERS, "audio/mpeg", "multipart/form-data"}
    example = bodies["application/json"]["example"]
    (answer,) = service.post(json.dumps(example).encode()).json()["songs"]
    assert answer["id"] == "try-me"
    assert "genre" in answer


def test_the_page_asks_nobody_else_and_shows_no_more_than_there_is(service: Client) -> None:
    page = service.get("/").text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [path for path in loaded if not path.startswith("data:")]
    for path in loaded:
        assert path.startswith(("./static_content/", "data:"))
        assert path.startswith("data:") or service.get(path.removeprefix(".")).status_code == 200
    assert "<script>" not in page
    described = service.get("/docs.json")
    assert described.json()["info"]["title"] == "Segue"
    assert "bento" not in described.text.lower()
    assert described.content == service.get("/docs.json").content


def test_the_model_and_its_trade_off_can_be_read(service: Client, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    card = service.get("/v1/model").json()
    assert card["classes"] == list(CLASSES)
    assert (card["version"], card["threshold_nats"]) == (loaded.manifest.version, loaded.manifest.threshold_nats)
    assert card["guarantee"]["kept"] == loaded.manifest.guarantee.kept
    assert "provenance" not in card
    rows = service.get("/v1/tradeoff").json()["rows"]
    assert rows == [vars(row) | {"next_thresholds_nats": list(row.next_thresholds_nats)} for row in loaded.tradeoff]
