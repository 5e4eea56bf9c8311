"""A catalogue: any number of song files, local or in an object store, read a range of rows at a time.

Arrow files and Parquet are read where they lie; every other source by way of `segue.data.sources`. Nothing is held but
the batch that is read, and no id is ever in a Python list.
"""

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.fs

from segue.data.arrow_file import MAGIC
from segue.data.song import N_FEATURES, Floats, Ints, Songs, Units
from segue.data.sources.registry import open_source
from segue.data.sources.song_table import is_folder_of_tables
from segue.data.sources.source import Skipped, Source
from segue.data.steady_file import FileBytes, RemoteFile, SteadyFile
from segue.data.table_file import STREAM_MAGIC, SUFFIXES, Part, naming, read_noted, table_files, table_in
from segue.errors import ConfigError, SegueError, SongError

READ_SONGS = 1024  # In a batch; larger ones leave the cache.
READ_SEGMENTS = 250_000  # 25 MB: a batch of very long songs ends early.
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # What stands in the name of a folder for null.


class ReadSongs(Protocol):
    """Reads some songs."""

    def __call__(self, start: int, end: int, room: Floats | None = None) -> Songs:
        """Return the songs from one up to another; one with a fault may have no segments. See `Part.songs`."""


@dataclass(frozen=True)
class Rows:
    """Some songs that follow each other in a file, where their segments may still be."""

    first: int  # Row of the first.
    song_ids: pa.StringArray
    read: "ReadSongs"
    faults: dict[int, str]  # Why a song cannot be scored, by its place.
    kept: pa.RecordBatch | None  # The caller's own columns.

    def __len__(self) -> int:
        return len(self.song_ids)

    def songs(self, room: Floats | None = None) -> Songs:
        """Return all of them, in `room` if they are still on the disk."""
        return self.read(0, len(self), room)

    def take(self, places: Ints) -> "Rows":
        """Return the songs at the given places, in memory, with what is known of them."""
        new = {old: place for place, old in enumerate(places.tolist())}
        faults = {new[old]: reason for old, reason in self.faults.items() if old in new}
        kept = None if self.kept is None else self.kept.take(pa.array(places))
        songs = Songs.concat([self.read(place, place + 1) for place in new])
        return Rows(self.first, self.song_ids.take(pa.array(places)), _reader(songs), faults, kept)


def _reader(songs: Songs) -> ReadSongs:
    """Return what reads songs that are in memory."""
    return lambda start, end, room=None: songs[start:end]


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
        for index, first in enumerate(self.first_rows[:-1]):
            inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + self.files[index].rows)] - first
            if not len(inside):
                continue
            for batch in self.read(Range(index, int(inside[0]), int(inside[-1]) + 1)):
                here = inside[(inside >= batch.first) & (inside < batch.first + len(batch))] - batch.first
                if len(here):
                    yield batch.take(here)


class TableSongs:
    """A file that is a song table, opened when it is read: a catalogue may have more files than a process may open."""

    def __init__(self, name: str, place: "Place | LocalPlace", units: Units | None) -> None:
        """Open it, and note what is in it.

        Raises:
            SongError: it is no song table, is damaged, or neither it nor `units` says the units.
        """
        self.name = name
        self._place = place
        with naming(name):
            table = table_in(place.open(name))
            self.units = read_noted(table.schema, units).units
            self.rows, self.divisible = table.rows, table.divisible

    def fingerprint(self) -> str:
        """Return size and time of the last change."""
        return self._place.fingerprint()

    def read(self, start: int, end: int, keep: Sequence[str]) -> Iterator[Rows]:
        """Yield rows; see `SongFile`."""
        with naming(self.name):
            table = table_in(self._place.open(self.name))
            columns = [name for name in keep if name in table.schema.names]
            constants = {name: value for name, value in partitions(self.name).items() if name not in columns}
            missing = [name for name in keep if name not in columns and name not in constants]
            if missing:
                there = ", ".join([*table.schema.names, *constants])
                raise SongError(f"--keep {missing[0]}: expected such a column, found {there}")
            for part in table.parts(start, end, columns):
                for low, high in _spans(part):
                    yield _rows(part, low, high, start, _kept(part, low, high, keep, constants))
                start += len(part)
                table.check()


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
                rows = Rows(at, pa.array([item.name]), _reader(nothing), {0: item.reason}, None)
            else:
                rows = Rows(at, pa.array(item.song_ids, pa.string()), _reader(item.songs), {}, None)
            at += len(rows)
            yield rows


@dataclass(frozen=True)
class Place:
    """Where a file lies."""

    system: pyarrow.fs.FileSystem
    path: str

    def open(self, name: str) -> FileBytes:
        """Open it, to be read."""
        return RemoteFile(self.system, self.path, name)

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

    def open(self, _: str) -> FileBytes:
        """Open it, to be read."""
        return SteadyFile(self.path)

    def fingerprint(self) -> str:
        """Return size and time of the last change; a file that is gone is a `SongError`."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise SongError(f"{self.path}: was there when the run began, and is gone: {error.strerror}") from None
        return f"{found.st_size}, {found.st_mtime_ns}"


def partitions(name: str) -> dict[str, str | None]:
    """Return what the folders of a file's name say of all its songs: 2026 for `year` in `songs/year=2026/0.parquet`."""
    found = {}
    for folder in name.split("/")[:-1]:
        column, mark, value = folder.partition("=")
        if mark and column:
            found[unquote(column)] = None if value == NO_VALUE else unquote(value)
    return found


def _rows(part: Part, low: int, high: int, first: int, kept: pa.RecordBatch | None) -> Rows:
    """Return the songs of a part from one up to another; `first` is the part's first row."""
    faults = {row - low: reason for row, reason in part.faults.items() if low <= row < high}

    def read(start: int, end: int, room: Floats | None = None) -> Songs:
        return part.songs(low + start, low + end, room)

    return Rows(first + low, part.texts["song_id"][low:high], read, faults, kept)


def _kept(
    part: Part, low: int, high: int, keep: Sequence[str], constants: Mapping[str, str | None]
) -> pa.RecordBatch | None:
    """Return the caller's own columns for the songs of a part from one up to another."""
    if not keep:
        return None

    def column(name: str) -> pa.Array:
        if part.kept is not None and name in part.kept.schema.names:
            return part.kept.column(name)[low:high]
        return pa.repeat(pa.scalar(constants[name], pa.string()), high - low)

    return pa.record_batch({name: column(name) for name in keep})


def _spans(part: Part) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(part):
        full = int(np.searchsorted(part.offsets, part.offsets[start] + READ_SEGMENTS, side="right")) - 1
        end = min(start + READ_SONGS, max(full, start + 1), len(part))
        yield start, end
        start = end


def _open(place: str, units: Units | None) -> Iterator[SongFile]:
    """Yield the files that a path, a glob, a folder or a URI stands for."""
    if "://" in place:
        yield from _open_remote(place, units)
        return
    # Path.glob takes no absolute pattern.
    paths = [place] if Path(place).exists() else sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    if not paths:
        raise SongError(f"{place}: expected songs, found no such file or folder, and no file that the pattern matches")
    for path in map(Path, paths):
        tables = table_files(path) if path.is_file() or is_folder_of_tables(path) else []
        for file in tables or [path]:
            yield _open_local(file, units)


def _open_local(path: Path, units: Units | None) -> SongFile:
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith((MAGIC, STREAM_MAGIC, b"PAR1")):
            return TableSongs(str(path), LocalPlace(path), units)
    return OtherSource(path, open_source(path, units))


def _open_remote(uri: str, units: Units | None) -> Iterator[SongFile]:
    (scheme, _, _), (_, mark, query) = uri.partition("://"), uri.partition("?")
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(uri)
        info = system.get_file_info(path)
        if info.type == pyarrow.fs.FileType.Directory:
            found = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
            paths = sorted(one.path for one in found if one.path.lower().endswith(SUFFIXES))
        else:
            paths = [path]
        if not paths:
            raise SongError(f"{uri}: expected song tables, found none")
        for one in paths:
            yield TableSongs(f"{scheme}://{one}{mark}{query}", Place(system, one), units)
    except SegueError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise SongError(f"{uri}: cannot be read: {error}") from None
