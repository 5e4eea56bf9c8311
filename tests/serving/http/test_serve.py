"""`segue serve`: a process that starts, answers, takes a new bundle, and stops when it is told to."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segue.data.song import Floats, Songs
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from segue.serving.http.bodies import RAW
from segue.serving.http.serve import find_address, main
from tests.support.bundles import CLASSES
from tests.support.random_songs import random_segments
from tests.support.server import environment, free_port, serving

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
    expected = open_cascade(load_bundle(bundle), windows=2).answer(Songs.of(SONGS), 0.0)
    assert [one["genre"] for one in body["songs"]] == [CLASSES[choice] for choice in expected.choice]
    assert [one["answered_by"] for one in body["songs"]] == [expected.answered_by(row) for row in range(3)]
    assert [one["windows"] for one in body["songs"]] == expected.windows.tolist() == [1, 1, 2]
    for one, cross_entropy in zip(body["songs"], expected.cross_entropy_nats, strict=True):
        assert one["cross_entropy_nats"] == pytest.approx(cross_entropy, abs=1e-5)
    assert f"bundle {body['bundle']}: 4 classes, threshold" in printed
    assert f"curl http://127.0.0.1:{port}/v1/classify -H" in printed


def fetch(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Return status and text of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_printed_curl_line_works_and_sigterm_loses_nothing(bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    words = ["segue", "serve", str(bundle), "--port", str(port)]
    with serving(words, port, tmp_path, environment(tmp_path / "home")) as server:
        (line,) = [line for line in server.log.read_text().splitlines() if line.startswith("curl ")]
        answer = subprocess.run([*shlex.split(line), "--silent"], check=True, capture_output=True).stdout
        assert json.loads(answer)["songs"][0]["id"] == "try-me"

        body = bytes(24_000)
        idle, busy = (socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(2))
        with idle, busy:
            head = f"POST /v1/classify HTTP/1.1\r\nhost: segue\r\ncontent-type: {RAW}\r\ncontent-length: {len(body)}"
            idle.sendall(b"GET /v1/model HTTP/1.1\r\nhost: segue\r\n\r\n")
            assert idle.recv(1)
            busy.sendall(head.encode() + b"\r\nexpect: 100-continue\r\n\r\n")
            assert busy.recv(100).startswith(b"HTTP/1.1 100")  # The service has begun to read.
            busy.sendall(body[:12_000])
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionError):
                while idle.recv(65_536):
                    pass  # Until it is closed: the service is draining.
            busy.sendall(body[12_000:])
            found = b""
            while part := busy.recv(65_536):
                found += part
        assert found.startswith(b"HTTP/1.1 200")
        assert len(json.loads(found.partition(b"\r\n\r\n")[2])["songs"]) == 2
        assert server.process.wait(60) == 0


@pytest.mark.slow
def test_a_new_bundle_reaches_every_worker_and_a_bad_one_none(bundle: Path, tmp_path: Path) -> None:
    here, port = tmp_path / "bundle", free_port()
    shutil.copytree(bundle, here)

    def renew(licence: str) -> str:
        """Make another version of the same models."""
        return write_manifest(here, replace(load_bundle(here).manifest, licence=licence)).version

    env = environment(tmp_path / "home") | {"SEGUE_TOKENS": "admin=root"}
    words = ["segue", "serve", str(here), "--port", str(port), "--workers", "2"]
    with serving(words, port, tmp_path, env) as server:

        def reloads(result: str) -> int:
            metrics = fetch(f"{server.url}/metrics")[1].splitlines()
            values = [
                line.split()[1] for line in metrics if line.startswith(f'segue_reloads_total{{result="{result}"}}')
            ]
            return int(float(values[0])) if values else 0

        def versions() -> set[str]:
            return {json.loads(fetch(f"{server.url}/v1/model")[1])["version"] for _ in range(20)}

        def reload() -> tuple[int, str]:
            return fetch(f"{server.url}/v1/admin/reload", b"", authorization="Bearer root")

        eventually(lambda: "segue_workers_with_teacher 2.0" in fetch(f"{server.url}/metrics")[1])
        second = renew("second")
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: reloads("swapped") == 2)
        assert versions() == {second}

        third = renew("third")
        assert reload() == (200, f'{{"bundle":"{third}"}}')
        eventually(lambda: reloads("swapped") == 4)
        assert versions() == {third}

        (here / "student.onnx").write_bytes(b"damaged")
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: reloads("refused") == 2)
        status, answer = reload()
        assert status == 409
        assert "the old bundle stays: bundle/student.onnx: expected sha256" in answer
        assert str(tmp_path) not in answer
        assert versions() == {third}
        assert reloads("swapped") == 4
        assert server.stop() == 0


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
        (["--host", "nowhere.invalid"], "--host nowhere.invalid: expected an address of this machine or a name of one"),
        (["--windows", "0"], "windows (SEGUE_WINDOWS): Input should be greater than or equal to 1, found '0'"),
    ],
)
def test_settings_that_cannot_work_are_failures(
    bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(bundle), *options]) == 1
    assert f"segue serve: {message}" in capsys.readouterr().err


def test_an_address_that_is_not_ours_is_not_blamed_on_the_port(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), "--host", "192.0.2.1"]) == 1
    assert "Choose another with --host: it is no address of this machine." in capsys.readouterr().err


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_names_and_both_kinds_of_addresses_can_be_listened_on(host: str, address: str) -> None:
    found, port = find_address(host, 0)
    assert found == address
    assert port > 0
    assert find_address(host, port) == (address, port)


@pytest.mark.slow
@pytest.mark.parametrize(("host", "shown"), [("localhost", "localhost"), ("::1", "[::1]")])
def test_a_server_listens_where_it_says(bundle: Path, tmp_path: Path, host: str, shown: str) -> None:
    port = free_port()
    words = ["segue", "serve", str(bundle), "--port", str(port), "--host", host]
    with serving(words, port, tmp_path, environment(tmp_path / "home"), host=shown) as server:
        assert f"serving on http://{shown}:{port}, documented at" in server.log.read_text()
        assert len(server.classify([{"id": "a", "segments": SONGS[0].tolist()}])["songs"]) == 1


def test_a_bundle_that_is_not_there_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "bundle")]) == 1
    assert "bundle: expected a bundle, found no such folder" in capsys.readouterr().err
