"""Stages: work that is done once, and again only when something about it changed.

A stage turns settings and inputs into one output, a file or a folder. It leaves a note of all three; a stage whose
note still holds is skipped. So a run that was stopped resumes where it was, and a change runs only what depends on it.

    stages = Stages(workspace / "stages")
    stages.run("teacher", lambda: train(songs, teacher), settings=config, inputs=[songs], output=teacher)

A cell of a study has no output but its figures; they are kept in the note itself, as JSON:

    figures = stages.result("student-64", lambda: measure(bundle), settings=cell, inputs=[bundle])

Work that resumes *inside* a stage, such as a table that is half written, names its draft by `key`: a draft with another
key was made from something else and must not be resumed.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segue.atomic import atomic_file
from segue.command import to_json

log = logging.getLogger(__name__)

By = Literal["content", "stat"]


@dataclass
class Stages:
    """Stages that run one after the other; the names of those that ran, and of those that were skipped."""

    notes: Path  # Folder with one note a stage.
    by: By = "content"  # How inputs are told apart; see `fingerprint`. Outputs are always told by content.
    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def run(
        self, name: str, make: Callable[[], object], *, settings: Any, inputs: Sequence[Path] = (), output: Path
    ) -> None:
        """Run `make`, which writes `output` whole or not at all, unless the note of stage `name` still holds.

        Args:
            name: of the stage, and of its note.
            make: does the work; what it returns is logged.
            settings: a dataclass, or what JSON can hold: everything that decides on the output besides the inputs.
            inputs: files and folders that `make` reads.
            output: the file or folder that `make` writes.
        """
        before = _made_from(settings, inputs, self.by)
        if output.exists() and self._note(name) == before | {"output": fingerprint(output)}:
            self._skip(name)
            return
        self._make(name, make)
        self._keep(name, before | {"output": fingerprint(output)})

    def result(self, name: str, make: Callable[[], object], *, settings: Any, inputs: Sequence[Path] = ()) -> Any:
        """Return what `make` returns, as JSON gives it back; from the note of stage `name`, if that still holds."""
        kept = self.found(name, settings=settings, inputs=inputs)
        if kept is not None:
            self._skip(name)
            return kept
        result = _plain(self._make(name, make))
        self._keep(name, _made_from(settings, inputs, self.by) | {"result": result})
        return result

    def found(self, name: str, *, settings: Any, inputs: Sequence[Path] = ()) -> Any:
        """Return the result in the note of stage `name`, if that still holds; else None."""
        note = self._note(name)
        if isinstance(note, dict) and note.get("result") is not None:
            kept = note["result"]
            return kept if note == _made_from(settings, inputs, self.by) | {"result": kept} else None
        return None

    def _make(self, name: str, make: Callable[[], object]) -> object:
        log.info("%-8s ...", name)
        started = time.perf_counter()
        made = make()
        log.info("%s\n%-8s done in %.0f s", made, name, time.perf_counter() - started)
        return made

    def _skip(self, name: str) -> None:
        log.info("%-8s unchanged", name)
        self.skipped.append(name)

    def _keep(self, name: str, note: dict[str, Any]) -> None:
        with atomic_file(self.notes / f"{name}.json") as draft:
            draft.write_text(json.dumps(note, indent=2), encoding="utf-8")
        self.ran.append(name)

    def _note(self, name: str) -> object:
        try:
            return json.loads((self.notes / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def key(settings: Any, inputs: Sequence[Path] = (), by: By = "content") -> str:
    """Return one sha256 for what something is made from: the same settings and inputs give the same key."""
    return hashlib.sha256(json.dumps(_made_from(settings, inputs, by), sort_keys=True).encode()).hexdigest()


def fingerprint(path: Path, by: By = "content") -> str:
    """Return a sha256 over a file, or over the names and files of a folder; where nothing is, one of nothing.

    Args:
        path: the file or folder.
        by: `content` reads every byte. `stat` takes size and time of the last change in their place: for what is too
            large to read twice, and changes only by being written anew.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode(errors="surrogateescape"))
            if by == "stat":
                found = file.stat()
                digest.update(f"\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
                continue
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _made_from(settings: Any, inputs: Sequence[Path], by: By) -> dict[str, Any]:
    return {"settings": _plain(settings), "inputs": {str(path): fingerprint(path, by) for path in inputs}}


def _plain(value: Any) -> Any:
    return json.loads(to_json(value))
