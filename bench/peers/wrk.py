"""The load generator wrk, a program that has nothing to do with Segue; Debian's package has its name."""

import json
import resource
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segue.errors import MissingDependencyError, ServiceError

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_S = 30  # Of an answer; one that takes longer is an error.


@dataclass(frozen=True)
class WrkRun:
    """What wrk counted."""

    requests: int  # Answered, with any status.
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int  # Answered, but not with a status of 200 to 399.
    broken: int  # Not answered: the connection broke, or no answer came in time.
    cpu_s: float  # Of wrk itself.

    @property
    def requests_per_s(self) -> float:
        """Answers with status 200 to 399 a second."""
        return (self.requests - self.refused) / self.seconds


def write_requests(path: Path, requests: Iterable[bytes]) -> Path:
    """Write whole HTTP requests into a file for `wrk` to go through, and return its path."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))
    return path


def wrk(port: int, requests: Path, *, connections: int, seconds: float) -> WrkRun:
    """Ask for so many seconds over so many connections, each of which waits for its answer."""
    program = shutil.which("wrk")
    if program is None:
        raise MissingDependencyError("wrk is not installed: `apt install wrk`, or from its source")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"]
    words += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(requests)]
    ended = subprocess.run([program, *words], capture_output=True, text=True)
    if ended.returncode:
        raise ServiceError(f"wrk failed: {ended.stderr.strip() or ended.stdout.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return WrkRun(**json.loads(ended.stdout.splitlines()[-1]), cpu_s=cpu_s)
