"""The processes of a server, found by a mark in their environment, wherever in the process tree; Linux only."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "PEER_RUN"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Processes:
    """All processes whose environment has `PEER_RUN=mark`."""

    mark: str

    def pids(self) -> Iterator[int]:
        """Yield those that live."""
        wanted = f"{MARK}={self.mark}\0".encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and wanted in _read(folder / "environ") + b"\0":
                yield int(folder.name)

    def cpu_s(self) -> float:
        """Return the processor time they have used, and their ended children."""
        return sum(map(_cpu_s, self.pids()))

    def memory_bytes(self) -> int:
        """Return their memory; a page that several share counts for each in proportion (PSS)."""
        return sum(map(_pss_bytes, self.pids()))

    def kill(self) -> None:
        """End what is left of them."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def wait(self, seconds: float) -> bool:
        """Wait until all have ended; return whether they did."""
        deadline = time.monotonic() + seconds
        while any(self.pids()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def machine_busy_s() -> float:
    """Return the processor time that this machine has spent on anything, all cores together."""
    user, nice, system, _, _, irq, soft, stolen = map(int, _read(Path("/proc/stat")).split()[1:9])
    return (user + nice + system + irq + soft + stolen) / TICKS_PER_S


def _cpu_s(pid: int) -> float:
    after_name = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return sum(map(int, after_name[11:15])) / TICKS_PER_S  # utime, stime, cutime, cstime


def _pss_bytes(pid: int) -> int:
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))


def _read(file: Path) -> bytes:
    """Return what a file says of a process; nothing if that has just ended."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
