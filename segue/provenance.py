"""Where a result comes from: the commit, the libraries, the machine, the time."""

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segue.machine import processor

LIBRARIES = ("numpy", "pyarrow", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "scikit-learn", "bentoml")


@dataclass(frozen=True)
class Provenance:
    """What made a result."""

    commit: str | None  # None outside a git checkout; ends in "+" where files differ from the commit.
    libraries: dict[str, str]
    python: str
    machine: str
    time: str  # ISO 8601, UTC


def provenance() -> Provenance:
    """Describe this checkout, this machine and this moment."""
    return Provenance(
        commit=commit(),
        libraries=installed_versions(),
        python=platform.python_version(),
        machine=f"{processor()}, {platform.system()} {platform.machine()}",
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def installed_versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the installed version of each of the named libraries that is there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Return the commit of this checkout; None where there is no checkout."""
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():  # Installed: a repository further up would be somebody else's.
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
