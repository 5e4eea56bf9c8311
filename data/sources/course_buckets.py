"""Source: the course's variable-length `.npz` files.

Songs of 120 to 4,000 segments lie in buckets of similar length, n = 250, 500, 650, 800, 950, 1200, 2000 or 4000:
`inputs_{n}` (songs, n, 25) or (songs, n * 25), each song padded to n segments with NaN, `targets_{n}` (songs,) integer,
-1 = no label, and `indices_{n}` (songs,) the row of the song in the fixed-length file; `label_map` (n_classes,) names
the classes. Read without pickle, some songs at a time: a bucket may be larger than memory.

The songs come in the order of their rows in the fixed-length file. Where a bucket is not sorted by row that would take
the whole file in memory, and they come bucket by bucket.
"""

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.song import N_FEATURES, Ints, Songs, Units, check_segments
from segue.data.sources.npz import (
    NpzArrays,
    array_names,
    classes_in,
    label_map_of,
    labels_of,
    recognise_units,
    whole_numbers,
)
from segue.data.sources.source import LONGEST, Kind, Options, Skipped, Source, in_batches, readable
from segue.data.table import SongBatch
from segue.errors import SongError

SAMPLE_SEGMENTS = 25_000  # from which the units are recognised


class CourseBuckets:
    """One variable-length `.npz` file; see the module."""

    def __init__(self, path: Path, units: Units | None = None, name: str | None = None) -> None:
        """Open the file; without `units` they are recognised, since only raw songs keep within the raw ranges."""
        self._arrays = NpzArrays(path)
        self._name = name or readable(path.stem)
        self.passed_over = self._arrays.passed_over
        label_map = label_map_of(self._arrays)
        self.classes = classes_in(label_map)
        lengths = sorted(int(name.removeprefix("inputs_")) for name in self._arrays.names if _is_bucket(name))
        if not lengths:
            found = ", ".join(self._arrays.names) or "none"
            raise SongError(f"{path}: expected arrays 'inputs_250', 'inputs_500' and so on, found {found}")
        self._buckets = [_bucket(self._arrays, length, label_map) for length in lengths]
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
            song_id = f"{self._name}-{index:06d}"
            yield index, partial(_song, padded.reshape(-1, N_FEATURES), song_id, label, self.units)

    def _sample(self) -> NDArray[Any]:
        """Return some padded songs of the first bucket that has any, (segments, 25)."""
        length = next((bucket.length for bucket in self._buckets if len(bucket.indices)), self._buckets[0].length)
        rows = islice(self._arrays.rows(f"inputs_{length}"), max(SAMPLE_SEGMENTS // length, 1))
        return np.concatenate([np.zeros((0, N_FEATURES), np.float16), *(row.reshape(-1, N_FEATURES) for row in rows)])


def recognises(path: Path) -> bool:
    """Tell whether `path` is an `.npz` file with buckets."""
    return any(map(_is_bucket, array_names(path)))


def _is_bucket(name: str) -> bool:
    return re.fullmatch(r"inputs_[1-9]\d{0,9}", name, re.ASCII) is not None


@dataclass(frozen=True)
class _Bucket:
    """The songs of at most `length` segments, but for the segments themselves."""

    length: int
    indices: Ints  # (songs,), rows of the fixed-length file
    labels: list[str | None]


def _bucket(arrays: NpzArrays, length: int, label_map: Sequence[str | None]) -> _Bucket:
    inputs, indices = f"inputs_{length}", f"indices_{length}"
    header = arrays.expect(inputs)
    if not header.is_float:
        raise SongError(f"{arrays.path}: expected {inputs} of type float16 or float32, found {header.dtype}")
    if header.shape[1:] not in ((length, N_FEATURES), (length * N_FEATURES,)):
        raise SongError(
            f"{arrays.path}: expected {inputs} of shape (songs, {length}, 25) or (songs, {length * N_FEATURES}), "
            f"found {header.shape}"
        )
    if length > LONGEST:
        raise SongError(f"{arrays.path}: expected songs of at most {LONGEST} segments, found {inputs}")
    n_songs = header.shape[0]
    numbers = whole_numbers(arrays, indices, n_songs)
    return _Bucket(length, numbers, labels_of(arrays, f"targets_{length}", n_songs, label_map))


def _song(padded: NDArray[Any], song_id: str, label: str | None, units: Units) -> SongBatch | Skipped:
    real = np.flatnonzero(~np.isnan(padded).all(axis=1))
    unpadded = padded[: real[-1] + 1 if len(real) else 0].copy()  # or the batch would keep the padding in memory
    try:
        segments = check_segments(unpadded, song_id, units)
    except SongError as error:
        return Skipped(song_id, str(error))
    return SongBatch([song_id], Songs.of([segments]), [label], [None])


def _open(path: Path, options: Options) -> Source:
    return CourseBuckets(path, options.units, options.name)


KIND = Kind("course-buckets", "the course's songs of variable length, one `.npz` file", recognises, _open)
