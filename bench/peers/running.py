"""A peer as a process: started, waited for, stopped with all that it started."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

import segue
from segue.bench.peers.dialects import Dialect, Reply
from segue.bench.peers.processes import MARK, Processes
from segue.bench.peers.registry import Peer
from segue.data.song import Floats
from segue.errors import ServiceError

ROOT = Path(segue.__file__).resolve().parents[1]
START_TIMEOUT_S, STOP_TIMEOUT_S, ANSWER_TIMEOUT_S = 90.0, 10.0, 30.0
LAST_WORDS = 600  # Characters of a log.
OTHERS_VARIABLES = ("SEGUE", "BENTOML", "PROMETHEUS", "RAY", "PYTHON", "VIRTUAL_ENV")


@dataclass(frozen=True)
class RunningPeer:
    """A server that answers."""

    port: int
    processes: Processes
    start_up_s: float  # From its start to its first answer.

    def ask(self, client: httpx.Client, dialect: Dialect, songs: Sequence[Floats]) -> Reply:
        """Return the answer about some songs; status 0 where none came."""
        return _ask(client, self.port, dialect, songs)


def caller() -> httpx.Client:
    """Return a client that uses a connection once, since some servers close theirs after an error."""
    return httpx.Client(timeout=ANSWER_TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0))


@contextmanager
def running(peer: Peer, environments: Path, models: Path, bundle: Path, song: Floats) -> Iterator[RunningPeer]:
    """Run a peer until the block ends; it has answered about `song` by then.

    Args:
        peer: which one.
        environments: the folder of the peers' virtual environments.
        models: the folder with what `PlainCascade` reads.
        bundle: the same cascade as a bundle.
        song: (120, 25), what it is asked about until it answers.

    Raises:
        ServiceError: its environment is not there, or it does not answer; with the end of what it said.
    """
    python = environments / peer.environment / "bin" / "python" if peer.environment else Path(sys.executable)
    if not python.exists():
        raise ServiceError(f"{peer.label}: expected its environment at {python.parents[1]}; `make peers` makes it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = [word.format(port=port, bundle=bundle) for word in peer.command]
    processes = Processes(uuid.uuid4().hex)
    with TemporaryDirectory() as home:
        environment = _environment(python, Path(home)) | dict(peer.settings)
        environment |= {MARK: processes.mark, "PEER_MODELS": str(models), "PEER_PORT": str(port)}
        log = Path(home) / "log"
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, "-m", *words], cwd=home, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            _wait_until_it_answers(peer, process, port, song, log)
            yield RunningPeer(port, processes, time.perf_counter() - started)
        finally:
            process.terminate()
            if not processes.wait(STOP_TIMEOUT_S):
                processes.kill()
                processes.wait(STOP_TIMEOUT_S)
            process.wait()


def _environment(python: Path, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS_VARIABLES)}
    return kept | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
    }


def _wait_until_it_answers(peer: Peer, process: "subprocess.Popen[bytes]", port: int, song: Floats, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with caller() as client:
        while time.monotonic() < deadline and process.poll() is None:
            if _ask(client, port, peer.dialects[0], [song]).status == 200:
                return
            time.sleep(0.05)
    said = " / ".join(log.read_text(errors="replace").split("\n")).strip(" /")
    raise ServiceError(f"{peer.label}: it does not answer; its last words: {said[-LAST_WORDS:]}")


def _ask(client: httpx.Client, port: int, dialect: Dialect, songs: Sequence[Floats]) -> Reply:
    headers, body = dialect.encode(songs)
    try:
        found = client.post(f"http://127.0.0.1:{port}{dialect.path}", content=body, headers=headers)
    except httpx.TransportError:
        return Reply(0, {}, b"")
    return Reply(found.status_code, dict(found.headers), found.content)
