"""The files of a song table, read in parts: Arrow IPC files and streams, Parquet, and folders of them.

Nothing is mapped into memory. A mapped file that is cut short ends the process (SIGBUS), and one that is written over
gives the songs of both; read, the first is an error, and the second is seen by the file's time and size. Segments of an
Arrow file in one of the canonical types stay on the disk until they are asked for.
"""

import io
import json
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segue.data.arrow_file import MAGIC, SEGMENT_BYTES, Place, place_of, read_batches
from segue.data.columns import TEXTS, check_buffers, check_schema, song_columns, texts_of
from segue.data.labels import label_of
from segue.data.song import N_FEATURES, Features, Floats, Ints, Songs, Units
from segue.errors import SegueError, SongError

SUFFIXES = (".arrow", ".parquet")
STREAM_MAGIC, STREAM_END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"
BATCH_SONGS = 1000
READ_BYTES = 2**20
ONE_READ_BYTES = 2**30  # The kernel gives at most 2 GB at once.
NOT_DATA = ("state.json", "dataset_info.json")  # What Hugging Face's `save_to_disk` writes beside its files.


class SteadyFile:
    """A file that is read at any place, and must stay as it was when it was opened."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)
        self._before = os.fstat(self._handle)
        self.size = self._before.st_size

    def stream(self) -> pa.PythonFile:
        """Return it as Arrow reads files, from the beginning."""
        return pa.PythonFile(_Stream(self), "r")

    def read(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on."""
        if not 0 <= position <= position + count <= self.size:
            raise SongError("the file cannot be read, it may be cut short")
        found = np.empty(count, np.uint8)
        self.read_into(found, position)
        return found.tobytes()

    def read_into(self, values: "np.ndarray[Any, Any]", position: int) -> None:
        """Fill an array with what lies at `position`, in bytes; a `SongError` if the file is not what it was."""
        rest = values.reshape(-1).view(np.uint8).data
        try:
            while len(rest) and (count := os.preadv(self._handle, [rest[:ONE_READ_BYTES]], position)):
                rest, position = rest[count:], position + count
        except OSError as error:
            raise SongError(f"{self.path}: the file cannot be read: {error.strerror}") from None
        self.check()
        if len(rest):
            raise SongError(f"{self.path}: the file cannot be read, it may be cut short")

    def check(self) -> None:
        """Check that nobody has written to the file since it was opened."""
        now = os.fstat(self._handle)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise SongError(
                f"{self.path}: the file was written to while it was read: expected {self._before.st_size} bytes, found "
                f"{now.st_size}. Start again when it is whole; a file that is replaced by another does no harm."
            )


class _Stream(io.RawIOBase):
    """A file from its beginning; each stream has a place of its own in it, so that threads can read side by side."""

    def __init__(self, file: SteadyFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        rest = max(self._file.size - self._at, 0)
        found = self._file.read(self._at, rest if count is None or count < 0 else min(count, rest)) if rest else b""
        self._at += len(found)
        return found


class Read(Protocol):
    """Reads segments of a part."""

    def __call__(self, first: int, end: int, into: Floats | None = None) -> Floats:
        """Return the segments from one up to another, (n, 25), in `into` where there is one."""


@dataclass(frozen=True)
class Part:
    """Some songs of a table that follow each other: what is known of them, and where their segments are."""

    texts: dict[str, pa.StringArray]  # song_id and, where there is such a column, label, group, second_label.
    offsets: Ints  # (n_songs + 1,), in segments
    read: "Read"
    faults: dict[int, str] = field(default_factory=dict)  # What is wrong with the form of a song, by its row.

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def labels(self, name: str, rows: Ints | None = None) -> list[str | None]:
        """Return a column of labels or groups, of all songs or some, None where one is blank or there is no column."""
        column = self.texts.get(name, pa.nulls(len(self), pa.string()))
        picked = column if rows is None else column.take(pa.array(rows))
        return [label_of(text) for text in picked.to_pylist()]

    def songs(self, first: int, end: int) -> Songs:
        """Return the songs from row `first` up to `end`, unchecked, in one block."""
        offsets = self.offsets[first : end + 1]
        return Songs(self.read(int(offsets[0]), int(offsets[-1])), np.diff(offsets))


class TableFile(Protocol):
    """One file of a table."""

    path: Path
    schema: pa.Schema

    def check(self) -> None:
        """Check that it is as it was when it was opened; see `SteadyFile.check`."""

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs, without their segments."""

    def parts(self) -> Iterator[Part]:
        """Yield the songs."""


class ArrowFile:
    """An Arrow IPC file."""

    def __init__(self, file: SteadyFile) -> None:
        """Read its schema, and where its batches are."""
        self.path, self.check = file.path, file.check
        self._file = file
        self._reader = pa.ipc.open_file(file.stream())
        self.schema = self._reader.schema
        check_schema(self.schema)
        self._batches = read_batches(file)

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs; of the file, only that is read."""
        return (texts_of(batch) for batch in self._text_batches())

    def parts(self) -> Iterator[Part]:
        """Yield the songs of each record batch."""
        if not self._batches:
            yield from (_in_memory(self._reader.get_batch(i)) for i in range(self._reader.num_record_batches))
            return
        for i, batch in enumerate(self._text_batches()):
            place = place_of(self._file, self._batches[i], self.schema, batch.num_rows)
            if place is None:
                yield _in_memory(self._reader.get_batch(i))
            else:
                yield Part(texts_of(batch), place.offsets, partial(self._segments, place))

    def _text_batches(self) -> Iterator[pa.RecordBatch]:
        wanted = [i for i, name in enumerate(self.schema.names) if name in TEXTS]
        reader = pa.ipc.open_file(self._file.stream(), options=pa.ipc.IpcReadOptions(included_fields=wanted))
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            check_buffers(batch)
            yield batch

    def _segments(self, place: Place, first: int, end: int, into: Floats | None = None) -> Floats:
        segments = np.empty((end - first, N_FEATURES), np.float32) if into is None else into
        self._file.read_into(segments, place.position + first * SEGMENT_BYTES)
        return segments


class ArrowStream:
    """An Arrow IPC stream in a file, as Hugging Face's `save_to_disk` writes it; its segments are held in memory."""

    def __init__(self, file: SteadyFile) -> None:
        """Read its schema."""
        self.path, self.check = file.path, file.check
        self._file = file
        # Without its end, a stream that is cut between two batches would be read as one with fewer songs.
        if file.read(max(file.size - 8, 0), min(file.size, 8)) != STREAM_END:
            raise SongError("the file cannot be read, it may be cut short: the stream has no end")
        self.schema = pa.ipc.open_stream(file.stream()).schema
        check_schema(self.schema)

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs."""
        return (part.texts for part in self.parts())

    def parts(self) -> Iterator[Part]:
        """Yield the songs of each record batch."""
        return map(_in_memory, pa.ipc.open_stream(self._file.stream()))


class ParquetFile:
    """A Parquet file; its segments are held in memory."""

    def __init__(self, file: SteadyFile) -> None:
        """Read its schema."""
        self.path, self.check = file.path, file.check
        self._file = pq.ParquetFile(file.stream(), pre_buffer=False, buffer_size=READ_BYTES)
        self.schema = self._file.schema_arrow
        check_schema(self.schema)

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs; of the file, only that is read."""
        for batch in self._batches(TEXTS):
            check_buffers(batch)
            yield texts_of(batch)

    def parts(self) -> Iterator[Part]:
        """Yield the songs, so many at a time that little is decoded at once."""
        return map(_in_memory, self._batches(("segments", *TEXTS)))

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        columns = [name for name in names if name in self.schema.names]
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(BATCH_SONGS, columns=columns)
        return batches


class MemoryTable:
    """A table that is in memory already."""

    def __init__(self, path: Path, content: pa.Table) -> None:
        """Hold `content`; `path` is its name in messages."""
        check_schema(content.schema)
        self.path, self.schema, self._content = path, content.schema, content

    def check(self) -> None:
        """Nobody writes to it."""

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs."""
        return (part.texts for part in self.parts())

    def parts(self) -> Iterator[Part]:
        """Yield the songs of each chunk."""
        return map(_in_memory, self._content.to_batches())


def _in_memory(batch: pa.RecordBatch) -> Part:
    columns = song_columns(batch)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(columns.lengths)])

    def read(first: int, end: int, into: Floats | None = None) -> Floats:
        if into is None:
            return columns.segments[first:end]
        into[:] = columns.segments[first:end]
        return into

    return Part(columns.texts, offsets, read, columns.faults)


class TableFiles:
    """The files that make up a song table, in order, and what their schemas say.

    Attributes:
        path: the file, or the folder.
        files: the files.
        units: `raw` or `standardised`.
        features: which analyser made the segments; `echonest` where a file does not say.
        classes: the class names in their order; empty where no file says.
    """

    def __init__(self, path: Path, units: Units | None = None, content: pa.Table | None = None) -> None:
        """Open the table at `path`; `units` stands in where a file does not say, `content` for what files hold.

        Raises:
            SongError: there is no table, a file cannot be read or is none, or the files have different units.
        """
        self.path = path
        self.files = table_files(path) if content is None else []
        self._open: list[TableFile] = [_opened(file) for file in self.files]
        if content is not None:
            with _naming(path):
                self._open = [MemoryTable(path, content)]
        noted = []
        for table in self._open:
            with _naming(table.path):
                noted.append(read_noted(table.schema, units))
        for name in ("units", "features"):
            found = sorted({getattr(one, name) for one in noted})
            if len(found) > 1:
                raise SongError(f"{path}: expected files of the same {name}, found {' and '.join(found)} ones")
        self.units, self.features = noted[0].units, noted[0].features
        self.classes = tuple(dict.fromkeys(name for one in noted for name in one.classes))

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs, without their segments."""
        return self._each(lambda table: table.texts())

    def parts(self) -> Iterator[Part]:
        """Yield all songs in order; a `SongError` names a file that is damaged, or changes meanwhile."""
        return self._each(lambda table: table.parts())

    def _each(self, read: Callable[[TableFile], Iterator[Any]]) -> Iterator[Any]:
        for table in self._open:
            with _naming(table.path):
                for item in read(table):
                    table.check()
                    yield item
                table.check()


def table_files(path: Path) -> list[Path]:
    """Return the files of the table at `path`: itself, or the Arrow and Parquet files of a folder tree in their order.

    In a folder that Hugging Face's `save_to_disk` wrote, those are the files that its `state.json` lists.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SongError(f"{path}: expected a song table, found no such file. `segue songs` or `segue synth` makes one.")
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(one.name for one in path.iterdir() if (one / "state.json").is_file()))
        raise SongError(f"{path}: expected one data set, found several: {splits or 'none'}. Give the folder of one.")
    listed = _listed(path / "state.json")
    if listed:
        return [path / name for name in listed]
    found = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "_", "cache-")) for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not found:
        raise SongError(f"{path}: expected a song table, found a folder without {' or '.join(SUFFIXES)} files")
    return sorted(found)


def _listed(state: Path) -> list[str]:
    """Return the names of data files that a Hugging Face `state.json` lists; none where it lists none."""
    try:
        names = [str(file["filename"]) for file in json.loads(state.read_bytes())["_data_files"]]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []
    return [name for name in names if Path(name).name == name]


def _opened(path: Path) -> TableFile:
    if not path.is_file():
        raise SongError(f"{path}: expected a regular file, found something else")
    with _naming(path):
        file = SteadyFile(path)
        head = file.read(0, min(file.size, 8))
        if head.startswith(MAGIC):
            return ArrowFile(file)
        if head.startswith(b"PAR1"):
            return ParquetFile(file)
        if head.startswith(STREAM_MAGIC):
            return ArrowStream(file)
        raise SongError(
            f"expected an Arrow IPC or Parquet file, found "
            f"{f'one that starts with {head!r}' if head else 'an empty file'}. `segue songs` converts other sources."
        )


@dataclass(frozen=True)
class Noted:
    """What the metadata of a table's schema say."""

    units: Units
    features: Features
    classes: tuple[str, ...]


def read_noted(schema: pa.Schema, fallback: Units | None) -> Noted:
    """Return what a schema's metadata say of the songs; `fallback` are the units where they say none."""
    metadata = schema.metadata or {}
    stated = _text(metadata.get(b"segue.units", b"")) or fallback
    units: Units | None = next((known for known in get_args(Units) if known == stated), None)
    if units is None:
        raise SongError(
            f"expected the metadata 'segue.units' to say raw or standardised, found {stated!r:.80}. "
            "`segue songs TABLE OUT --units raw` writes it."
        )
    stated = _text(metadata.get(b"segue.features", b"echonest"))
    features: Features | None = next((known for known in get_args(Features) if known == stated), None)
    if features is None:
        raise SongError(
            f"expected the metadata 'segue.features' to say {' or '.join(get_args(Features))}, found {stated!r:.80}. "
            "A newer Segue may have written it; `segue songs` makes a table of the files anew."
        )
    listed = metadata.get(b"segue.classes", b"[]")
    try:
        classes = json.loads(listed)
    except (ValueError, RecursionError):
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise SongError(f"expected the metadata 'segue.classes' to be a JSON list of names, found {listed!r:.80}")
    return Noted(units, features, tuple(name for name in map(label_of, classes) if name is not None))


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors begin with the file's name; whatever a library raises over a damaged file becomes a `SongError`."""
    try:
        yield
    except SongError as error:
        text = str(error)
        raise SongError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except SegueError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SongError(f"{path}: the file cannot be read, it may be cut short: {reason}") from None
