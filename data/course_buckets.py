"""Source: the course's variable-length `.npz` files, and its test files in two halves.

Songs of 120 to 4,000 segments lie in buckets of similar length, n = 250, 500, 650, 800, 950, 1200, 2000 or 4000:
`inputs_{n}` (songs, n, 25) or (songs, n * 25), each song padded to n segments with NaN, `targets_{n}` (songs,) integer,
-1 = no label, and `indices_{n}` (songs,) the row of the song in the fixed-length file; `label_map` (n_classes,) names
the classes. Read without pickle, some songs at a time: a bucket may be larger than memory.

The songs come in the order of their rows in the fixed-length file. Where a bucket is not sorted by row that would take
the whole file in memory, and they come bucket by bucket.
"""

import heapq
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from data.analysis import in_batches
from data.course import CourseFile
from data.errors import LabelError, SongError
from data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, N_FEATURES, Ints, Units, check_segments
from data.source import Skipped
from data.table import SongBatch

READ_BYTES = 2**20  # read at once from each bucket
SAMPLE_SEGMENTS = 25_000  # from which the units are recognised

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, SyntaxError, tokenize.TokenError, zlib.error)


class CourseBuckets:
    """One variable-length `.npz` file; see the module."""

    def __init__(self, path: Path, units: Units | None = None) -> None:
        """Open the file; without `units` they are recognised, since only raw songs keep within the raw ranges."""
        self._arrays = NpzArrays(path)
        self.classes = _classes(self._arrays)
        lengths = sorted(int(name.removeprefix("inputs_")) for name in self._arrays.headers if _is_bucket(name))
        if not lengths:
            found = ", ".join(self._arrays.headers) or "none"
            raise SongError(f"{path}: expected arrays 'inputs_250', 'inputs_500' and so on, found {found}")
        self._buckets = [_bucket(self._arrays, length, self.classes) for length in lengths]
        self.units: Units = units or recognise_units(self._sample())

    def __len__(self) -> int:
        return sum(len(bucket.indices) for bucket in self._buckets)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`; one with NaN before its last segment is yielded as `Skipped`."""
        streams = [self._unread(bucket) for bucket in self._buckets]
        in_order = all((np.diff(bucket.indices) >= 0).all() for bucket in self._buckets)
        unread = heapq.merge(*streams, key=itemgetter(0)) if in_order else chain.from_iterable(streams)
        return in_batches(read() for _, read in islice(unread, start, None))

    def _unread(self, bucket: "_Bucket") -> Iterator[tuple[int, Callable[[], SongBatch | Skipped]]]:
        """Yield what reads each song of a bucket, with the song's row in the fixed-length file."""
        rows = self._arrays.rows(f"inputs_{bucket.length}")
        for padded, index, label in zip(rows, bucket.indices.tolist(), bucket.labels, strict=True):
            song_id = f"{self._arrays.path.stem}-{index:06d}"
            yield index, partial(_song, padded.reshape(-1, N_FEATURES), song_id, label, self.units)

    def _sample(self) -> NDArray[Any]:
        """Return some padded songs of the first bucket that has any, (segments, 25)."""
        length = next((bucket.length for bucket in self._buckets if len(bucket.indices)), self._buckets[0].length)
        rows = islice(self._arrays.rows(f"inputs_{length}"), max(SAMPLE_SEGMENTS // length, 1))
        return np.concatenate([np.zeros((0, N_FEATURES), np.float16), *(row.reshape(-1, N_FEATURES) for row in rows)])


class CourseTestPair:
    """The course's test songs: `...-inputs.npz` and, where they are published, their `...-targets.npz` beside it."""

    def __init__(self, path: Path, units: Units | None = None) -> None:
        """Open both halves, given either; `label_map` may be in them or in the training or validation file beside."""
        inputs, targets = _halves(path)
        if not inputs.is_file():
            raise SongError(f"{path}: expected its other half {inputs.name} in the same folder, found no such file")
        self._songs = CourseFile(inputs, units)
        self.units: Units = self._songs.units
        self.classes = self._songs.classes
        self._labels: list[str | None] = [None] * len(self._songs)
        if targets.is_file():
            arrays = NpzArrays(targets)
            self.classes = _classes_beside(arrays, self.classes)
            self._labels = _labels(arrays, "targets", len(self._songs), self.classes)

    def __len__(self) -> int:
        return len(self._songs)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start` in file order, each with its label."""
        labels = iter(self._labels[start:])
        for batch in self._songs.batches(start):
            yield replace(batch, labels=list(islice(labels, len(batch)))) if isinstance(batch, SongBatch) else batch


def recognises(path: Path) -> bool:
    """Tell whether `path` is an `.npz` file with buckets."""
    return any(map(_is_bucket, _member_names(path)))


def recognises_half(path: Path) -> bool:
    """Tell whether `path` is one half of a test set: named so, and without the other half's array."""
    names = _member_names(path)
    return (path.name.endswith("-inputs.npz") and "inputs" in names and "targets" not in names) or (
        path.name.endswith("-targets.npz") and "targets" in names and "inputs" not in names
    )


def recognise_units(segments: NDArray[Any]) -> Units:
    """Tell by segments (n, 25), NaN or not: standardised chroma is centred on 0, so some of it is negative."""
    below = np.nanmin(segments[:, CHROMA], initial=0.0) < 0
    above = np.nanmax(segments[:, LOUDNESS], initial=-1.0) > LOUDNESS_RANGE_DB[1]
    return "standardised" if below and above else "raw"


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
        header = self.headers[name]
        at_once = max(READ_BYTES // max(header.row_bytes, 1), 1)
        with self._opened(name) as stream:
            for start in range(0, header.shape[0], at_once):
                count = min(at_once, header.shape[0] - start)
                content = stream.read(count * header.row_bytes)
                yield from np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])

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


def _member_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (*UNREADABLE, zipfile.BadZipFile):
        return []


def _is_bucket(name: str) -> bool:
    return re.fullmatch(r"inputs_[1-9]\d*", name, re.ASCII) is not None


@dataclass(frozen=True)
class _Bucket:
    """The songs of at most `length` segments, but for the segments themselves."""

    length: int
    indices: Ints  # (songs,), rows of the fixed-length file
    labels: list[str | None]


def _bucket(arrays: NpzArrays, length: int, classes: Sequence[str]) -> _Bucket:
    inputs, indices = f"inputs_{length}", f"indices_{length}"
    header = arrays.headers[inputs]
    if header.dtype.kind != "f" or header.dtype.itemsize > 8:
        raise SongError(f"{arrays.path}: expected {inputs} of type float16 or float32, found {header.dtype}")
    if header.shape[1:] not in ((length, N_FEATURES), (length * N_FEATURES,)):
        raise SongError(
            f"{arrays.path}: expected {inputs} of shape (songs, {length}, 25) or (songs, {length * N_FEATURES}), "
            f"found {header.shape}"
        )
    n_songs = header.shape[0]
    numbers = _whole_numbers(arrays, indices, n_songs)
    return _Bucket(length, numbers, _labels(arrays, f"targets_{length}", n_songs, classes))


def _whole_numbers(arrays: NpzArrays, name: str, n_songs: int) -> Ints:
    if name not in arrays.headers:
        raise SongError(f"{arrays.path}: expected an array {name!r}, found {', '.join(arrays.headers)}")
    header = arrays.headers[name]
    if header.shape != (n_songs,) or header.dtype.kind not in "iu":
        raise SongError(
            f"{arrays.path}: expected an integer in {name} for each of the {n_songs} songs, found {header.dtype} "
            f"{header.shape}"
        )
    return arrays.read(name).astype(np.int64)


def _labels(arrays: NpzArrays, name: str, n_songs: int, classes: Sequence[str]) -> list[str | None]:
    """Return each song's label; none where the file has no targets of that name, as in an unlabelled test set."""
    if name not in arrays.headers and not any(other.startswith("targets") for other in arrays.headers):
        return [None] * n_songs
    targets = _whole_numbers(arrays, name, n_songs)
    if targets.max(initial=-1) >= len(classes):
        raise LabelError(
            f"{arrays.path}: expected {name} below {len(classes)}, the length of label_map; found {targets.max()}"
        )
    return [classes[target] if target >= 0 else None for target in targets.tolist()]


def _classes(arrays: NpzArrays) -> tuple[str, ...]:
    """Return the names of the classes; none where the file has no `label_map`."""
    if "label_map" not in arrays.headers:
        return ()
    header = arrays.headers["label_map"]
    if len(header.shape) != 1 or header.dtype.kind not in "US":
        raise LabelError(f"{arrays.path}: expected names in label_map, found {header.dtype} {header.shape}")
    names = arrays.read("label_map").tolist()
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)


def _song(padded: NDArray[Any], song_id: str, label: str | None, units: Units) -> SongBatch | Skipped:
    real = np.flatnonzero(~np.isnan(padded).all(axis=1))
    unpadded = padded[: real[-1] + 1 if len(real) else 0].copy()  # or the batch would keep the padding in memory
    try:
        segments = check_segments(unpadded, song_id, units)
    except SongError as error:
        return Skipped(song_id, str(error))
    return SongBatch([song_id], segments, np.array([len(segments)]), [label], [None])


def _halves(path: Path) -> tuple[Path, Path]:
    start = path.name.removesuffix("-inputs.npz").removesuffix("-targets.npz")
    return path.with_name(f"{start}-inputs.npz"), path.with_name(f"{start}-targets.npz")


def _classes_beside(targets: NpzArrays, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names from the targets' file, else those `known`, else from the training or validation file."""
    start = targets.path.name.removesuffix("-targets.npz").removesuffix("-test")
    beside = [targets.path.with_name(f"{start}-{name}.npz") for name in ("train", "valid")]
    classes = _classes(targets) or known
    for path in beside:
        if not classes and path.is_file():
            classes = _classes(NpzArrays(path))
    if not classes:
        raise LabelError(
            f"{targets.path}: expected label_map, the class names, in it or in {beside[0].name} beside it; found none. "
            "Put the training file into the same folder."
        )
    return classes
