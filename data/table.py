"""The canonical song table: Arrow IPC, whose segments stay on the disk (the fast path), or Parquet.

Columns: `song_id: string`, `segments: list<fixed_size_list<float32, 25>>`, `label: string`, `group: string` (the
artist), `second_label: string`, `split: string` (train, validation, calibration or test, where somebody has said so);
the last four may be missing or null. A table of windows may store `segments: fixed_size_list<float32, 3000>` instead.
The schema's metadata says the units (`raw` or `standardised`), the features and, where the source had one, the order of
the classes.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segue.atomic import atomic_file
from segue.data.columns import SEGMENTS
from segue.data.song import N_FEATURES, Features, Floats, Ints, Songs, Units
from segue.data.table_file import TableFiles
from segue.errors import LabelError, SongError
from segue.places import MADE_BY

NO_LABEL = -1
ARROW_MAGIC_BYTES = 8  # An Arrow IPC file is these, a stream of batches, and a footer.

_COLUMNS = pa.schema(
    [
        pa.field("song_id", pa.string(), nullable=False),
        pa.field("segments", SEGMENTS, nullable=False),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
        pa.field("second_label", pa.string()),
        pa.field("split", pa.string()),
    ]
)


@dataclass(frozen=True)
class SongBatch:
    """Some songs in memory, with what is known of them."""

    song_ids: list[str]
    songs: Songs
    labels: list[str | None]
    groups: list[str | None]
    second_labels: list[str | None] = field(default_factory=list)  # Empty where no song has one.
    splits: list[str | None] = field(default_factory=list)  # Likewise.

    def __len__(self) -> int:
        return len(self.song_ids)

    def take(self, rows: Sequence[int] | Ints) -> "SongBatch":
        """Return the songs of the given rows, in that order."""
        return SongBatch(
            song_ids=[self.song_ids[row] for row in rows],
            songs=self.songs.take(np.asarray(rows, dtype=np.int64)),
            labels=[self.labels[row] for row in rows],
            groups=[self.groups[row] for row in rows],
            second_labels=[self.second_labels[row] for row in rows] if self.second_labels else [],
            splits=[self.splits[row] for row in rows] if self.splits else [],
        )


class SongWriter:
    """Appends batches of songs to a table; see `write_table`."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        """Write to `sink`, an Arrow or Parquet writer of that schema."""
        self._sink = sink
        self._schema = schema

    def write(self, batch: SongBatch) -> None:
        """Append `batch`, copying nothing but the labels and ids."""
        flat = pa.array(np.ascontiguousarray(batch.songs.segments).reshape(-1))
        offsets = batch.songs.offsets.astype(np.int32)
        segments = pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, N_FEATURES))
        columns = [
            pa.array(batch.song_ids, pa.string()),
            segments,
            pa.array(batch.labels, pa.string()),
            pa.array(batch.groups, pa.string()),
            pa.array(batch.second_labels or [None] * len(batch), pa.string()),
            pa.array(batch.splits or [None] * len(batch), pa.string()),
        ]
        self._sink.write_batch(pa.record_batch(columns, schema=self._schema))

    def copy(self, batch: pa.RecordBatch) -> None:
        """Append a batch of another table with the same schema."""
        self._sink.write_batch(batch)


def table_schema(units: Units, classes: Sequence[str], made_by: str = "", features: Features = "echonest") -> pa.Schema:
    """Return the schema of a new song table; `made_by` is the verb that writes it, which may replace it later."""
    noted = {"segue.units": units, "segue.features": features, "segue.classes": json.dumps(list(classes))}
    return _COLUMNS.with_metadata(noted | ({MADE_BY: made_by} if made_by else {}))


@contextmanager
def write_table(
    path: Path, units: Units, classes: Sequence[str] = (), made_by: str = "", features: Features = "echonest"
) -> Iterator[SongWriter]:
    """Open a writer for a new table at `path`, Parquet if it ends in `.parquet`, else Arrow IPC.

    The table appears when the block ends well, and not at all otherwise. Memory stays at one batch whatever the size.
    """
    schema = table_schema(units, classes, made_by, features)
    with atomic_file(path) as draft:
        if path.suffix == ".parquet":
            with draft.open("wb") as file, pq.ParquetWriter(file, schema) as parquet:
                yield SongWriter(parquet, schema)
        else:
            with pa.OSFile(os.fsencode(draft), "wb") as file, pa.ipc.new_file(file, schema) as arrow:
                yield SongWriter(arrow, schema)


class SongTable:
    """A song table, open for reading: segments stay on disk (Arrow) until they are asked for.

    Attributes:
        path: the file.
        units: `raw` or `standardised`.
        features: which analyser made the segments; `echonest` where the file does not say.
        classes: the class names, in the order that `labels` counts them.
        song_ids: (n_songs,) the ids.
        labels: (n_songs,) index into `classes`, -1 where there is no label; an empty or blank label is none.
        groups: (n_songs,) the artist, None where unknown or blank.
        second_labels: (n_songs,) the second genre some songs have; kept, but not learnt from.
        splits: (n_songs,) what the song is for, by whoever made the table; None where nobody has said so.
    """

    def __init__(self, path: Path, units: Units | None = None, content: pa.Table | None = None) -> None:
        """Open the table at `path`, a file or a folder of them, or `content` in its place.

        `units` stands in where a file does not say.

        Raises:
            SongError: there is no table, or a file of it is damaged or holds what no song is.
            LabelError: a label is not among the table's classes.
        """
        self.path = path
        files = TableFiles(path, units, content)
        self._files = files.files
        self.units, self.features = files.units, files.features
        self._parts = list(files.parts())
        for part in self._parts:
            for row, fault in part.faults.items():
                raise SongError(f"{path}, song {part.texts['song_id'][row].as_py()!r}: {fault}")
        self.song_ids: list[str] = [name for part in self._parts for name in part.texts["song_id"].to_pylist()]
        names, self.groups, self.second_labels, self.splits = (
            [text for part in self._parts for text in part.labels(name)]
            for name in ("label", "group", "second_label", "split")
        )
        self.classes = files.classes or tuple(sorted({name for name in names if name is not None}))
        self.labels = self._indices(names)
        self._first_rows = [0, *accumulate(map(len, self._parts))]

    def __len__(self) -> int:
        return len(self.song_ids)

    @cached_property
    def lengths(self) -> Ints:
        """The number of segments of each song, (n_songs,)."""
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in self._parts)])

    def segments(self, row: int, start: int = 0, count: int | None = None) -> Floats:
        """Return the segments of one song, (T, 25), or `count` of them from `start` on."""
        at = bisect_right(self._first_rows, row) - 1
        part, here = self._parts[at], row - self._first_rows[at]
        first, end = part.offsets[here : here + 2].tolist()
        return part.read(first + start, end if count is None else min(end, first + start + count))

    def songs(self, rows: Sequence[int] | Ints) -> Songs:
        """Return the checked segments of several songs; a `SongError` names the first that breaks the contract.

        Rows that follow each other in one part of the file are read at once, or are a view where they are in memory.
        """
        songs = self._unchecked(rows)
        for row, fault in songs.faults(self.units).items():
            raise SongError(f"{self.path}, {fault.of_song(self.song_ids[rows[row]])}")
        return songs

    def batch(self, rows: Sequence[int] | Ints) -> SongBatch:
        """Return several songs as a `SongBatch`, unchecked."""
        return SongBatch(
            song_ids=[self.song_ids[row] for row in rows],
            songs=self._unchecked(rows),
            labels=[self.classes[self.labels[row]] if self.labels[row] != NO_LABEL else None for row in rows],
            groups=[self.groups[row] for row in rows],
            second_labels=[self.second_labels[row] for row in rows],
            splits=[self.splits[row] for row in rows],
        )

    def spans(self, most: int) -> Iterator[range]:
        """Yield all rows in order, at most `most` at a time, so that few spans reach over two parts of the file."""
        start = 0
        while start < len(self):
            end = min(start + most, len(self))
            boundary = self._first_rows[bisect_right(self._first_rows, end) - 1]
            if boundary - start > most // 2:
                end = boundary
            yield range(start, end)
            start = end

    def _unchecked(self, rows: Sequence[int] | Ints) -> Songs:
        """Return several songs, those that follow each other in one part in one piece."""
        if not len(rows):
            return Songs.of([])
        order = np.asarray(rows, dtype=np.int64)
        at = np.searchsorted(self._first_rows, order, side="right") - 1
        breaks = np.flatnonzero((np.diff(order) != 1) | (np.diff(at) != 0)) + 1
        first = order - np.asarray(self._first_rows)[at]  # In its part.
        if not len(breaks):
            part = self._parts[int(at[0])]
            return part.songs(int(first[0]), int(first[-1]) + 1)
        lengths = self.lengths[order]
        ends = np.cumsum(lengths)
        segments = np.empty((ends[-1], N_FEATURES), np.float32)
        for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(order)], strict=True):
            part = self._parts[int(at[start])]
            segment = int(part.offsets[first[start]])
            into = segments[ends[start] - lengths[start] : ends[end - 1]]
            part.read(segment, segment + len(into), into)
        return Songs(segments, lengths)

    def labels_among(self, classes: Sequence[str]) -> Ints:
        """Return `labels` counted in the order of `classes`; a label outside them is a `LabelError`."""
        missing = sorted({self.classes[label] for label in set(self.labels.tolist()) - {NO_LABEL}} - set(classes))
        if missing:
            raise LabelError(
                f"{self.path}: labels {', '.join(missing)} are not among the expected classes: {', '.join(classes)}"
            )
        order = np.array([classes.index(name) if name in classes else NO_LABEL for name in self.classes] + [NO_LABEL])
        return order[self.labels]

    def fingerprint(self) -> str:
        """Return the sha256 of the file, or of those of all files: which data a run was made from."""
        digests = []
        for path in self._files:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def _indices(self, names: list[str | None]) -> Ints:
        index = {name: i for i, name in enumerate(self.classes)} | {None: NO_LABEL}
        unknown = sorted({str(name) for name in names if name not in index})
        if unknown:
            raise LabelError(
                f"{self.path}: labels {', '.join(unknown)} are not among the table's classes: {', '.join(self.classes)}"
            )
        return np.array([index[name] for name in names], dtype=np.int64)
