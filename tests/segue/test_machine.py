"""The machine is described as the system describes it."""

import os
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
