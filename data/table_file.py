"""The files of a song table, read in parts: Arrow IPC files and streams, Parquet, and folders of them.

Nothing is mapped into memory. A mapped file that is cut short ends the process (SIGBUS), and one that is written over
gives the songs of both; read, the first is an error, and the second is seen by the file's time and size. Segments of an
Arrow file in one of the canonical types stay on the disk until they are asked for.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segue.data.arrow_file import MAGIC, SEGMENT_BYTES, Place, place_of, read_batches
from segue.data.columns import TEXTS, check_buffers, check_schema, song_columns, texts_of
from segue.data.labels import label_of
from segue.data.song import N_FEATURES, Features, Floats, Ints, Songs, Units
from segue.data.steady_file import FileBytes, SteadyFile, aligned
from segue.errors import SegueError, SongError

SUFFIXES = (".arrow", ".arrows", ".feather", ".ipc", ".parquet", ".pq")
STREAM_MAGIC, STREAM_END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"
BATCH_SONGS = 1000
READ_BYTES = 2**20
SONGS_A_BYTE = 1000  # At most: fewer bytes cannot hold so many, and their file is damaged.
NOT_DATA = ("state.json", "dataset_info.json")  # What Hugging Face's `save_to_disk` writes beside its files.


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
    kept: pa.RecordBatch | None = None  # Columns that were asked for besides.
    on_disk: bool = False  # Whether the segments are read when they are asked for.

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def labels(self, name: str, rows: Ints | None = None) -> list[str | None]:
        """Return a column of labels or groups, of all songs or some, None where one is blank or there is no column."""
        column = self.texts.get(name, pa.nulls(len(self), pa.string()))
        picked = column if rows is None else column.take(pa.array(rows))
        return [label_of(text) for text in picked.to_pylist()]

    def songs(self, first: int, end: int, room: Floats | None = None) -> Songs:
        """Return the songs from row `first` up to `end`, unchecked, in one block.

        What is still on the disk is read into `room`, (n, 25), where there is one and they fit.
        """
        offsets = self.offsets[first : end + 1]
        low, high = int(offsets[0]), int(offsets[-1])
        into = room[: high - low] if room is not None and self.on_disk and high - low <= len(room) else None
        return Songs(self.read(low, high, into), np.diff(offsets))


class TableFile(Protocol):
    """One file of a table."""

    name: str
    schema: pa.Schema
    divisible: bool  # Whether it can be read from any row on, at no more than the price of a batch.

    @property
    def rows(self) -> int:
        """How many songs it has."""

    def check(self) -> None:
        """Check that it is as it was when it was opened; see `SteadyFile.check`."""

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs, without their segments."""

    def parts(self, start: int = 0, end: int | None = None, keep: Sequence[str] = ()) -> Iterator[Part]:
        """Yield the songs from row `start` up to `end`; `keep` names columns to carry along."""


class ArrowFile:
    """An Arrow IPC file."""

    divisible = True

    def __init__(self, file: FileBytes) -> None:
        """Read its schema, and where its batches are."""
        self.name, self.check = file.name, file.check
        self._file = file
        self._reader = pa.ipc.open_file(file.stream())
        self.schema = self._reader.schema
        check_schema(self.schema)
        self._batches = read_batches(file)
        known = bool(self._batches)
        sizes = [batch.n_rows for batch in self._batches] if known else map(len, self._text_batches(TEXTS))
        self._firsts = _firsts(sizes, file)

    @property
    def rows(self) -> int:
        """How many songs it has."""
        return int(self._firsts[-1])

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs; of the file, only that is read."""
        return (texts_of(batch) for batch in self._text_batches(TEXTS))

    def parts(self, start: int = 0, end: int | None = None, keep: Sequence[str] = ()) -> Iterator[Part]:
        """Yield the songs of each record batch; see `TableFile`.

        What is known of a batch is read whole; of the segments, what is asked for. A batch that is compressed, or of
        another type than a song table's, is held whole.
        """
        end = self.rows if end is None else end
        first, last = np.searchsorted(self._firsts, start, "right") - 1, np.searchsorted(self._firsts, end, "left")
        wanted = range(int(first), int(last))
        for i, texts in zip(wanted, self._text_batches((*TEXTS, *keep), wanted), strict=True):
            low, high = max(start - int(self._firsts[i]), 0), min(end, int(self._firsts[i + 1])) - int(self._firsts[i])
            place = self._batches and place_of(self._file, self._batches[i], self.schema, texts.num_rows)
            if place:
                some = texts[low:high]
                kept = some.select(keep) if keep else None
                read = partial(self._segments, place)
                yield Part(texts_of(some), place.offsets[low : high + 1], read, kept=kept, on_disk=True)
            elif high > low:
                yield _in_memory(self._reader.get_batch(i)[low:high], keep)

    def _text_batches(self, names: Sequence[str], wanted: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        fields = [i for i, name in enumerate(self.schema.names) if name in names]
        reader = pa.ipc.open_file(self._file.stream(), options=pa.ipc.IpcReadOptions(included_fields=fields))
        for i in range(reader.num_record_batches) if wanted is None else wanted:
            batch = reader.get_batch(i)
            check_buffers(batch)
            yield batch

    def _segments(self, place: Place, first: int, end: int, into: Floats | None = None) -> Floats:
        if into is None:
            into = room_for(end - first)
        self._file.read_into(into, place.position + first * SEGMENT_BYTES)
        return into


def room_for(segments: int) -> Floats:
    """Return room to read so many segments into, (n, 25)."""
    return aligned(segments * SEGMENT_BYTES).view(np.float32).reshape(-1, N_FEATURES)


class ArrowStream:
    """An Arrow IPC stream in a file, as Hugging Face's `save_to_disk` writes it; its segments are held in memory."""

    divisible = False

    def __init__(self, file: FileBytes) -> None:
        """Read its schema."""
        self.name, self.check = file.name, file.check
        self._file = file
        # Without its end, a stream that is cut between two batches would be read as one with fewer songs.
        if file.read(max(file.size - 8, 0), min(file.size, 8)) != STREAM_END:
            raise SongError("the file cannot be read, it may be cut short: the stream has no end")
        self.schema = pa.ipc.open_stream(file.stream()).schema
        check_schema(self.schema)

    @cached_property
    def rows(self) -> int:
        """How many songs it has; to count them, it is read once."""
        return sum(map(len, pa.ipc.open_stream(self._file.stream())))

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs."""
        return (part.texts for part in self.parts())

    def parts(self, start: int = 0, end: int | None = None, keep: Sequence[str] = ()) -> Iterator[Part]:
        """Yield the songs of each record batch; see `TableFile`."""
        batches = pa.ipc.open_stream(self._file.stream())
        return (_in_memory(batch, keep) for batch in _clipped(batches, 0, start, end))


class ParquetFile:
    """A Parquet file; its segments are held in memory."""

    divisible = True

    def __init__(self, file: FileBytes) -> None:
        """Read its schema."""
        self.name, self.check = file.name, file.check
        self._file = pq.ParquetFile(file.stream(), pre_buffer=False, buffer_size=READ_BYTES)
        self.schema = self._file.schema_arrow
        check_schema(self.schema)
        groups = self._file.metadata
        self._firsts = _firsts((groups.row_group(i).num_rows for i in range(groups.num_row_groups)), file)

    @property
    def rows(self) -> int:
        """How many songs it has."""
        return int(self._firsts[-1])

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs; of the file, only that is read."""
        for batch in self._batches(TEXTS, range(len(self._firsts) - 1)):
            check_buffers(batch)
            yield texts_of(batch)

    def parts(self, start: int = 0, end: int | None = None, keep: Sequence[str] = ()) -> Iterator[Part]:
        """Yield the songs, so many at a time that little is decoded at once; see `TableFile`."""
        end = self.rows if end is None else end
        first, last = np.searchsorted(self._firsts, start, "right") - 1, np.searchsorted(self._firsts, end, "left")
        batches = self._batches(("segments", *TEXTS, *keep), range(int(first), int(last)))
        for batch in _clipped(batches, int(self._firsts[first]), start, end):
            yield _in_memory(batch, keep)
            start += len(batch)
        if start < end:
            raise SongError("the file cannot be read, it may be cut short: songs are missing")

    def _batches(self, names: Sequence[str], groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        columns = [name for name in self.schema.names if name in names]
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            BATCH_SONGS, row_groups=list(groups), columns=columns, use_threads=False
        )
        return batches


class MemoryTable:
    """A table that is in memory already."""

    divisible = True

    def __init__(self, name: str, content: pa.Table) -> None:
        """Hold `content`; `name` is its name in messages."""
        check_schema(content.schema)
        self.name, self.schema, self._content = name, content.schema, content
        self.rows: int = content.num_rows

    def check(self) -> None:
        """Nobody writes to it."""

    def texts(self) -> Iterator[dict[str, pa.StringArray]]:
        """Yield what is known of the songs."""
        return (part.texts for part in self.parts())

    def parts(self, start: int = 0, end: int | None = None, keep: Sequence[str] = ()) -> Iterator[Part]:
        """Yield the songs of each chunk; see `TableFile`."""
        return (_in_memory(batch, keep) for batch in _clipped(self._content.to_batches(), 0, start, end))


def _firsts(sizes: Iterable[int], file: FileBytes) -> Ints:
    """Return where each batch begins among all songs of a file, (n_batches + 1,)."""
    firsts = np.concatenate([np.zeros(1, np.int64), np.cumsum(list(sizes), dtype=np.int64)])
    if (np.diff(firsts) < 0).any() or firsts[-1] > SONGS_A_BYTE * file.size:
        raise SongError(f"the file cannot be read: it says it has {firsts[-1]} songs in {file.size} bytes")
    return firsts


def _clipped(batches: Iterable[pa.RecordBatch], first: int, start: int, end: int | None) -> Iterator[pa.RecordBatch]:
    """Yield what batches of which the first begins at row `first` hold of the rows from `start` up to `end`."""
    for batch in batches:
        if end is not None and first >= end:
            return
        low, high = max(start - first, 0), len(batch) if end is None else min(end - first, len(batch))
        if high > low:
            yield batch[low:high]
        first += len(batch)


def _in_memory(batch: pa.RecordBatch, keep: Sequence[str] = ()) -> Part:
    columns = song_columns(batch)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(columns.lengths)])

    def read(first: int, end: int, into: Floats | None = None) -> Floats:
        if into is None:
            return columns.segments[first:end]
        into[:] = columns.segments[first:end]
        return into

    return Part(columns.texts, offsets, read, columns.faults, batch.select(keep) if keep else None)


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
        self._open: list[TableFile] = [open_table(file) for file in self.files]
        if content is not None:
            with naming(str(path)):
                self._open = [MemoryTable(str(path), content)]
        noted = []
        for table in self._open:
            with naming(table.name):
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
            with naming(table.name):
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


def open_table(path: Path) -> TableFile:
    """Return the table in a file of this machine; a `SongError` names one that is none or cannot be read."""
    if not path.is_file():
        raise SongError(f"{path}: expected a regular file, found something else")
    with naming(str(path)):
        return table_in(SteadyFile(path))


def table_in(file: FileBytes) -> TableFile:
    """Return the table in a file, by its first bytes; a `SongError` if there is none."""
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
def naming(name: str) -> Iterator[None]:
    """Let errors begin with the file's name; whatever a library raises over a damaged file becomes a `SongError`."""
    try:
        yield
    except SongError as error:
        text = str(error)
        raise SongError(text if text.startswith(name) else f"{name}: {text}") from None
    except SegueError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SongError(f"{name}: the file cannot be read, it may be cut short: {reason}") from None
