"""The folder of a scoring run: parts that appear whole, and what a run that was stopped needs to go on.

- _run.json: what the answers depend on: bundle, dial, columns, and the files of songs with their fingerprints
- part-00000.parquet, ...: the answers for a range of songs; the schema's metadata says which, and counts them
- rejects/part-00000.parquet: the songs of that range without an answer, and why
- _lock: locked while a run writes here, and says who
"""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segue.atomic import atomic_file
from segue.data.sources.source import readable
from segue.errors import ConfigError, RunError
from segue.serving.batch.scorer import Part, Reject

PLAN = "_run.json"
SUMMARY = "_summary.json"
REJECTS = "rejects.parquet"
NOTE = b"segue.part"
REJECT_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("song_id", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Note:
    """What a finished part says of itself."""

    source: str
    start: int  # Rows of the source ...
    end: int
    threshold_nats: float | None  # None: the bundle's.
    fell_back: int
    counts: tuple[int, ...]  # Songs of each class.
    rejects: dict[str, int]  # Songs without an answer, by reason.


class RunFolder:
    """The folder that a run writes its parts to."""

    def __init__(self, folder: Path) -> None:
        """Write to `folder`, which `open_run` made."""
        self.folder = folder

    def part(self, index: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"part-{index:05d}.parquet"

    def note(self, index: int) -> Note | None:
        """Return what a finished part says of itself; None where it is not finished."""
        try:
            metadata = pq.read_schema(self.part(index)).metadata
        except (OSError, pa.ArrowException):
            return None
        note = json.loads(metadata[NOTE])
        return Note(**note | {"counts": tuple(note["counts"])})

    def write(self, index: int, part: Part, note: Note) -> None:
        """Write a part and its rejects; the part appears last, so that it is finished once it is there.

        Raises:
            RunError: somebody has removed the run meanwhile.
        """
        if not (self.folder / PLAN).is_file():
            raise RunError(f"{self.folder}: was there when the run began, and is gone; repeat the command")
        rejects = self.folder / "rejects" / self.part(index).name
        if part.rejects:
            with atomic_file(rejects) as draft:
                pq.write_table(_reject_table(readable(note.source), part.rejects), draft)
        else:
            rejects.unlink(missing_ok=True)
        metadata = {b"segue.made_by": b"score", NOTE: json.dumps(vars(note), sort_keys=True).encode()}
        with atomic_file(self.part(index)) as draft:
            pq.write_table(part.table.replace_schema_metadata(metadata), draft)

    def table(self, index: int) -> pa.Table:
        """Return the answers of a finished part."""
        return pq.read_table(self.part(index))

    def remove(self) -> None:
        """Remove the run, once its answers are elsewhere."""
        shutil.rmtree(self.folder)

    def rejects(self, parts: int) -> Iterator[pa.Table]:
        """Yield the rejects of the first `parts` parts."""
        for index in range(parts):
            file = self.folder / "rejects" / self.part(index).name
            if file.exists():
                yield pq.read_table(file)


@contextmanager
def open_run(folder: Path, plan: Mapping[str, Any], *, overwrite: bool) -> Iterator[RunFolder]:
    """Begin a run in `folder`, or go on with the one that is there, which nobody else does meanwhile.

    Args:
        folder: made if it is missing.
        plan: everything that the answers depend on, as JSON can hold it.
        overwrite: start anew where another run is there.

    Raises:
        ConfigError: other files are there, another run is under way, or the run that is there was made from something
            else; the message says what has changed.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / PLAN).is_file():
        raise ConfigError(
            f"{folder}: expected nothing there, or a run of `segue score` to go on with; found other files. Choose "
            "another place."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        current = json.loads(json.dumps(plan))
        if (folder / PLAN).is_file():
            changed = _changes(json.loads((folder / PLAN).read_text()), current)
            if changed and not overwrite:
                raise ConfigError(
                    f"{folder}: holds a run that was made from something else: {'; '.join(changed)}. Repeat the "
                    "command that began it, choose another place, or start anew with --overwrite."
                )
            if changed or overwrite:
                _clear(folder)
        for draft in folder.rglob(".*.draft*"):  # Of a run that was killed.
            draft.unlink(missing_ok=True)
        with atomic_file(folder / PLAN) as draft:
            draft.write_text(json.dumps(plan, indent=2) + "\n")
        try:
            yield RunFolder(folder)
        except Exception:
            if not any(folder.glob("part-*.parquet")):  # Nothing to go on with, so it shall not be in the way.
                shutil.rmtree(folder, ignore_errors=True)  # It may be gone.
            raise


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / "_lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "somebody"
            raise ConfigError(
                f"{folder}: another run writes there: {owner}. Wait for it, or choose another place."
            ) from None
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
        )
        file.flush()
        yield
        file.truncate(0)


def _clear(folder: Path) -> None:
    for file in [
        *folder.glob("part-*.parquet"),
        *folder.glob("rejects/part-*.parquet"),
        folder / SUMMARY,
        folder / REJECTS,
    ]:
        file.unlink(missing_ok=True)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which entries of a plan differ."""
    changes = []
    for name in sorted({*before, *now} - {"files"}):
        was, is_ = ({"": one} if not isinstance(one, dict) else one for one in (before.get(name), now.get(name)))
        for part in sorted({*was, *is_}):
            if was.get(part) != is_.get(part):
                changes.append(f"{part or name} was {was.get(part)!r} and is {is_.get(part)!r}")
    old, new = ({one["name"]: one for one in plan.get("files", [])} for plan in (before, now))
    changes += [f"{name} is gone" for name in old if name not in new]
    changes += [f"{name} is new" for name in new if name not in old]
    changes += [f"{name} was changed" for name in new if name in old and old[name] != new[name]]
    return changes


def _reject_table(source: str, rejects: tuple[Reject, ...]) -> pa.Table:
    return pa.Table.from_pylist([{"source": source, **vars(one)} for one in rejects], schema=REJECT_SCHEMA)
