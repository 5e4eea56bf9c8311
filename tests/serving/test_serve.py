"""`segue serve`: a process that starts, answers and stops when it is told to."""

import socket
from pathlib import Path

import pytest

from data.song import Floats
from serving.bundle import load_bundle
from serving.cascade import open_cascade
from serving.serve import main
from tests.bundles import CLASSES
from tests.random_songs import random_segments
from tests.serving.server import environment, free_port, serving

SONGS: list[Floats] = [random_segments(n, seed=n) for n in (90, 120, 400)]


@pytest.mark.slow
def test_a_served_bundle_answers_like_its_cascade_and_stops_on_sigterm(bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    words = ["segue", "serve", str(bundle), "--port", str(port), "--windows", "2"]
    with serving(words, port, tmp_path, environment(tmp_path / "home")) as server:
        body = server.classify(
            [{"id": str(row), "segments": song.tolist()} for row, song in enumerate(SONGS)], threshold=0.0
        )
        assert server.stop() == 0
        printed = server.log.read_text()
    expected = open_cascade(load_bundle(bundle), windows=2).answer(SONGS, 0.0)
    assert [one["genre"] for one in body["songs"]] == [CLASSES[choice] for choice in expected.choice]
    assert [one["answered_by"] for one in body["songs"]] == [expected.answered_by(row) for row in range(3)]
    assert [one["windows"] for one in body["songs"]] == expected.windows.tolist() == [1, 1, 2]
    for one, cross_entropy in zip(body["songs"], expected.cross_entropy_nats, strict=True):
        assert one["cross_entropy_nats"] == pytest.approx(cross_entropy, abs=1e-5)
    assert f"bundle {body['bundle']}: 4 classes, threshold" in printed
    assert f"curl http://127.0.0.1:{port}/v1/classify -H" in printed


def test_a_port_in_use_is_a_failure(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([str(bundle), "--port", str(port)]) == 1
    assert f"segue serve: cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "cannot listen on 127.0.0.1:70000: "),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:3000: "),
        (["--windows", "0"], "windows: expected at least 1, found 0"),
    ],
)
def test_settings_that_cannot_work_are_failures(
    bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(bundle), *options]) == 1
    assert f"segue serve: {message}" in capsys.readouterr().err


def test_a_bundle_that_is_not_there_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "bundle")]) == 1
    assert "bundle: expected a bundle, found no such folder" in capsys.readouterr().err
