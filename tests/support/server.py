"""A real server in a process of its own, for the tests that need one."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def environment(home: Path) -> dict[str, str]:
    """Return this process's environment without its BentoML settings, and with a home for BentoML and `uv` on PATH.

    One worker answers, unless a test says how many.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BENTOML", "PROMETHEUS", "SEGUE"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "PATH": path,
        "SEGUE_WORKERS": "1",
    }


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def classify(self, songs: list[dict[str, Any]], **settings: float) -> dict[str, Any]:
        body = json.dumps({"songs": songs, **settings}).encode()
        request = urllib.request.Request(f"{self.url}/v1/classify", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def serving(
    words: Sequence[str], port: int, cwd: Path, env: dict[str, str], host: str = "127.0.0.1"
) -> Iterator[Server]:
    """Run `python -m` with `words` in `cwd` until the block ends, and yield it once it is ready."""
    log = cwd / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=cwd, env=env, stdout=output, stderr=output)
    try:
        server = Server(process, f"http://{host}:{port}", log)
        _wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the server did not become ready:\n{server.log.read_text()}")
