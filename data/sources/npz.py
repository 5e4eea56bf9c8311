"""Arrays of the course's `.npz` files, read without pickle and some rows at a time."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from segue.data.labels import label_of
from segue.data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, Floats, Ints, Songs, Units
from segue.data.sources.source import Tally, clean, damage_named, readable, select, starts_with
from segue.data.table import SongBatch
from segue.errors import LabelError, SongError

READ_BYTES = 2**20  # Read at once where rows are asked for one by one.
HEADER_BYTES = 2**16  # The most that numpy writes before the numbers of an array.
WHOLE_BYTES, WHOLE_TIMES = 2**24, 100  # An array that is read whole has at most so many bytes, and times the file.


@dataclass(frozen=True)
class Header:
    """What a `.npy` array in an archive says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int  # Where its numbers begin.

    @property
    def row_bytes(self) -> int:
        """Return the size of one row."""
        return self.dtype.itemsize * prod(self.shape[1:])

    @property
    def is_float(self) -> bool:
        """Tell whether its numbers are of a type that segments are read in: float16, 32 or 64, of any byte order."""
        return self.dtype.kind == "f" and self.dtype.itemsize <= 8


class NpzArrays:
    """The arrays of an `.npz` file, to be read row by row; numpy itself reads an array whole.

    One that cannot be read is a `SongError` once it is asked for, and else in `passed_over`.
    """

    def __init__(self, path: Path) -> None:
        """Read what the arrays say of themselves."""
        self.path = path
        self._headers: dict[str, Header] = {}
        self._faults: dict[str, str] = {}
        with self._damage_named(), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    continue
                try:
                    with self._damage_named():
                        self._headers[name] = _header(path, archive, member)
                except SongError as error:
                    self._faults[name] = str(error)

    @property
    def names(self) -> list[str]:
        """The names of all arrays."""
        return [*self._headers, *self._faults]

    @property
    def fields(self) -> dict[str, Header]:
        """The arrays that can be read."""
        return dict(self._headers)

    @property
    def passed_over(self) -> dict[str, Tally]:
        """The arrays that cannot be read, for a source that opened without them."""
        names = [clean(name) for name in self._faults]
        return {"an array that cannot be read and is not needed": Tally(len(names), names[:10])} if names else {}

    def header(self, name: str) -> Header | None:
        """Return what an array says of itself, None where there is none; a `SongError` if it cannot be read."""
        if name in self._faults:
            raise SongError(self._faults[name])
        return self._headers.get(name)

    def expect(self, name: str) -> Header:
        """Return what an array says of itself; a `SongError` where there is none or it cannot be read."""
        found = self.header(name)
        if found is None:
            raise SongError(
                f"{self.path}: expected an array {name!r}, found {clean(', '.join(self.names))[:200] or 'none'}"
            )
        return found

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array, such as one of a value a song; one that is far larger than the file is refused."""
        header = self.expect(name)
        n_bytes, most = header.dtype.itemsize * prod(header.shape), WHOLE_BYTES
        most += WHOLE_TIMES * self.path.stat().st_size
        if n_bytes > most:
            raise SongError(
                f"{self.path}: expected at most {most} bytes in {name}, {WHOLE_TIMES} times the file and 16 MB; found "
                f"{n_bytes}, {header.dtype} {header.shape}"
            )
        with self._opened(name) as stream:
            return np.frombuffer(stream.read(), header.dtype).reshape(header.shape)

    def rows(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the rows of an array one by one, with about `READ_BYTES` in memory."""
        at_once = max(READ_BYTES // max(self.expect(name).row_bytes, 1), 1)
        for block in self.blocks(name, at_once):
            yield from block

    def blocks(self, name: str, n_rows: int) -> Iterator[NDArray[Any]]:
        """Yield the rows of an array, `n_rows` at a time."""
        whole, rest = divmod(self.expect(name).shape[0], n_rows)
        return self.pieces(name, [n_rows] * whole + [rest] * bool(rest))

    def pieces(self, name: str, counts: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield the rows of an array, so many at a time as `counts` says; they must not ask for more than there are."""
        header = self.expect(name)
        with self._opened(name) as stream:
            for count in counts:
                content = stream.read(count * header.row_bytes)
                yield np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open an array where its numbers begin."""
        offset = self.expect(name).offset
        with self._damage_named(), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
            stream.read(offset)
            yield stream

    def _damage_named(self) -> AbstractContextManager[None]:
        return damage_named(
            f"{self.path}: expected an .npz file, found one that cannot be read", advice=". Fetch it again."
        )


def _header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as stream:
        start = BytesIO(stream.read(HEADER_BYTES))
    version = npy.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array in .npy format {version}, of which Segue reads 1.0 and 2.0")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(start)
    n_bytes = member.file_size - start.tell()
    if dtype.hasobject:
        raise SongError(
            f"{path}: {member.filename} holds Python objects, which only pickle can read, and a pickle can run any "
            "code. Save the arrays with plain numeric or string types."
        )
    if fortran_order and len(shape) > 1:
        raise SongError(
            f"{path}: expected {member.filename} in C order, found Fortran order. Save np.ascontiguousarray of it."
        )
    if n_bytes != dtype.itemsize * prod(shape) or min(shape, default=0) < 0:
        raise SongError(
            f"{path}: expected {dtype.itemsize * prod(shape)} bytes for {member.filename}, {dtype} {shape}; "
            f"found {n_bytes}. Fetch it again."
        )
    return Header(tuple(map(int, shape)), dtype, start.tell())


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in a file; none where it is not an `.npz` file."""
    if not starts_with(path, b"PK"):
        return []
    try:
        with damage_named(str(path)), zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except SongError:
        return []


def recognise_units(segments: NDArray[Any]) -> Units:
    """Tell by segments (n, 25), NaN or not: standardised chroma is centred on 0, so some of it is negative."""
    below = np.nanmin(segments[:, CHROMA], initial=0.0) < 0
    above = np.nanmax(segments[:, LOUDNESS], initial=-1.0) > LOUDNESS_RANGE_DB[1]
    return "standardised" if below and above else "raw"


def as_floats(values: NDArray[Any]) -> Floats:
    """Return floats of any size as float32; what is beyond it becomes infinite, which the check of songs refuses."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def whole_numbers(arrays: NpzArrays, name: str, n_songs: int) -> Ints:
    """Return an array of one integer a song."""
    header = arrays.expect(name)
    if header.shape != (n_songs,) or header.dtype.kind not in "iu":
        raise SongError(
            f"{arrays.path}: expected an integer in {name} for each of the {n_songs} songs, found {header.dtype} "
            f"{header.shape}"
        )
    return arrays.read(name).astype(np.int64)


def labels_of(arrays: NpzArrays, name: str, n_songs: int, label_map: Sequence[str | None]) -> list[str | None]:
    """Return each song's label; none where the file has no targets of that name, as in an unlabelled test set."""
    if name not in arrays.names and not any(other.startswith("targets") for other in arrays.names):
        return [None] * n_songs
    targets = whole_numbers(arrays, name, n_songs)
    largest = targets.max(initial=-1)
    if largest >= 0 and not label_map:
        raise LabelError(
            f"{arrays.path}: expected an array 'label_map', the names of the classes that {name} counts; found "
            f"{', '.join(arrays.names)}"
        )
    if largest >= len(label_map):
        raise LabelError(
            f"{arrays.path}: expected {name} below {len(label_map)}, the length of label_map; found {largest}"
        )
    return [label_map[target] if target >= 0 else None for target in targets.tolist()]


def label_map_of(arrays: NpzArrays) -> tuple[str | None, ...]:
    """Return the class that each target stands for, None where its name is blank; none without a `label_map`."""
    header = arrays.header("label_map")
    if header is None:
        return ()
    if len(header.shape) != 1 or header.dtype.kind not in "US":
        raise LabelError(f"{arrays.path}: expected names in label_map, found {header.dtype} {header.shape}")
    return tuple(label_of(name) for name in _text(arrays, "label_map"))


def classes_in(label_map: Sequence[str | None]) -> tuple[str, ...]:
    """Return the names of the classes, each once, in the order of their targets."""
    return tuple(dict.fromkeys(name for name in label_map if name is not None))


class SongFacts:
    """What the arrays of an `.npz` file say of its songs beside their segments.

    `targets` (n,) integer, -1 = no label, and `label_map` (n_classes,) the class names. Where they exist, `track_ids`
    names the songs and `group` (or `artist_id`) the artists. Every array of n numbers or names is a field that songs
    can be selected by.
    """

    def __init__(self, arrays: NpzArrays, n_songs: int, name: str | None = None) -> None:
        """Read what is said of `n_songs` songs; a `SongError` or `LabelError` where it does not fit them.

        Songs without an id are called by `name`, or else the file's name, and their row.
        """
        self._arrays, self._n_songs, stem = arrays, n_songs, name or readable(arrays.path.stem)
        self.label_map = label_map_of(arrays)
        self.classes = classes_in(self.label_map)
        self.labels = labels_of(arrays, "targets", n_songs, self.label_map)
        ids = _names(arrays, "track_ids", n_songs) or [None] * n_songs
        self.song_ids = [song_id or f"{stem}-{row:06d}" for row, song_id in enumerate(ids)]
        self.groups = _names(arrays, "group", n_songs) or _names(arrays, "artist_id", n_songs) or [None] * n_songs

    def select(self, where: Mapping[str, Sequence[str]]) -> Ints:
        """Return the rows of the songs whose named fields have one of the given values; see `source.select`."""
        of_songs = [name for name, header in self._arrays.fields.items() if header.shape == (self._n_songs,)]
        fields = {name: _text(self._arrays, name) if name in where else [] for name in of_songs if where}
        return np.array(select(self._arrays.path, fields, self._n_songs, where), dtype=np.int64)

    def batch(self, rows: Sequence[int] | Ints, segments: NDArray[Any], lengths: Sequence[int]) -> SongBatch:
        """Return the songs of some rows, given their segments (sum of lengths, 25)."""
        return SongBatch(
            song_ids=[self.song_ids[row] for row in rows],
            songs=Songs(as_floats(segments), np.array(lengths, dtype=np.int64)),
            labels=[self.labels[row] for row in rows],
            groups=[self.groups[row] for row in rows],
        )


def _names(arrays: NpzArrays, field: str, n_songs: int) -> list[str | None]:
    """Return what `field` calls each song, None where it is blank; empty where the file has no such field."""
    header = arrays.header(field)
    if header is None:
        return []
    if header.shape != (n_songs,):
        raise SongError(
            f"{arrays.path}: expected {field!r} for each of the {n_songs} songs, found shape {header.shape}"
        )
    if header.dtype.kind not in "USiu":
        raise SongError(f"{arrays.path}: expected text or whole numbers in {field!r}, found {header.dtype}")
    return [name.strip() or None for name in _text(arrays, field)]


def _text(arrays: NpzArrays, name: str) -> list[str]:
    """Return an array of names or numbers as text."""
    values = arrays.read(name)
    with damage_named(f"{arrays.path}: expected text in {name}, found what is none"):
        return [clean(one.decode(errors="replace") if isinstance(one, bytes) else str(one)) for one in values]
