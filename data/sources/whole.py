"""Source: whole songs end to end in one `.npz` file.

Arrays `segments` (all segments of all songs, 25) in float16 or float32, `lengths` (n,) how many of them each song has,
and what the songs are called and labelled; see `segue.data.sources.npz.SongFacts`. Where the file is named
`NAME_full_length.npz`, a course file `NAME.npz` beside it may say the latter instead, of the same `track_ids`. Read
without pickle, some songs at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from segue.data.song import N_FEATURES, Ints, Units
from segue.data.sources.npz import NpzArrays, SongFacts, array_names, recognise_units, whole_numbers
from segue.data.sources.source import LONGEST, Kind, Options, Skipped, Source, in_batches
from segue.data.table import SongBatch
from segue.errors import SongError

SAMPLE_SEGMENTS = 25_000  # from which the units are recognised
SUFFIX = "_full_length"


class WholeSongs:
    """One `.npz` file of whole songs; see the module."""

    def __init__(
        self,
        path: Path,
        units: Units | None = None,
        where: Mapping[str, Sequence[str]] | None = None,
        name: str | None = None,
    ) -> None:
        """Open the file; without `units` they are recognised, since only raw songs keep within the raw ranges."""
        self._arrays = NpzArrays(path)
        self._lengths = _lengths(self._arrays)
        self._facts = SongFacts(_with_labels(self._arrays, len(self._lengths)), len(self._lengths), name)
        self.classes = self._facts.classes
        self.passed_over = self._arrays.passed_over
        self._rows = self._facts.select(where or {})
        sample = next(self._arrays.blocks("segments", SAMPLE_SEGMENTS), np.zeros((0, N_FEATURES), np.float32))
        self.units: Units = units or recognise_units(sample)

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the selected songs after the first `start` in file order."""
        return in_batches(self._songs(set(self._rows[start:].tolist())))

    def _songs(self, wanted: set[int]) -> Iterator[SongBatch]:
        for row, segments in enumerate(self._arrays.pieces("segments", self._lengths.tolist())):
            if row in wanted:
                yield self._facts.batch([row], segments, [len(segments)])


def recognises(path: Path) -> bool:
    """Tell whether `path` is an `.npz` file of whole songs."""
    return {"segments", "lengths"} <= set(array_names(path))


def _lengths(arrays: NpzArrays) -> Ints:
    """Return how many segments each song has, (n,)."""
    segments, lengths = arrays.header("segments"), arrays.header("lengths")
    if segments is None or lengths is None:
        raise SongError(
            f"{arrays.path}: expected arrays 'segments' and 'lengths', found {', '.join(arrays.names) or 'none'}"
        )
    if not segments.is_float or segments.shape[1:] != (N_FEATURES,):
        raise SongError(
            f"{arrays.path}: expected segments (n, {N_FEATURES}) of type float16 or float32, found {segments.dtype} "
            f"{segments.shape}"
        )
    counts = whole_numbers(arrays, "lengths", prod(lengths.shape))
    if counts.max(initial=0) > LONGEST:
        raise SongError(f"{arrays.path}: expected lengths of at most {LONGEST} segments, found {counts.max()}")
    if counts.min(initial=1) < 1 or counts.sum() != segments.shape[0]:
        raise SongError(
            f"{arrays.path}: expected lengths above 0 that add up to the {segments.shape[0]} segments, found a least "
            f"of {counts.min(initial=1)} and a sum of {counts.sum()}"
        )
    return counts


def _with_labels(arrays: NpzArrays, n_songs: int) -> NpzArrays:
    """Return the file that says what the songs are: the course file beside it, where there is one, or `arrays`."""
    path = arrays.path
    beside = path.with_name(f"{path.stem.removesuffix(SUFFIX)}.npz")
    if beside == path or not beside.is_file():
        return arrays
    other = NpzArrays(beside)
    ids = [SongFacts(one, n_songs).song_ids for one in (arrays, other)]
    if ids[0] != ids[1]:
        raise SongError(f"{path}: expected the track_ids of {beside.name} in the same order, found others")
    return other


def _open(path: Path, options: Options) -> Source:
    return WholeSongs(path, options.units, options.where, options.name)


KIND = Kind(
    "whole",
    "whole songs end to end, one `.npz` file",
    recognises,
    _open,
    fields="every array of one value a song",
)
