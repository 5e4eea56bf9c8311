"""A catalogue: any number of song files, local or in an object store, read a range of rows at a time.

Arrow files and Parquet are read where they lie; every other source by way of `segue.data.sources`. Nothing is held but
the batch that is read, and no id is ever in a Python list.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from segue.data.columns import check_schema, song_columns
from segue.data.song import N_FEATURES, Ints, Songs, Units
from segue.data.sources.registry import open_source
from segue.data.sources.source import Skipped, Source
from segue.data.table_file import SteadyFile, read_noted
from segue.errors import ConfigError, SegueError, SongError

READ_SONGS = 1024  # In a batch; larger ones leave the cache.
READ_SEGMENTS = 250_000  # 25 MB: a batch of very long songs ends early.
MAPPED_BATCH_BYTES = 2**26  # Larger record batches, on average of a file, are mapped into memory.
TABLE_SUFFIXES = (".arrow", ".arrows", ".feather", ".ipc", ".parquet", ".pq")


@dataclass(frozen=True)
class Rows:
    """Some songs that follow each other in a file."""

    first: int  # Row of the first.
    song_ids: pa.StringArray
    songs: Songs  # As many; a song with a fault may have none of its segments.
    faults: dict[int, str]  # Why a song cannot be scored, by its place.
    kept: pa.RecordBatch | None  # The caller's own columns.

    def __len__(self) -> int:
        return len(self.songs)

    def take(self, places: Ints) -> "Rows":
        """Return the songs at the given places, with what is known of them."""
        new = {old: place for place, old in enumerate(places.tolist())}
        faults = {new[old]: reason for old, reason in self.faults.items() if old in new}
        kept = None if self.kept is None else self.kept.take(pa.array(places))
        return Rows(self.first, self.song_ids.take(pa.array(places)), self.songs.take(places), faults, kept)


@dataclass(frozen=True)
class Range:
    """Rows of one file of the catalogue: what one part of the output is made from."""

    file: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def of_file(self, file: int) -> "Range":
        """Return the same rows of a catalogue in which the file has another number."""
        return Range(file, self.start, self.end)


class SongFile(Protocol):
    """One file of a catalogue."""

    name: str  # As the user gave it, or as it was found in a folder.
    units: Units

    @property
    def rows(self) -> int:
        """How many songs there are, readable or not."""

    @property
    def divisible(self) -> bool:
        """Whether it can be read from any row on, at no more than the price of a batch."""

    def fingerprint(self) -> str:
        """Return what changes when the file does: its size and the time of its last change."""

    def read(self, start: int, end: int, keep: Sequence[str]) -> Iterator[Rows]:
        """Yield the songs of rows `start` to `end` in order, in batches; `keep` names columns to carry along."""


class Catalogue:
    """All songs of some files."""

    def __init__(self, files: Sequence[SongFile]) -> None:
        """Join open files; raw and standardised ones together are a `SongError`."""
        if not files:
            raise SongError("expected songs, found no file of any")
        units = {file.units for file in files}
        if len(units) > 1:
            raise SongError("expected all songs in the same units, found raw and standardised ones")
        self.files = tuple(files)
        self.units = files[0].units
        self.fingerprints = tuple(file.fingerprint() for file in files)

    @classmethod
    def open(cls, places: Sequence[str], units: Units | None = None) -> "Catalogue":
        """Open files, folders, globs and URIs (`s3://`, `gs://`, `hdfs://`); a `SegueError` names one that fails."""
        return cls([file for place in places for file in _open(place, units)])

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    @cached_property
    def first_rows(self) -> Ints:
        """Where each file begins among all songs, (n_files + 1,)."""
        return np.concatenate([[0], np.cumsum([file.rows for file in self.files])]).astype(np.int64)

    def ranges(self, songs: int) -> list[Range]:
        """Return all rows in ranges of at most `songs`, where a file can be divided; else one range is a file."""
        ranges = []
        for index, file in enumerate(self.files):
            step = songs if file.divisible else max(file.rows, 1)
            ranges += [Range(index, start, min(start + step, file.rows)) for start in range(0, file.rows, step)]
        return ranges or [Range(0, 0, 0)]  # No songs are one part without any.

    def read(self, part: Range, keep: Sequence[str] = ()) -> Iterator[Rows]:
        """Yield the songs of a range; a file that was changed since the catalogue was opened is a `SongError`."""
        self._check_unchanged(part.file)
        yield from self.files[part.file].read(part.start, part.end, keep)
        self._check_unchanged(part.file)

    def _check_unchanged(self, index: int) -> None:
        file = self.files[index]
        if file.fingerprint() != self.fingerprints[index]:
            raise SongError(f"{file.name}: was changed while it was read; score it again once it is whole")

    def take(self, rows: Ints) -> Iterator[Rows]:
        """Yield the songs of the given rows, in rising order over all files, a few at a time."""
        for part in self.ranges(READ_SONGS):
            first = self.first_rows[part.file] + part.start
            inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(part))] - first
            if not len(inside):
                continue
            for batch in self.read(part):
                at = batch.first - part.start
                here = inside[(inside >= at) & (inside < at + len(batch))] - at
                if len(here):
                    yield batch.take(here)


class ArrowFile:
    """An Arrow IPC file, read a record batch at a time."""

    divisible = True

    def __init__(self, name: str, file: pyarrow.NativeFile, place: "Place | LocalPlace", units: Units | None) -> None:
        """Open it."""
        self.name = name
        self._place = place
        self._reader = pa.ipc.open_file(file)
        self.units = units_of(name, self._reader.schema, units)
        # Of a batch only the ids are read: how many there are is known before all that could be scored is read.
        ids = pa.ipc.IpcReadOptions(included_fields=[self._reader.schema.get_field_index("song_id")])
        heads = pa.ipc.open_file(file, options=ids)
        sizes = [heads.get_batch(index).num_rows for index in range(heads.num_record_batches)]
        self._firsts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def rows(self) -> int:
        """How many songs there are."""
        return int(self._firsts[-1])

    def fingerprint(self) -> str:
        """Return size and time of the last change."""
        return self._place.fingerprint()

    def read(self, start: int, end: int, keep: Sequence[str]) -> Iterator[Rows]:
        """Yield rows; see `SongFile`."""
        index = int(np.searchsorted(self._firsts, start, side="right")) - 1
        while start < end:
            first, last = int(self._firsts[index]), int(self._firsts[index + 1])
            stop = min(end, last)
            if stop > start:
                try:
                    batch = self._reader.get_batch(index).slice(start - first, stop - start)
                except (pa.ArrowException, OSError) as error:
                    raise SongError(f"{self.name}: cannot be read, it may have been cut short: {error}") from None
                yield from rows_of(self.name, batch, start, keep)
            start, index = stop, index + 1


class ParquetFile:
    """A Parquet file, read a row group at a time, in small batches."""

    divisible = True

    def __init__(self, name: str, file: Any, place: "Place | LocalPlace", units: Units | None) -> None:
        """Open it."""
        self.name = name
        self._place = place
        self._file = pq.ParquetFile(file, pre_buffer=False)
        self.units = units_of(name, self._file.schema_arrow, units)
        groups = self._file.metadata
        sizes = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        self._firsts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def rows(self) -> int:
        """How many songs there are."""
        return int(self._firsts[-1])

    def fingerprint(self) -> str:
        """Return size and time of the last change."""
        return self._place.fingerprint()

    def read(self, start: int, end: int, keep: Sequence[str]) -> Iterator[Rows]:
        """Yield rows; see `SongFile`."""
        group = int(np.searchsorted(self._firsts, start, side="right")) - 1
        last = int(np.searchsorted(self._firsts, end, side="left"))
        at = int(self._firsts[group])
        columns = [name for name in self._file.schema_arrow.names if name in {"song_id", "segments", *keep}]
        groups = list(range(group, last))
        batches = self._file.iter_batches(READ_SONGS, row_groups=groups, columns=columns, use_threads=False)
        while at < end:
            try:
                batch = next(batches)
            except (pa.ArrowException, OSError, StopIteration) as error:
                raise SongError(f"{self.name}: cannot be read, it may have been cut short: {error}") from None
            low, high = max(start - at, 0), min(end - at, len(batch))
            if high > low:
                yield from rows_of(self.name, batch.slice(low, high - low), at + low, keep)
            at += len(batch)


class OtherSource:
    """Any source that `segue songs` reads; one range, from its beginning to its end."""

    divisible = False

    def __init__(self, path: Path, source: Source) -> None:
        """Wrap an open source."""
        self.name = str(path)
        self._path = path
        self._source = source
        self.units = source.units

    @property
    def rows(self) -> int:
        """How many songs there are, readable or not."""
        return len(self._source)

    def fingerprint(self) -> str:
        """Return sizes and times of the last change of all its files."""
        files = sorted(self._path.rglob("*")) if self._path.is_dir() else [self._path]
        stats = [file.stat() for file in files if file.is_file()]
        return f"{len(stats)} files, {sum(one.st_size for one in stats)}, {max(one.st_mtime_ns for one in stats)}"

    def read(self, start: int, end: int, keep: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows; see `SongFile`."""
        if keep:
            raise ConfigError(f"{self.name}: --keep carries columns of tables along; this is none")
        at = 0
        for item in self._source.batches():
            if isinstance(item, Skipped):
                nothing = Songs(np.zeros((0, N_FEATURES), np.float32), np.zeros(1, np.int64))
                rows = Rows(at, pa.array([item.name]), nothing, {0: item.reason}, None)
            else:
                faults = {row: str(fault) for row, fault in item.songs.faults(self.units).items()}
                rows = Rows(at, pa.array(item.song_ids, pa.string()), item.songs, faults, None)
            at += len(rows)
            yield rows


@dataclass(frozen=True)
class Place:
    """Where a file lies."""

    system: pyarrow.fs.FileSystem
    path: str

    def fingerprint(self) -> str:
        """Return size and time of the last change; a file that is gone is a `SongError`."""
        info = self.system.get_file_info(self.path)
        if info.type != pyarrow.fs.FileType.File:
            raise SongError(f"{self.path}: was there when the run began, and is gone")
        return f"{info.size}, {info.mtime_ns}"


@dataclass(frozen=True)
class LocalPlace:
    """Where a file lies on this machine; its name need not be text."""

    path: Path

    def fingerprint(self) -> str:
        """Return size and time of the last change; a file that is gone is a `SongError`."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise SongError(f"{self.path}: was there when the run began, and is gone: {error.strerror}") from None
        return f"{found.st_size}, {found.st_mtime_ns}"


def rows_of(name: str, batch: pa.RecordBatch, first: int, keep: Sequence[str]) -> Iterator[Rows]:
    """Yield the songs of a record batch, checked but for their values, in batches small enough for the cache.

    Raises:
        SongError: the batch breaks the contract of a song table, or a column to keep is missing.
    """
    missing = [one for one in keep if one not in batch.schema.names]
    if missing:
        raise SongError(f"{name}: --keep {missing[0]}: expected such a column, found {', '.join(batch.schema.names)}")
    try:
        columns = song_columns(batch.select(["song_id", "segments"]))
    except SongError as error:
        raise SongError(f"{name}: {error}") from None
    songs = Songs(columns.segments, columns.lengths)
    kept = batch.select(keep) if keep else None
    for start, end in _spans(songs):
        faults = {row - start: reason for row, reason in columns.faults.items() if start <= row < end}
        ids = columns.texts["song_id"][start:end]
        yield Rows(first + start, ids, songs[start:end], faults, None if kept is None else kept[start:end])


def _spans(songs: Songs) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(songs):
        full = int(np.searchsorted(songs.offsets, songs.offsets[start] + READ_SEGMENTS, side="right")) - 1
        end = min(start + READ_SONGS, max(full, start + 1), len(songs))
        yield start, end
        start = end


def units_of(name: str, schema: pa.Schema, fallback: Units | None) -> Units:
    """Return the units that a table's metadata says, or else `fallback`, after a check of the schema.

    Raises:
        SongError: it is not that of a song table, or neither says the units.
    """
    try:
        check_schema(schema)
        return read_noted(schema, fallback).units
    except SongError as error:
        raise SongError(f"{name}: {error}") from None


def _open(place: str, units: Units | None) -> Iterator[SongFile]:
    """Yield the files that a path, a glob, a folder or a URI stands for."""
    if "://" in place:
        yield from _open_remote(place, units)
        return
    path = Path(place)
    if path.is_dir():
        tables = sorted(file for file in path.rglob("[!._]*") if file.suffix in TABLE_SUFFIXES and file.is_file())
        if tables:
            for file in tables:
                yield _open_local(file, units)
            return
    if path.exists():
        yield _open_local(path, units)
        return
    # Path.glob takes no absolute pattern.
    matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    if not matches:
        raise SongError(f"{place}: expected songs, found no such file or folder, and no file that the pattern matches")
    for match in matches:
        yield _open_local(Path(match), units)


def _open_local(path: Path, units: Units | None) -> SongFile:
    place = LocalPlace(path)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(8)
        try:
            if head.startswith(b"ARROW1"):
                return ArrowFile(str(path), _opened(path), place, units)
            if head.startswith(b"PAR1"):
                return ParquetFile(str(path), SteadyFile(path).stream(), place, units)
        except (pa.ArrowException, OSError) as error:
            raise SongError(f"{path}: the file cannot be read, it may be cut short: {error}") from None
    return OtherSource(path, open_source(path, units))


def _opened(path: Path) -> pa.NativeFile:
    """Return an Arrow file to read from.

    One that is mapped ends the process if it is cut short meanwhile, where one that is read gives an error. So only
    record batches that are too large to be read at once are mapped.
    """
    batches = pa.ipc.open_file(pa.memory_map(os.fsencode(path))).num_record_batches
    mapped = path.stat().st_size > MAPPED_BATCH_BYTES * max(batches, 1)
    return pa.memory_map(os.fsencode(path)) if mapped else pa.OSFile(os.fsencode(path))


def _open_remote(uri: str, units: Units | None) -> Iterator[SongFile]:
    (scheme, _, _), (_, mark, query) = uri.partition("://"), uri.partition("?")
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(uri)
        info = system.get_file_info(path)
        if info.type == pyarrow.fs.FileType.Directory:
            found = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
            paths = sorted(one.path for one in found if one.path.endswith(TABLE_SUFFIXES))
        else:
            paths = [path]
        if not paths:
            raise SongError(f"{uri}: expected song tables, found none")
        for one in paths:
            place, file = Place(system, one), system.open_input_file(one)
            name = f"{scheme}://{one}{mark}{query}"
            head = file.read(6)
            file.seek(0)
            yield (ArrowFile if head == b"ARROW1" else ParquetFile)(name, file, place, units)
    except SegueError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise SongError(f"{uri}: cannot be read: {error}") from None
