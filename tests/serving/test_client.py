"""The Python client: the songs it sends are the songs that are answered, and a busy server is asked again."""

import dataclasses
import email.utils
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segue.data.song import N_FEATURES, WINDOW, Songs
from segue.data.table import SongTable
from segue.errors import ServiceError, SongError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.client import BadSong, Classified, SegueClient, SongsToSend
from segue.serving.http.bodies import ARROW, RAW
from segue.serving.predictions import Answer, Answers
from tests.serving.conftest import Client
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES
from tests.support.random_songs import random_segments
from tests.support.server import environment, free_port, serving

WINDOWS = np.stack([random_segments(WINDOW, seed=n) for n in range(6)])
SONGS = [random_segments(n, seed=n) for n in (300, 1, 120, 119, 121)]
ANSWER = {
    "songs": [
        {"id": "0", "genre": "polka", "probabilities": {"polka": 0.75, "ska": 0.25}, "cross_entropy_nats": 0.25,
         "answered_by": "student", "rung": 1, "windows": 1, "degraded": False, "added_later": 1},
        {"id": "1", "error": "song '1': expected numbers"},
    ],
    "bundle": "b", "mode": "balanced", "threshold": 0.5,
}  # fmt: skip


@dataclasses.dataclass
class InProcess(httpx.BaseTransport):
    """Leads to the service in this process."""

    service: Client
    sent: list[httpx.Request] = dataclasses.field(default_factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return self.service.runner.run(self._ask(request))

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        found = await self.service.http.request(
            request.method, str(request.url), content=request.read(), headers=request.headers
        )
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)


@pytest.fixture
def in_process(service: Client) -> InProcess:
    return InProcess(service)


@pytest.fixture
def client(in_process: InProcess) -> SegueClient:
    return SegueClient("http://segue", transport=in_process)


def check(found: Classified, expected: Answers, ids: Sequence[str]) -> None:
    assert found.bad_songs == ()
    for row, (one, song_id) in enumerate(zip(found.answers, ids, strict=True)):
        assert one.song_id == song_id
        assert one.genre == CLASSES[expected.choice[row]]
        assert one.answered_by == expected.answered_by(row)
        assert one.windows == expected.windows[row]
        assert one.cross_entropy_nats == pytest.approx(expected.cross_entropy_nats[row], abs=1e-5)
        np.testing.assert_allclose([one.probabilities[name] for name in CLASSES], expected.probs[row], atol=1e-5)
        assert not one.degraded


@pytest.mark.parametrize(
    ("songs", "kind"),
    [
        (WINDOWS, RAW),
        (WINDOWS.astype(np.float64), RAW),
        (WINDOWS.astype(">f4"), RAW),
        (np.asfortranarray(WINDOWS), RAW),
        (SONGS, ARROW),
        (list(WINDOWS), ARROW),
        ([song.astype(np.float64) for song in SONGS], ARROW),
        (SONGS[0], ARROW),
        (np.stack([song[:90] for song in WINDOWS]), ARROW),
    ],
)
def test_songs_of_every_kind_get_the_cascades_answers(
    client: SegueClient, in_process: InProcess, bundle: Path, songs: Any, kind: str
) -> None:
    found = client.classify(songs, BOTH_ANSWER_NATS)
    singly = [songs] if isinstance(songs, np.ndarray) and songs.ndim == 2 else list(songs)
    expected = open_cascade(load_bundle(bundle)).answer(
        Songs.of([song.astype(np.float32) for song in singly]), BOTH_ANSWER_NATS
    )
    check(found, expected, [str(row) for row in range(len(singly))])
    assert (found.bundle, found.mode) == (load_bundle(bundle).manifest.version, "threshold")
    assert found.threshold_nats == BOTH_ANSWER_NATS
    assert in_process.sent[0].headers["content-type"] == kind


def test_a_table_names_its_songs(client: SegueClient, bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    with pa.OSFile(str(mixed_songs)) as file:
        table = pa.ipc.open_file(file).read_all()
    pq.write_table(table, tmp_path / "songs.parquet")
    songs = SongTable(mixed_songs)
    expected = open_cascade(load_bundle(bundle)).answer(songs.songs(range(100)), -1.0)
    for one in (table, pq.read_table(tmp_path / "songs.parquet")):
        check(client.classify(one.slice(0, 100), mode="accurate"), expected, songs.song_ids[:100])


def test_a_bad_song_is_told_apart(client: SegueClient) -> None:
    bad = SONGS[0].copy()
    bad[3, 2] = np.nan
    some = client.classify([SONGS[1], bad, SONGS[2]])
    assert [type(one) for one in some.songs] == [Answer, BadSong, Answer]
    assert [one.song_id for one in some.answers] == ["0", "2"]
    reason = "song '1', segment 3: expected finite numbers, found nan in timbre_3"
    assert some.bad_songs == (BadSong("1", reason),)
    assert client.classify([bad]).bad_songs == (BadSong("0", reason.replace("'1'", "'0'")),)


@pytest.mark.parametrize(
    ("songs", "message"),
    [
        ([SONGS[0], SONGS[1].T], "song 1: expected numbers of shape (segments, 25), found float32 of (25, 1)"),
        (np.zeros((2, WINDOW * N_FEATURES)), "song 0: expected numbers of shape (segments, 25), found float64 of (2,"),
        (np.zeros((2, WINDOW, N_FEATURES), bool), "song 0: expected numbers of shape (segments, 25), found bool of"),
        ([[["loud"] * 25]], "song 0: expected numbers of shape (segments, 25), found <U4 of (1, 25)"),
        (pa.table({"segments": [1]}), "table: expected the columns song_id and segments, found segments"),
    ],
)
def test_what_is_no_song_is_not_sent(
    client: SegueClient, in_process: InProcess, songs: SongsToSend, message: str
) -> None:
    with pytest.raises(SongError) as error:
        client.classify(songs)
    assert message in str(error.value)
    assert not in_process.sent


@pytest.mark.parametrize(
    ("dial", "songs", "status", "message"),
    [
        ({"threshold": -1}, WINDOWS, 422, "threshold: expected a finite number of nats, at least 0"),
        ({"threshold": 1, "mode": "fast"}, WINDOWS, 422, "expected a mode or a threshold, found both"),
        ({}, [], 422, "songs: expected at least one, found none"),
        ({}, np.zeros((1025, WINDOW, N_FEATURES), np.float32), 413, "expected at most 1024 in a request, found 1025"),
    ],
)
def test_errors_carry_the_servers_message(
    client: SegueClient, dial: Any, songs: SongsToSend, status: int, message: str
) -> None:
    with pytest.raises(ServiceError) as error:
        client.classify(songs, **dial)
    assert error.value.status == status
    assert str(error.value).startswith("http://segue/v1/classify")
    assert f": {status}: " in str(error.value)
    assert message in str(error.value)


Handler = Callable[[httpx.Request], httpx.Response]


@dataclasses.dataclass
class Scripted:
    """A server that answers as it is told, and how long the client waited between."""

    answers: list[httpx.Response | Exception]
    waits_s: list[float]
    requests: list[httpx.Request] = dataclasses.field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[len(self.requests) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def classify(self, **how: Any) -> Classified:
        with SegueClient("http://segue", transport=httpx.MockTransport(self), **how) as client:
            return client.classify(WINDOWS)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    waits_s: list[float] = []
    # Not `time.sleep` itself, in which threads of other tests may wait.
    monkeypatch.setattr("segue.serving.client.time", SimpleNamespace(sleep=waits_s.append))
    return lambda *answers: Scripted(list(answers), waits_s)


def busy(retry_after: str | None = None, text: str = '{"error": "busy"}') -> httpx.Response:
    return httpx.Response(503, headers={} if retry_after is None else {"retry-after": retry_after}, text=text)


def done() -> httpx.Response:
    return httpx.Response(200, json=ANSWER)


def test_an_answer_is_typed_and_what_a_newer_server_adds_is_ignored(scripted: Callable[..., Scripted]) -> None:
    found = scripted(done()).classify()
    first = Answer("0", "polka", {"polka": 0.75, "ska": 0.25}, 0.25, "student", 1, 1, False)
    assert found == Classified((first, BadSong("1", "song '1': expected numbers")), "b", "balanced", 0.5)


def test_a_busy_server_is_asked_again_no_sooner_than_it_wants(scripted: Callable[..., Scripted]) -> None:
    server = scripted(busy("3"), busy("0"), busy(), busy("soon"), done())
    assert server.classify().bundle == "b"
    assert len(server.requests) == 5
    assert len({request.content for request in server.requests}) == 1
    for waited_s, least_s in zip(server.waits_s, (3, 0.5, 1, 2), strict=True):
        assert least_s <= waited_s <= 1.5 * least_s


def test_a_server_may_name_the_time(scripted: Callable[..., Scripted]) -> None:
    server = scripted(busy(email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)), done())
    server.classify()
    assert 15 <= server.waits_s[0] <= 30


@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
def test_a_server_that_hung_up_is_asked_again(scripted: Callable[..., Scripted], failure: type[Exception]) -> None:
    server = scripted(failure("gone"), done())
    assert server.classify().bundle == "b"
    assert len(server.waits_s) == 1


@pytest.mark.parametrize(
    ("answers", "waits", "status", "message"),
    [
        ([busy("1")] * 3, 2, 503, "http://segue/v1/classify: 503: busy"),
        ([busy("3600")], 0, 503, "503: busy"),
        ([httpx.ConnectError("no route")] * 3, 2, None, "http://segue/v1/classify: no route"),
        ([httpx.ReadTimeout("too slow")], 0, None, "http://segue/v1/classify: too slow"),
        ([httpx.Response(500, json={"error": "internal error"})], 0, 500, "500: internal error"),
        ([httpx.Response(502, text="<html>")], 0, 502, "502: Bad Gateway"),
        ([httpx.Response(400, json=["odd"])], 0, 400, "400: Bad Request"),
        ([busy(text="<html>")] * 3, 2, 503, "503: Service Unavailable"),
    ],
)
def test_what_does_not_pass_is_an_error(
    scripted: Callable[..., Scripted], answers: list[Any], waits: int, status: int | None, message: str
) -> None:
    server = scripted(*answers)
    with pytest.raises(ServiceError) as error:
        server.classify(retries=2)
    assert (error.value.status, len(server.waits_s)) == (status, waits)
    assert message in str(error.value)


def test_the_token_is_sent(scripted: Callable[..., Scripted]) -> None:
    server = scripted(done())
    server.classify(token="s3cret")
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"


@pytest.mark.slow
def test_a_real_server_answers(bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    env = environment(tmp_path / "home") | {"SEGUE_TOKENS": "shop=s3cret"}
    with serving(["segue", "serve", str(bundle), "--port", str(port)], port, tmp_path, env) as server:
        with SegueClient(server.url, "s3cret") as client:
            found = client.classify(WINDOWS, mode="accurate"), client.classify(SONGS, mode="accurate")
        with SegueClient(server.url) as client, pytest.raises(ServiceError, match="401: expected a bearer token of"):
            client.classify(WINDOWS)
    cascade = open_cascade(load_bundle(bundle))
    for some, songs in zip(found, (list(WINDOWS), SONGS), strict=True):
        check(some, cascade.answer(Songs.of(songs), -1.0), [str(row) for row in range(len(songs))])
    with SegueClient(server.url, retries=0) as client, pytest.raises(ServiceError) as error:
        client.classify(WINDOWS)
    assert error.value.status is None


def test_json_of_the_service_is_what_the_client_reads(client: SegueClient, service: Client) -> None:
    body = json.loads(service.post(WINDOWS.tobytes(), RAW).content)
    assert [dataclasses.asdict(one) for one in client.classify(WINDOWS).answers] == [
        {"song_id": song.pop("id"), **song} for song in body["songs"]
    ]
