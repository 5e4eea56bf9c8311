"""The canonical song table: Arrow IPC, memory-mapped (the fast path), or Parquet.

Columns: `song_id: string`, `segments: list<fixed_size_list<float32, 25>>`, `label: string`, `group: string` (the
artist), `second_label: string`; the last three may be missing or null. A table of windows may store
`segments: fixed_size_list<float32, 3000>` instead. The schema's metadata says the units (`raw` or `standardised`) and,
where the source had one, the order of the classes.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segue.atomic import atomic_file
from segue.data.columns import FLAT_WINDOW, SEGMENTS
from segue.data.labels import label_of
from segue.data.song import N_FEATURES, WINDOW, Features, Floats, Ints, Songs, Units
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
    """

    def __init__(self, path: Path, units: Units | None = None, content: pa.Table | None = None) -> None:
        """Open the table at `path`; `units` stands in where the file does not say, `content` for what it holds."""
        self.path = path
        table = _checked(path, _read(path) if content is None else content)
        metadata = table.schema.metadata or {}
        self.units = _units(path, metadata, units)
        self.features = _features(path, metadata)
        self.song_ids: list[str] = table["song_id"].to_pylist()
        names, self.groups, self.second_labels = (
            [label_of(text) for text in _texts(table, name)] for name in ("label", "group", "second_label")
        )
        listed = dict.fromkeys(map(label_of, json.loads(metadata.get(b"segue.classes", b"[]"))))
        named = [name for name in listed if name is not None]
        self.classes: tuple[str, ...] = tuple(named or sorted({name for name in names if name is not None}))
        self.labels = self._indices(names)
        chunks = [_segments(chunk) for chunk in table["segments"].chunks]
        self._flats = [flat for flat, _ in chunks]
        self._offsets = [offsets for _, offsets in chunks]
        self._first_rows = [0, *accumulate(len(offsets) - 1 for offsets in self._offsets)]

    def __len__(self) -> int:
        return len(self.song_ids)

    @property
    def lengths(self) -> Ints:
        """The number of segments of each song, (n_songs,)."""
        return np.concatenate([np.zeros(0, np.int64), *map(np.diff, self._offsets)])

    def segments(self, row: int) -> Floats:
        """Return the segments of one song, (T, 25), a view of the file."""
        chunk = bisect_right(self._first_rows, row) - 1
        at = row - self._first_rows[chunk]
        start, end = self._offsets[chunk][at : at + 2]
        return self._flats[chunk][start:end]

    def songs(self, rows: Sequence[int] | Ints) -> Songs:
        """Return the checked segments of several songs; a `SongError` names the first that breaks the contract.

        Rows that follow each other in one chunk of the file are not copied.
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
        )

    def spans(self, most: int) -> Iterator[range]:
        """Yield all rows in order, at most `most` at a time, so that few spans reach over two chunks of the file."""
        start = 0
        while start < len(self):
            end = min(start + most, len(self))
            boundary = self._first_rows[bisect_right(self._first_rows, end) - 1]
            if boundary - start > most // 2:
                end = boundary
            yield range(start, end)
            start = end

    def _unchecked(self, rows: Sequence[int] | Ints) -> Songs:
        """Return several songs, those that follow each other in one chunk as one view."""
        if not len(rows):
            return Songs.of([])
        order = np.asarray(rows, dtype=np.int64)
        chunks = np.searchsorted(self._first_rows, order, side="right") - 1
        breaks = np.flatnonzero((np.diff(order) != 1) | (np.diff(chunks) != 0)) + 1
        parts = []
        for first, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(order)], strict=True):
            chunk = chunks[first]
            at = order[first] - self._first_rows[chunk]
            offsets = self._offsets[chunk][at : at + end - first + 1]
            parts.append(Songs(self._flats[chunk][offsets[0] : offsets[-1]], np.diff(offsets)))
        return Songs.concat(parts)

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
        """Return the sha256 of the file: which data a run was made from."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _indices(self, names: list[str | None]) -> Ints:
        index = {name: i for i, name in enumerate(self.classes)} | {None: NO_LABEL}
        unknown = sorted({str(name) for name in names if name not in index})
        if unknown:
            raise LabelError(
                f"{self.path}: labels {', '.join(unknown)} are not among the table's classes: {', '.join(self.classes)}"
            )
        return np.array([index[name] for name in names], dtype=np.int64)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise SongError(f"{path}: expected a song table, found no such file. `segue songs` or `segue synth` makes one.")
    with path.open("rb") as file:
        head = file.read(8)
    try:
        if head.startswith(b"ARROW1"):
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if head.startswith(b"PAR1"):
            return pq.read_table(path)
    except pa.ArrowException as error:
        raise SongError(f"{path}: the file cannot be read, it may be cut short: {error}") from None
    raise SongError(
        f"{path}: expected an Arrow IPC or Parquet file, found "
        f"{f'one that starts with {head!r}' if head else 'an empty file'}. "
        "`segue songs` converts other sources."
    )


def _checked(path: Path, table: pa.Table) -> pa.Table:
    """Return a table whose columns are what a song table's must be, its segments in a canonical type."""
    for name in ("song_id", "segments"):
        if name not in table.column_names:
            raise SongError(f"{path}: expected a column {name!r}, found {', '.join(table.column_names)}")
        nulls = sum(map(_nulls, table[name].chunks))
        if nulls:
            raise SongError(f"{path}, column {name!r}: expected no nulls, found {nulls}")
    for name in {"song_id", "label", "group", "second_label"} & set(table.column_names):
        if not _is_text(table[name].type):
            raise SongError(f"{path}, column {name!r}: expected type string, found {table[name].type}")
    return table.set_column(table.column_names.index("segments"), "segments", _canonical(path, table["segments"]))


def _canonical(path: Path, segments: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of nested lists of numbers in one of the two canonical types; those are not copied."""
    found = segments.type
    if found.equals(SEGMENTS) or found.equals(FLAT_WINDOW):
        return segments
    try:
        return segments.cast(SEGMENTS if pa.types.is_nested(found.value_type) else FLAT_WINDOW)
    except (pa.ArrowException, AttributeError):
        raise SongError(
            f"{path}, column 'segments': expected type {SEGMENTS} or {FLAT_WINDOW}, or lists of {N_FEATURES} or of "
            f"{WINDOW * N_FEATURES} numbers, found {found} with other lengths or values"
        ) from None


def _nulls(array: pa.Array) -> int:
    """Return how many nulls there are at the outermost level of nested lists that has any."""
    return array.null_count or (_nulls(array.values) if pa.types.is_nested(array.type) else 0)


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type reads as strings, nulls allowed."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _texts(table: pa.Table, name: str) -> list[str | None]:
    """Return a column of text; all None where there is no such column."""
    texts: list[str | None] = table[name].to_pylist() if name in table.column_names else [None] * table.num_rows
    return texts


def _units(path: Path, metadata: dict[bytes, bytes], fallback: Units | None) -> Units:
    stated = metadata.get(b"segue.units", b"").decode() or fallback
    for units in get_args(Units):
        if stated == units:
            found: Units = units
            return found
    raise SongError(
        f"{path}: expected the metadata 'segue.units' to say raw or standardised, found {stated!r}. "
        "`segue songs TABLE OUT --units raw` writes it."
    )


def _features(path: Path, metadata: dict[bytes, bytes]) -> Features:
    stated = metadata.get(b"segue.features", b"echonest").decode(errors="replace")
    for features in get_args(Features):
        if stated == features:
            found: Features = features
            return found
    raise SongError(
        f"{path}: expected the metadata 'segue.features' to say {' or '.join(get_args(Features))}, "
        f"found {stated!r:.80}. A newer Segue may have written it; `segue songs` makes a table of the files anew."
    )


def _segments(chunk: pa.Array) -> tuple[Floats, Ints]:
    """Return the segments of a chunk of songs, (n, 25), and where each song starts and ends in them, (n_songs + 1,)."""
    if chunk.type.equals(FLAT_WINDOW):
        flat = chunk.flatten().to_numpy()
        return flat.reshape(-1, N_FEATURES), np.arange(len(chunk) + 1) * WINDOW
    flat = chunk.values.values.to_numpy()
    return flat.reshape(-1, N_FEATURES), chunk.offsets.to_numpy().astype(np.int64)
