"""Arrays of the course's `.npz` files, read without pickle and some rows at a time."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from segue.data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, Ints, Songs, Units
from segue.data.sources.source import readable, select
from segue.data.table import SongBatch
from segue.errors import LabelError, SongError

READ_BYTES = 2**20  # Read at once where rows are asked for one by one.

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, SyntaxError, tokenize.TokenError, zlib.error)


FLOATS = (np.float16, np.float32, np.float64)  # Types of segments that are read.


@dataclass(frozen=True)
class Header:
    """What a `.npy` array in an archive says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Return the size of one row."""
        return self.dtype.itemsize * prod(self.shape[1:])


class NpzArrays:
    """The arrays of an `.npz` file, to be read row by row; numpy itself reads an array whole."""

    def __init__(self, path: Path) -> None:
        """Read what the arrays say of themselves; one that does not hold what it says is a `SongError`."""
        self.path = path
        with _faults_named(path), zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            self.headers = {member.filename.removesuffix(".npy"): _header(path, archive, member) for member in members}

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        header = self.headers[name]
        with self._opened(name) as stream:
            return np.frombuffer(stream.read(), header.dtype).reshape(header.shape)

    def rows(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the rows of an array one by one, with about `READ_BYTES` in memory."""
        at_once = max(READ_BYTES // max(self.headers[name].row_bytes, 1), 1)
        for block in self.blocks(name, at_once):
            yield from block

    def blocks(self, name: str, n_rows: int) -> Iterator[NDArray[Any]]:
        """Yield the rows of an array, `n_rows` at a time."""
        whole, rest = divmod(self.headers[name].shape[0], n_rows)
        return self.pieces(name, [n_rows] * whole + [rest] * bool(rest))

    def pieces(self, name: str, counts: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield the rows of an array, so many at a time as `counts` says; they must not ask for more than there are."""
        header = self.headers[name]
        with self._opened(name) as stream:
            for count in counts:
                content = stream.read(count * header.row_bytes)
                yield np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open an array where its numbers begin."""
        with _faults_named(self.path), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
            _read_header(stream)
            yield stream


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise SongError(
            f"{path}: expected an .npz file, found one that cannot be read: {error}. Fetch it again."
        ) from None


def _header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as stream:
        shape, fortran_order, dtype = _read_header(stream)
        n_bytes = member.file_size - stream.tell()
    if dtype.hasobject:
        raise SongError(
            f"{path}: {member.filename} holds Python objects, which only pickle can read, and a pickle can run any "
            "code. Save the arrays with plain numeric or string types."
        )
    if fortran_order and len(shape) > 1:
        raise SongError(
            f"{path}: expected {member.filename} in C order, found Fortran order. Save np.ascontiguousarray of it."
        )
    if n_bytes != dtype.itemsize * prod(shape):
        raise SongError(
            f"{path}: expected {dtype.itemsize * prod(shape)} bytes for {member.filename}, {dtype} {shape}; "
            f"found {n_bytes}. Fetch it again."
        )
    return Header(shape, dtype)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"an array in .npy format {version}, of which Segue reads 1.0 and 2.0")


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in a file; none where it is not an `.npz` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (*UNREADABLE, zipfile.BadZipFile):
        return []


def recognise_units(segments: NDArray[Any]) -> Units:
    """Tell by segments (n, 25), NaN or not: standardised chroma is centred on 0, so some of it is negative."""
    below = np.nanmin(segments[:, CHROMA], initial=0.0) < 0
    above = np.nanmax(segments[:, LOUDNESS], initial=-1.0) > LOUDNESS_RANGE_DB[1]
    return "standardised" if below and above else "raw"


def whole_numbers(arrays: NpzArrays, name: str, n_songs: int) -> Ints:
    """Return an array of one integer a song."""
    if name not in arrays.headers:
        raise SongError(f"{arrays.path}: expected an array {name!r}, found {', '.join(arrays.headers)}")
    header = arrays.headers[name]
    if header.shape != (n_songs,) or header.dtype.kind not in "iu":
        raise SongError(
            f"{arrays.path}: expected an integer in {name} for each of the {n_songs} songs, found {header.dtype} "
            f"{header.shape}"
        )
    return arrays.read(name).astype(np.int64)


def labels_of(arrays: NpzArrays, name: str, n_songs: int, classes: Sequence[str]) -> list[str | None]:
    """Return each song's label; none where the file has no targets of that name, as in an unlabelled test set."""
    if name not in arrays.headers and not any(other.startswith("targets") for other in arrays.headers):
        return [None] * n_songs
    targets = whole_numbers(arrays, name, n_songs)
    if targets.max(initial=-1) >= len(classes):
        raise LabelError(
            f"{arrays.path}: expected {name} below {len(classes)}, the length of label_map; found {targets.max()}"
        )
    return [classes[target] if target >= 0 else None for target in targets.tolist()]


def classes_of(arrays: NpzArrays) -> tuple[str, ...]:
    """Return the names of the classes; none where the file has no `label_map`."""
    if "label_map" not in arrays.headers:
        return ()
    header = arrays.headers["label_map"]
    if len(header.shape) != 1 or header.dtype.kind not in "US":
        raise LabelError(f"{arrays.path}: expected names in label_map, found {header.dtype} {header.shape}")
    names = arrays.read("label_map").tolist()
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)


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
        self.classes = classes_of(arrays)
        self.labels = labels_of(arrays, "targets", n_songs, self.classes)
        self.song_ids = _names(arrays, "track_ids", n_songs) or [f"{stem}-{row:06d}" for row in range(n_songs)]
        groups = _names(arrays, "group", n_songs) or _names(arrays, "artist_id", n_songs)
        self.groups: list[str | None] = [*groups] if groups else [None] * n_songs

    def select(self, where: Mapping[str, Sequence[str]]) -> Ints:
        """Return the rows of the songs whose named fields have one of the given values; see `source.select`."""
        of_songs = [name for name, header in self._arrays.headers.items() if header.shape == (self._n_songs,)]
        fields = {name: _text(self._arrays.read(name)) for name in of_songs if where}
        return np.array(select(self._arrays.path, fields, self._n_songs, where), dtype=np.int64)

    def batch(self, rows: Sequence[int] | Ints, segments: NDArray[Any], lengths: Sequence[int]) -> SongBatch:
        """Return the songs of some rows, given their segments (sum of lengths, 25)."""
        return SongBatch(
            song_ids=[self.song_ids[row] for row in rows],
            songs=Songs(segments.astype(np.float32), np.array(lengths, dtype=np.int64)),
            labels=[self.labels[row] for row in rows],
            groups=[self.groups[row] for row in rows],
        )


def _names(arrays: NpzArrays, field: str, n_songs: int) -> list[str]:
    """Return what `field` calls each song; empty where the file has no such field."""
    header = arrays.headers.get(field)
    if header is None:
        return []
    if header.shape != (n_songs,):
        raise SongError(
            f"{arrays.path}: expected {field!r} for each of the {n_songs} songs, found shape {header.shape}"
        )
    return _text(arrays.read(field))


def _text(array: NDArray[Any]) -> list[str]:
    return [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in array]
