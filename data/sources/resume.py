"""Song tables whose writing can be gone on with: after a kill, the next run starts where this one was.

Beside the table that is being written lie a draft, and a journal that says how much of the draft counts and what of the
sources it covers. The journal is replaced in one step, about once a second; what the draft holds beyond it is dropped.
A draft in Parquet cannot be read before it is finished, so only Arrow tables are gone on with.
"""

import glob
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from segue.atomic import file_place, only_writer, publish
from segue.data.song import Features, Units
from segue.data.table import ARROW_MAGIC_BYTES, SongBatch, SongWriter, table_schema

JOURNAL_EVERY_S = 1.0


@dataclass(frozen=True)
class Journal:
    """How far a table has come."""

    key: str  # What the table is made from; another key means another table.
    draft: str  # Name of the draft file.
    batches: int  # Record batches of the draft that count.
    state: dict[str, Any]  # What the caller wants back.


class ResumableTable:
    """A table that is being written; see `resumable_table`.

    Attributes:
        state: what the caller last noted in an earlier run that was killed; None in a first run.
        song_ids: the songs which that run had written.
    """

    def __init__(self, path: Path, draft: Path, writer: SongWriter, key: str) -> None:
        """Write to `draft`, which is to become `path`."""
        self.state: dict[str, Any] | None = None
        self.song_ids: set[str] = set()
        self._path = path
        self._draft = draft
        self._writer = writer
        self._key = key
        self._batches = 0
        self._noted_at = time.monotonic()

    def write(self, batch: SongBatch) -> None:
        """Append `batch`, unless it is empty."""
        if len(batch):
            self._writer.write(batch)
            self._batches += 1

    def note(self, state: dict[str, Any]) -> None:
        """Remember that everything up to `state` is written, if the last note is old enough."""
        if time.monotonic() - self._noted_at < JOURNAL_EVERY_S:
            return
        next_journal = _next_journal(self._path)
        next_journal.write_text(json.dumps(asdict(Journal(self._key, self._draft.name, self._batches, state))))
        publish(next_journal, _journal(self._path))
        for other in _drafts(self._path):
            if other != self._draft:
                other.unlink()
        self._noted_at = time.monotonic()

    def take_over(self, journal: Journal) -> None:
        """Copy what an earlier run had written; a draft that cannot be read is not used."""
        old = self._path.with_name(journal.draft)
        with suppress(OSError, pa.ArrowInvalid), pa.memory_map(os.fsencode(old)) as file:
            file.seek(ARROW_MAGIC_BYTES)
            reader = pa.ipc.open_stream(file)
            batches = [reader.read_next_batch() for _ in range(journal.batches)]
            for batch in batches:
                self._writer.copy(batch)
                self.song_ids.update(batch["song_id"].to_pylist())
            self._batches = journal.batches
            self.state = journal.state


@contextmanager
def resumable_table(
    path: Path,
    units: Units,
    classes: Sequence[str],
    key: str,
    made_by: str = "",
    features: Features = "echonest",
) -> Iterator[ResumableTable]:
    """Open the Arrow table `path` for writing, with what an earlier run with the same `key` had written in it already.

    The table appears when the block ends well. When it ends in an error that is not an interruption, the draft goes.

    Raises:
        ConfigError: `path` cannot be a file, another process is writing it, or the disk is full.
    """
    path = file_place(path)
    with only_writer(path), _resumed(path, table_schema(units, classes, made_by, features), key) as table:
        yield table


@contextmanager
def _resumed(path: Path, schema: pa.Schema, key: str) -> Iterator[ResumableTable]:
    journal = _read(_journal(path), key)
    taken = {draft.name for draft in _drafts(path)}
    names = (f".{path.name}.{number}.partial" for number in count())
    draft = path.with_name(next(name for name in names if name not in taken))
    try:
        with pa.OSFile(os.fsencode(draft), "wb") as file, pa.ipc.new_file(file, schema) as sink:
            table = ResumableTable(path, draft, SongWriter(sink, schema), key)
            if journal:
                table.take_over(journal)
            yield table
        publish(draft, path)
    except BaseException as error:
        if isinstance(error, Exception) or not _journal(path).exists():
            clear(path)
        raise
    clear(path)


def clear(path: Path) -> None:
    """Remove what killed runs left of the table `path`, which nobody writes now."""
    for file in (*_drafts(path), _next_journal(path), _journal(path)):
        file.unlink(missing_ok=True)


def _drafts(path: Path) -> list[Path]:
    start, end = f".{path.name}.", ".partial"
    found = path.parent.glob(f"{glob.escape(start)}*{end}")
    return [draft for draft in found if draft.name[len(start) : -len(end)].isdigit()]


def _journal(path: Path) -> Path:
    return path.with_name(f".{path.name}.journal")


def _next_journal(path: Path) -> Path:
    return path.with_name(f".{path.name}.journal.next")


def _read(journal: Path, key: str) -> Journal | None:
    try:
        found = Journal(**json.loads(journal.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.key == key else None
