"""The service as a process of its own, to measure and to attack."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from segue.errors import ServiceError

ADMIN = {"authorization": "Bearer root"}  # The header of who may reload.
START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 60.0


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: "subprocess.Popen[bytes]"
    port: int

    def resident_bytes(self, pid: int | None = None) -> int:
        """Return the memory that the server's processes, or one of them, hold in pages of their own; Linux only."""
        return sum(map(_anonymous_bytes, _family(self.process.pid) if pid is None else [pid]))

    def workers(self) -> list[int]:
        """Return the processes that answer; Linux only."""
        return [pid for pid in _family(self.process.pid) if b"worker.service" in _read(f"/proc/{pid}/cmdline")]

    def descriptors(self, pid: int) -> int:
        """Return how many files and connections a process has open; Linux only."""
        return len([*Path(f"/proc/{pid}/fd").iterdir()])


@contextmanager
def serving(bundle: Path, settings: Mapping[str, str] | None = None, app: str | None = None) -> Iterator[Server]:
    """Run the service of a bundle until the block ends; it is ready by then.

    It has its default settings but for `settings`, by their environment variables, and an admin. With `app`, a factory
    as uvicorn names it, that application runs behind uvicorn instead.
    """
    port = _free_port()
    words = ("segue", "serve", str(bundle)) if app is None else ("uvicorn", app, "--factory", "--no-access-log")
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = _environment(bundle, Path(folder)) | {"SEGUE_TOKENS": "admin=root"} | dict(settings or {})
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *words, "--host", "127.0.0.1", "--port", str(port)],
                env=environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_until_ready(process, port, log)
            yield Server(process, port)
        finally:
            _stop(process)


def _environment(bundle: Path, home: Path) -> dict[str, str]:
    """Return this process's environment without what would set a server, and with its bundle."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BENTOML", "PROMETHEUS", "SEGUE"))
    }
    return kept | {"SEGUE_BUNDLE": str(bundle.resolve()), "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise ServiceError(f"the server did not become ready; it says:\n{log.read_text()}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # It has a session, and so a group, of its own.
        process.wait()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(children).split():
            yield from _family(int(child))


def _read(file: str | Path) -> bytes:
    """Return the content of a file about a process; nothing if that has just ended."""
    try:
        return Path(file).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _anonymous_bytes(pid: int) -> int:
    lines = _read(f"/proc/{pid}/status").decode().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
