"""The comparison starts servers, checks their answers, and counts what wrk and the system say of them."""

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from segue.bench.peers import compare as compare_module
from segue.bench.peers.bad_songs import FAULTS, is_right
from segue.bench.peers.compare import compare
from segue.bench.peers.dialects import PLAIN_RAW, SEGUE_JSON, SEGUE_RAW
from segue.bench.peers.processes import MARK, Processes
from segue.bench.peers.registry import PEERS, Peer
from segue.bench.peers.report import Found, Lane, Measured, standings
from segue.bench.peers.running import ROOT, caller, running
from segue.bench.peers.servers.plain_cascade import PlainCascade
from segue.bench.peers.workload import make_workload
from segue.bench.results import read_results
from segue.errors import ConfigError, ServiceError
from segue.serving.bundle.load import load_bundle

WRK = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")


def test_half_of_the_songs_fall_back_and_both_cascades_agree(bundle: Path, tmp_path: Path) -> None:
    work = make_workload(bundle, None, tmp_path)
    plain = PlainCascade(work.models).answer(work.songs)
    np.testing.assert_allclose(plain.probs, work.probs, atol=1e-5)
    assert plain.by_teacher.mean() == pytest.approx(0.5, abs=0.02)
    assert load_bundle(work.bundle).manifest.threshold_nats == work.threshold_nats


def test_processes_are_found_by_their_mark_and_their_time_is_counted() -> None:
    processes = Processes(uuid.uuid4().hex)
    code = "import os, sys; os.setsid(); sum(range(20_000_000)); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: processes.mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [*processes.pids()] == [process.pid]
        assert processes.cpu_s() > 0.05
        assert processes.memory_bytes() > 1e6
        processes.kill()
        process.wait()
    assert processes.wait(10)
    assert processes.cpu_s() == 0


def test_a_peer_that_is_not_installed_or_does_not_start_says_so(bundle: Path, tmp_path: Path) -> None:
    work = make_workload(bundle, None, tmp_path)
    missing = Peer("Missing", ("nothing",), (SEGUE_RAW,), "missing")
    broken = Peer("Broken", ("segue.no_such_module",), (SEGUE_RAW,), None)
    for peer, message in (
        (missing, r"Missing: expected its environment at .*missing"),
        (broken, r"Broken: it does not answer; its last words: .*no_such_module"),
    ):
        start = running(peer, tmp_path, work.models, work.bundle, work.songs[0])
        with pytest.raises(ServiceError, match=message), start:
            pass


def test_choices_that_name_nothing_are_refused(bundle: Path) -> None:
    for wrong in ({"only": ("nothing",)}, {"sizes": ()}, {"rounds": 0}, {"seconds": 0.5}):
        with pytest.raises(ConfigError, match="expected some of the servers segue, segue-2, fastapi"):
            compare(bundle, **wrong)


def lane(per_s: float, p99_ms: float, requests: int = 10) -> Measured:
    return Measured(requests, per_s, 1.0, p99_ms, 0, 2.0, 0.0)


def test_standings_say_where_segue_is_not_first_and_by_how_much() -> None:
    found = Found(
        {
            Lane("Segue, 1 worker", "raw", 1): [lane(900, 5), lane(1000, 6), lane(1100, 7)],
            Lane("Segue, 2 workers", "raw", 1): [lane(500, 9)],
            Lane("Swift", "binary", 1): [lane(2000, 12)],
            Lane("Slow", "raw", 1): [lane(100, 120)],
            Lane("Slow", "json", 1): [lane(0, 0, requests=0)],
        }
    )
    figures = [*found.figures()]
    assert [*standings(figures)] == [
        "1 song, binary bodies: Segue, 1 worker 1,000 requests/s, best peer Swift 2,000: 0.50 times, "
        "Segue is not first.",
        "1 song, binary bodies: Segue, 1 worker 6 ms p99, best peer Swift 12: 0.50 times, Segue is first.",
    ]
    assert not [one for one in figures if one.name == "p99" and one.conditions["body"] == "json"]


TOY = """
import os
import uvicorn
from segue.bench.peers.servers.plain_cascade import PlainCascade, songs_from_bytes
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

cascade = PlainCascade()

async def classify(request):
    return JSONResponse(cascade.to_json(cascade.answer(songs_from_bytes(await request.body()))))

app = Starlette(routes=[Route("/classify", classify, methods=["POST"])])
uvicorn.run(app, port=int(os.environ["PEER_PORT"]), log_level="warning")
"""


@WRK
@pytest.mark.slow
def test_segue_among_its_peers(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.sched_getaffinity(0)
    (tmp_path / "toy_server.py").write_text(TOY)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    toys = {
        "segue": PEERS["segue"],
        "toy": Peer("Toy", ("toy_server",), (PLAIN_RAW,), None, path),
        "lost": Peer("Lost", ("nothing",), (PLAIN_RAW,), "lost"),
    }
    monkeypatch.setattr(compare_module, "PEERS", toys)
    monkeypatch.setattr(compare_module, "WARM_UP_S", 1.0)
    out = tmp_path / "out.json"
    try:
        found = compare(bundle, sizes=(1,), bodies=("raw",), rounds=1, seconds=1, out=out, environments=tmp_path)
    finally:
        os.sched_setaffinity(0, cores)
    results = read_results(out)
    assert results == found.results
    assert {one.conditions["server"] for one in results.figures} == {"Segue, 1 worker", "Toy"}
    for server in ("Segue, 1 worker", "Toy"):
        check({one.name: one.value for one in results.figures if one.conditions["server"] == server})
    text = str(found)
    assert "Lost is left out: Lost: expected its environment" in text
    assert "Segue, 1 worker, raw, a NaN song: it gets an error of its own; the songs beside it: 3 of 3 right" in text
    assert "Toy, raw, a NaN song: it gets 500; the songs beside it: 500 for all" in text  # Its JSON has no NaN.


def check(figures: dict[str, float]) -> None:
    """Check the figures of a server that answers."""
    assert set(figures) == {"throughput", "p50", "p99", "CPU a request", "errors", "others", "start-up", "memory"}
    assert figures["throughput"] > 1
    assert figures["errors"] == 0
    assert 0 < figures["p50"] <= figures["p99"] < 1e4
    assert 0.01 < figures["CPU a request"] < 1e3


@pytest.mark.slow
def test_wrong_answers_are_not_right(bundle: Path, tmp_path: Path) -> None:
    work = make_workload(bundle, None, tmp_path)
    with running(PEERS["segue"], tmp_path, work.models, work.bundle, work.songs[0]) as server, caller() as client:
        for dialect in (SEGUE_RAW, SEGUE_JSON):
            reply = server.ask(client, dialect, list(work.songs[:2]))
            assert is_right(reply, dialect, work.probs[:2])
            assert not is_right(reply, dialect, work.probs[1:3])
            assert not is_right(reply, dialect, work.probs[:1])
        for spoil in FAULTS.values():
            assert server.ask(client, SEGUE_RAW, [spoil(work.songs[0])]).status == 422
    assert not [*server.processes.pids()]
