"""`segue load` asks a service as it was told, and tells what came of it in the form of all benchmarks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segue.bench import load as load_module
from segue.bench.generator import Address, Load
from segue.bench.load import Case, _highest_rate, load, main
from segue.bench.request_bodies import BODIES, requests
from segue.bench.results import read_results
from segue.bench.servers import Server, serving
from segue.data.song import WINDOW, Songs
from segue.data.table import SongBatch, write_table
from segue.errors import ConfigError, ServiceError, SongError
from segue.serving.http.bodies import read
from tests.support.random_songs import random_segments
from tests.support.server import free_port

SONGS = np.stack([random_segments(WINDOW, seed=n) for n in range(8)])


@pytest.mark.parametrize("body", BODIES)
def test_requests_carry_the_songs(body: str) -> None:
    found = []
    for request in requests(SONGS, body, 4, host="bench:1", token="secret"):
        head, _, content = request.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[:2] == ["POST /v1/classify HTTP/1.1", "host: bench:1"]
        assert f"content-length: {len(content)}" in lines
        assert "authorization: Bearer secret" in lines
        found += list(read(content, BODIES[body][0], "raw", 4).sound)
    np.testing.assert_array_equal(np.stack(found), SONGS)


def made(per_s: float, p99_ms: float, failed: int = 0) -> Load:
    """Return a load of one second whose latencies all are `p99_ms`."""
    answered = int(per_s)
    latencies = np.full(answered, p99_ms)
    return Load(
        seconds=1.0, sent=answered + failed, statuses={200: answered, 503: failed}, unanswered={},
        latencies_ms=latencies, late_ms=np.zeros(0), songs=answered, by_teacher=0, degraded=0, song_errors=0,
    )  # fmt: skip


@pytest.mark.parametrize("limit", [90.0, 730.0, 5000.0])
def test_the_highest_rate_that_keeps_a_p99_is_found(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def under(case: Case, *_: object) -> Load:
        assert case.offered is not None
        return made(case.offered, 10.0 if case.offered <= limit else 100.0)

    monkeypatch.setattr(load_module, "closed_loop", lambda *_, **__: made(1000, 5.0))
    monkeypatch.setattr(load_module, "_under", under)
    found: dict[Case, list[Load]] = {}
    rate = _highest_rate(Case("raw", 1), Address("127.0.0.1", 1), [b""], 25.0, 1.0, None, found)
    assert limit / 1.06 <= rate <= limit
    assert rate in {case.offered for case in found}


def test_a_rate_at_which_somebody_is_refused_is_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "closed_loop", lambda *_, **__: made(1000, 5.0))
    monkeypatch.setattr(load_module, "_under", lambda *_: made(100, 1.0, failed=1))
    assert _highest_rate(Case("raw", 1), Address("127.0.0.1", 1), [b""], 25.0, 1.0, None, {}) == 0


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle, {"SEGUE_TOKENS": "load=secret"}) as running:
        yield running


@pytest.mark.slow
def test_a_service_under_load(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, out = f"http://127.0.0.1:{server.port}", tmp_path / "load.json"
    with pytest.raises(ServiceError, match="expected a service that answers GET /v1/model"):
        load(url)
    monkeypatch.setenv("SEGUE_TOKEN", "secret")
    found = load(
        url, bodies=("raw", "json", "npy", "arrow"), sizes=(1, 3), connections=(2,), seconds=30, requests_at_most=8,
        rounds=2, out=out,
    )  # fmt: skip
    results = read_results(out)
    assert results == found.results
    throughputs = results.select("load", "throughput", loop="closed", connections=2)
    assert {(one.conditions["body"], one.conditions["songs"]) for one in throughputs} == {
        (body, size) for body in BODIES for size in (1, 3)
    }
    for one in throughputs:
        figures = {each.name: each for each in results.figures if each.conditions == one.conditions}
        assert figures["errors"].rounds == (0, 0)
        assert figures["p50"].value <= figures["p99"].value <= figures["p99.9"].value
        size = float(one.conditions["songs"])
        assert figures["goodput"].rounds == pytest.approx([size * each for each in one.rounds])
        assert 0 <= figures["fallback rate"].value <= 1
        assert figures["degraded"].value == 0
    assert not results.notes


@pytest.mark.slow
def test_an_open_loop_and_a_sweep(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_TOKEN", "secret")
    url = f"http://127.0.0.1:{server.port}"
    found = load(url, rates=(50.0,), p99_ms=5000.0, seconds=1, requests_at_most=60, rounds=1).results
    assert found.select("load", "throughput", loop="open", offered=50.0, body="raw", songs=1)
    (highest,) = found.select("load", "highest rate", p99_ms=5000.0, body="raw", songs=1)
    assert highest.value in {one.conditions["offered"] for one in found.select("load", "throughput")}
    assert "keep a p99 of 5000 ms" in str(load_module.LoadBenchmark(found))


@pytest.mark.slow
def test_songs_that_the_service_does_not_take_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_TOKEN", "secret")
    table = tmp_path / "standardised.arrow"
    with write_table(table, "standardised") as out:
        out.write(SongBatch(["a"], Songs.of(SONGS[:1]), [None], [None]))
    with pytest.raises(SongError, match=r"expected raw echonest songs for http.*, found standardised echonest"):
        load(f"http://127.0.0.1:{server.port}", songs=table)


def test_what_cannot_be_asked_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ({"sizes": (0,)}, {"rates": (0.0,)}, {"seconds": 0.0}, {"rounds": 0}, {"bodies": ()}):
        with pytest.raises(ConfigError, match="above 0"):
            load("http://127.0.0.1:1", **wrong)
    assert main([f"http://127.0.0.1:{free_port()}"]) == 1
    assert "expected a service that answers GET /v1/model" in capsys.readouterr().err
