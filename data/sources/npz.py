"""Arrays of the course's `.npz` files, read without pickle and some rows at a time."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from data.errors import LabelError, SongError
from data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, Ints, Units

READ_BYTES = 2**20  # Read at once where rows are asked for one by one.

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, SyntaxError, tokenize.TokenError, zlib.error)


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
        header = self.headers[name]
        with self._opened(name) as stream:
            for start in range(0, header.shape[0], n_rows):
                count = min(n_rows, header.shape[0] - start)
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
