"""How a real server ends, whatever hangs or was killed, and what it leaves behind."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from segue.serving.http.bodies import RAW
from tests.support.altered_bundles import make_endless, relicense
from tests.support.server import Server, environment, free_port, serving

pytestmark = pytest.mark.slow

SONG = bytes(12_000)
ROOT = {"authorization": "Bearer root"}


@pytest.fixture
def changing(bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle that may be changed."""
    return shutil.copytree(bundle, tmp_path / "bundle")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Return the folder for temporary files of the servers of a test."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@contextmanager
def served(bundle: Path, temporary: Path, **settings: str) -> Iterator[Server]:
    """Serve a bundle, with its own folder for temporary files."""
    port, home = free_port(), temporary.parent
    env = environment(home / "home") | {"SEGUE_TOKENS": "admin=root", "TMPDIR": str(temporary)} | settings
    with serving(["segue", "serve", str(bundle), "--port", str(port)], port, home, env) as server:
        yield server


def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def family(server: Server) -> list[psutil.Process]:
    """Return the processes below the first one of a server."""
    found: list[psutil.Process] = psutil.Process(server.process.pid).children(recursive=True)
    return found


def half_sent(server: Server) -> socket.socket:
    """Return a connection on which the service waits for the rest of a body."""
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60)
    head = f"POST /v1/classify HTTP/1.1\r\nhost: segue\r\ncontent-type: {RAW}\r\ncontent-length: {len(SONG)}\r\n"
    connection.sendall(f"{head}expect: 100-continue\r\n\r\n".encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def test_sigterm_ends_a_server_within_its_drain_time_whatever_is_in_flight(changing: Path, temporary: Path) -> None:
    settings = {"SEGUE_DRAIN_S": "1", "SEGUE_DEADLINE_S": "3600", "SEGUE_LOAD_TIMEOUT_S": "3600"}
    with served(changing, temporary, **settings) as server:
        everyone = family(server)
        make_endless(changing, "student")
        reload = threading.Thread(target=reload_as_long_as_it_lasts, args=(server,))
        reload.start()
        eventually(lambda: len(family(server)) > len(everyone))  # The process that tries the new bundle.
        everyone = family(server)
        with half_sent(server):
            assert server.stop() == 0
        reload.join()
        assert "not all requests were answered within 1 s" in server.log.read_text()
    eventually(lambda: not any(one.is_running() for one in everyone))
    assert [*temporary.glob("segue-*")] == []


def reload_as_long_as_it_lasts(server: Server) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{server.url}/v1/admin/reload", headers=ROOT, timeout=600)


def test_sigterm_ends_a_server_whose_worker_hangs_in_its_main_thread(changing: Path, temporary: Path) -> None:
    code = (
        "import os, signal, time\nfrom segue.serving.http.worker import end_within\n"
        "end_within(0.2)\nsignal.signal(signal.SIGTERM, lambda *_: None)\nprint('ready', flush=True)\n"
        "import ctypes\nctypes.CDLL(None).sleep(600)\nctypes.CDLL(None).sleep(600)"
    )
    hanging = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert hanging.stdout is not None
    assert hanging.stdout.readline() == b"ready\n"
    hanging.terminate()
    assert hanging.wait(60) == 1


def test_workers_end_with_the_first_process_answer_what_is_in_flight_and_leave_nothing(
    changing: Path, temporary: Path
) -> None:
    with served(changing, temporary, SEGUE_WORKERS="2", SEGUE_DEADLINE_S="600") as server:
        everyone = family(server)
        connection = half_sent(server)
        server.process.kill()
        server.process.wait()
        port = int(server.url.rpartition(":")[2])
        eventually(lambda: sum(one.is_running() for one in everyone) == 1)  # The other one had nothing to do.
        with connection:
            connection.sendall(SONG)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: not any(one.is_running() for one in everyone))
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
    assert [*temporary.glob("segue-*")] == []


def test_two_servers_of_one_user_leave_each_others_metrics_alone(changing: Path, temporary: Path) -> None:
    def answered(server: Server) -> str:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return next(line for line in lines if line.startswith('segue_requests_total{path="/v1/classify"'))

    def ask(server: Server, times: int) -> None:
        for _ in range(times):
            httpx.post(f"{server.url}/v1/classify", content=SONG, headers={"content-type": RAW}).raise_for_status()

    with served(changing, temporary) as first:
        ask(first, 3)
        with served(changing, temporary) as second:
            ask(second, 2)
            assert answered(second).endswith(" 2.0")
            assert second.stop() == 0
        ask(first, 1)
        assert answered(first).endswith(" 4.0")
        new = relicense(changing)
        os.kill(first.process.pid, signal.SIGHUP)
        eventually(lambda: httpx.get(f"{first.url}/v1/model").json()["version"] == new)
        assert first.stop() == 0
    assert [*temporary.glob("segue-*")] == []


def test_the_watch_and_the_metrics_survive_strangers_in_the_folder(changing: Path, temporary: Path) -> None:
    with served(changing, temporary) as server:
        (folder,) = temporary.glob("segue-server-*")
        (folder / "stray.metrics").write_bytes(os.urandom(100))
        (folder / "gauge_liveall_1.db").write_bytes(b"")
        new = relicense(changing)
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: httpx.get(f"{server.url}/v1/model").json()["version"] == new)
        assert "segue_unreadable_metric_files 1.0" in httpx.get(f"{server.url}/metrics").text
        shutil.rmtree(folder)
        newer = relicense(changing, "of a third version")
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: httpx.get(f"{server.url}/v1/model").json()["version"] == newer)
        assert server.stop() == 0
