"""The machine is described as the system describes it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from segue import machine
from segue.machine import this_machine


def test_this_machine_is_described() -> None:
    found = this_machine()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpuinfo = Path("/proc/cpuinfo").read_text().split()
    assert all(flag in cpuinfo for flag in found.flags)
    assert found.processor in str(found)


@pytest.mark.parametrize(
    ("group", "files", "limit_cores", "limit_bytes"),
    [
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000", "memory.max": "4096"}, 1.5, 4096),
        (
            "4:memory:/a\n3:cpu,cpuacct:/a",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
             "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
             "memory/a/memory.limit_in_bytes": "8192", "memory/memory.limit_in_bytes": "9223372036854771712"},
            0.5, 8192,
        ),
        ("0::/", {"cpu.max": "max 100000"}, None, None),
    ],
)  # fmt: skip
def test_the_narrowest_limit_of_the_control_groups_counts(
    monkeypatch: pytest.MonkeyPatch, group: str, files: dict[str, str], limit_cores: float, limit_bytes: int
) -> None:
    system = {"/proc/self/cgroup": group} | {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}
    monkeypatch.setattr(machine, "_text", lambda file: system.get(str(file), ""))
    found = this_machine()
    assert (found.limit_cores, found.limit_bytes) == (limit_cores, limit_bytes)


FREED_BETWEEN_WHAT_IS_KEPT = """
from pathlib import Path
from segue.machine import give_memory_back

def held():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("RssAnon"))

blocks = [bytes(2000) for _ in range(50_000)]
kept = blocks[::1000]
del blocks
before = held()
give_memory_back()
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back when it is asked")
def test_what_is_freed_goes_back_to_the_system_even_between_what_is_kept() -> None:
    found = subprocess.run([sys.executable, "-c", FREED_BETWEEN_WHAT_IS_KEPT], capture_output=True, check=True)
    assert int(found.stdout) > 80_000  # Of 100,000 kB.
