"""Look at this installation: versions, ONNX Runtime and what it can run on, threads, and a bundle if one is given.

Example:
    segue doctor
    segue doctor artifacts/bundle
"""

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segue.command import run
from segue.errors import MissingDependencyError
from segue.machine import processor, usable_cores
from segue.provenance import installed_versions
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.runtime import installed_wheels, onnxruntime


@dataclass(frozen=True)
class Diagnosis:
    """What `segue doctor` found."""

    python: str
    machine: str
    threads: int  # Cores this process may use.
    libraries: dict[str, str]
    providers: tuple[str, ...]  # What ONNX Runtime can run on, best first.
    bundle: str | None
    advice: tuple[str, ...]

    def __str__(self) -> str:
        facts = {
            "python": self.python,
            "machine": self.machine,
            "threads": str(self.threads),
            **self.libraries,
            "providers": ", ".join(self.providers) or "none",
        }
        lines = [f"{name:<16} {value}" for name, value in facts.items()]
        if self.bundle:
            lines.append(f"{'bundle':<16} {self.bundle}")
        return "\n".join([*lines, "", *(self.advice or ("All is well.",))])


def doctor(bundle: Positional[Annotated[Path | None, arg(metavar="BUNDLE")]] = None) -> Diagnosis:
    """Look at this installation.

    Args:
        bundle: A bundle to verify and open.
    """
    wheels = installed_wheels()
    advice = []
    if len(wheels) > 1:
        advice.append(
            f"Both {' and '.join(wheels)} are installed. They own the same import name: the last wins, and removing "
            "either breaks it. Uninstall both, then install one."
        )
    try:
        providers = tuple(onnxruntime().get_available_providers())
    except MissingDependencyError as error:
        providers = ()
        advice.append(str(error))
    if "onnxruntime-gpu" in wheels and "CUDAExecutionProvider" not in providers:
        advice.append("onnxruntime-gpu is installed, but offers no CUDA: the other wheel hides it, or CUDA is missing.")
    return Diagnosis(
        python=platform.python_version(),
        machine=processor(),
        threads=usable_cores(),
        libraries=installed_versions(),
        providers=providers,
        bundle=None if bundle is None else _look_at(bundle),
        advice=tuple(advice),
    )


def _look_at(path: Path) -> str:
    bundle = load_bundle(path)
    open_cascade(bundle)
    manifest = bundle.manifest
    return f"{path}: version {manifest.version}, {len(manifest.classes)} classes, every sha256 right, both models load"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue doctor`."""
    return run(doctor, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
