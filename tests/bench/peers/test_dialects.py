"""Bodies carry the songs, and answers are read as another library would write them."""

import json

import numpy as np
import orjson
import pytest

from segue.bench.peers.dialects import (
    HEADER_LENGTH,
    PLAIN_JSON,
    PLAIN_RAW,
    SEGUE_JSON,
    SEGUE_RAW,
    V2_BINARY,
    V2_JSON,
    Dialect,
    Reply,
)
from segue.data.song import WINDOW
from segue.errors import ServiceError
from segue.serving.http.bodies import JSON, RAW, read
from tests.support.random_songs import random_segments

SONGS = [random_segments(WINDOW, seed=n) for n in range(3)]
PROBS = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])


def test_segue_reads_the_bodies_that_it_is_sent() -> None:
    for dialect, kind in ((SEGUE_JSON, JSON), (SEGUE_RAW, RAW)):
        headers, body = dialect.encode(SONGS)
        assert headers["content-type"] == kind
        np.testing.assert_array_equal(np.stack(list(read(body, kind, "raw", 3).sound)), np.stack(SONGS))


def test_every_body_has_the_songs() -> None:
    songs = np.stack(SONGS)
    lists = orjson.loads(PLAIN_JSON.encode(SONGS)[1])["songs"]
    np.testing.assert_array_equal(np.array(lists, np.float32), songs)
    np.testing.assert_array_equal(np.frombuffer(PLAIN_RAW.encode(SONGS)[1], "<f4").reshape(songs.shape), songs)
    tensor = orjson.loads(V2_JSON.encode(SONGS)[1])["inputs"][0]
    np.testing.assert_array_equal(np.array(tensor["data"], np.float32).reshape(tensor["shape"]), songs)
    headers, body = V2_BINARY.encode(SONGS)
    head, data = body[: int(headers[HEADER_LENGTH])], body[int(headers[HEADER_LENGTH]) :]
    tensor = orjson.loads(head)["inputs"][0]
    assert tensor["parameters"]["binary_data_size"] == len(data)
    np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(tensor["shape"]), songs)


@pytest.mark.parametrize("dialect", [PLAIN_JSON, SEGUE_JSON, V2_JSON])
def test_a_nan_is_sent_as_python_writes_it(dialect: Dialect) -> None:
    song = SONGS[0].copy()
    song[3, 4] = np.nan
    body = dialect.encode([song])[1]
    assert body.count(b"NaN") == 1
    json.loads(body)


def test_a_request_is_whole() -> None:
    head, _, body = PLAIN_RAW.request(SONGS).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /classify HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head.split(b"\r\n")


def test_answers_are_read_song_by_song() -> None:
    songs = [{"probabilities": {"a": p, "b": q}} for p, q in PROBS.tolist()]
    for content in ({"songs": songs}, songs):
        np.testing.assert_array_equal(PLAIN_JSON.probs(Reply(200, {}, orjson.dumps(content))), PROBS)
    one_wrong = orjson.dumps({"songs": [songs[0], {"error": "too loud"}]})
    np.testing.assert_array_equal(SEGUE_JSON.probs(Reply(200, {}, one_wrong)), [PROBS[0], [np.nan, np.nan]])


def test_tensors_are_read_in_json_and_in_binary() -> None:
    other = {"name": "by_teacher", "datatype": "BOOL", "shape": [3], "data": [True, False, True]}
    probs = {"name": "probs", "datatype": "FP32", "shape": [3, 2]}
    in_json = orjson.dumps({"outputs": [other, {**probs, "parameters": None, "data": PROBS.ravel().tolist()}]})
    np.testing.assert_array_equal(V2_JSON.probs(Reply(200, {}, in_json)), PROBS)
    del other["data"]
    data = PROBS.astype("<f4").tobytes()
    head = orjson.dumps(
        {
            "outputs": [
                {**other, "parameters": {"binary_data_size": 3}},
                {**probs, "parameters": {"binary_data_size": len(data)}},
            ]
        }
    )
    reply = Reply(200, {HEADER_LENGTH: str(len(head))}, head + b"\1\0\1" + data)
    np.testing.assert_array_equal(V2_BINARY.probs(reply), PROBS)


def test_what_is_no_answer_is_refused() -> None:
    for body in (b"[]", b"{}", b"oops", b'{"outputs": []}'):
        with pytest.raises(ServiceError, match="expected answers"):
            V2_JSON.probs(Reply(200, {}, body))
