"""The machine this process runs on."""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPEED_FLAGS = re.compile(r"avx\w*|fma|f16c|amx\w*|asimd|sve\w*")
CPU_GROUPS = "cpu", "cpu,cpuacct"  # Where version 1 of control groups mounts its controllers.


@dataclass(frozen=True)
class Machine:
    """What speed depends on."""

    processor: str
    flags: tuple[str, ...]  # Of the instruction sets that matrix products use.
    cores: int  # That this process may run on.
    limit_cores: float | None  # Of processor time, by a control group; None: no limit.
    memory_bytes: int
    limit_bytes: int | None  # Of memory, by a control group.
    governor: str | None  # What sets the clock: performance, powersave; None where the system does not say.
    system: str

    def __str__(self) -> str:
        parts = [
            self.processor,
            f"{self.cores} usable cores",
            f"limited to {self.limit_cores:g} cores" if self.limit_cores else "",
            f"{self.memory_bytes / 2**30:.0f} GiB of memory" if self.memory_bytes else "",
            f"limited to {self.limit_bytes / 2**30:.1f} GiB" if self.limit_bytes else "",
            " ".join(self.flags),
            f"governor {self.governor}" if self.governor else "",
            self.system,
        ]
        return ", ".join(part for part in parts if part)


def this_machine() -> Machine:
    """Look at this machine; what the system does not tell is left empty."""
    found = _cpuinfo("flags") or _cpuinfo("Features")  # x86 and arm64
    flags = found[0].split() if found else []
    limit = _least(_cpu_limits())
    limit_bytes = _least(_memory_limits())
    memory = _pages() * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return Machine(
        processor=processor(),
        flags=tuple(flag for flag in flags if SPEED_FLAGS.fullmatch(flag)),
        cores=usable_cores(),
        limit_cores=limit,
        memory_bytes=memory,
        limit_bytes=int(limit_bytes) if limit_bytes is not None and limit_bytes < memory else None,
        governor=_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the number and name of the processors."""
    names = _cpuinfo("model name")
    return f"{len(names)} x {names[0]}" if names else platform.processor() or "unknown processor"


def _cpuinfo(key: str) -> list[str]:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key]


def _pages() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def _cpu_limits() -> Iterator[float]:
    """Yield the limits in cores of this process's control groups, version 2 and version 1."""
    for folder in _groups(""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit():
            yield int(quota) / int(period)
    for controller in CPU_GROUPS:
        for folder in _groups(controller):
            v1_quota, v1_period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            if v1_quota.isdigit():  # -1: none.
                yield int(v1_quota) / int(v1_period)


def _memory_limits() -> Iterator[float]:
    for controller, file in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _groups(controller):
            limit = _text(folder / file)
            if limit.isdigit():
                yield int(limit)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those around it; "" is version 2."""
    root = Path("/sys/fs/cgroup", controller)
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        if names == controller or (controller and controller in names.split(",")):
            inner = Path(path.lstrip("/"))
            yield from (root / folder for folder in (inner, *inner.parents))


def _least(limits: Iterator[float]) -> float | None:
    return min(limits, default=None)


def _text(file: Path) -> str:
    """Return the content of a small file; "" where it is not there."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def give_memory_back() -> None:
    """Let the system have the memory that this process has freed, where the C library can: some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Of glibc.
    if trim:
        trim(0)
