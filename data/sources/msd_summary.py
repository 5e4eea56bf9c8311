"""Source: many Million Song Dataset tracks in one HDF5 file, as the dataset's `create_aggregate_file.py` writes them.

A row of `/analysis/songs` is a song. Its `idx_segments_timbre`, `idx_segments_pitches` and
`idx_segments_loudness_start` say where it begins in `/analysis/segments_timbre` (N, 12), `segments_pitches` (N, 12) and
`segments_loudness_start` (N,), which hold all songs one after the other; it ends where the song with the next larger
index begins, whatever the order of the rows. Where rows were taken out, segments of no song lie in between:
`segments_start` (N,), the seconds at which segments begin, grows within a song, so the song ends where it does not. The
artist is in `/metadata/songs`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from segue.data.song import Floats, Ints, Songs, Units, check_segments
from segue.data.sources.hdf5 import check_size, dataset, decoded, opened, text_type
from segue.data.sources.source import (
    BATCH_SONGS,
    LONGEST,
    Kind,
    Options,
    Skipped,
    Source,
    Tally,
    damage_named,
    in_batches,
    starts_with,
)
from segue.data.table import SongBatch
from segue.errors import SongError

WIDTHS: dict[str, tuple[int, ...]] = {
    "segments_timbre": (12,),
    "segments_pitches": (12,),
    "segments_loudness_start": (),
}
TABLES = {"analysis/songs": ("track_id", *(f"idx_{part}" for part in WIDTHS)), "metadata/songs": ("artist_id",)}
INDEX_BYTES, INDEX_TIMES = 2**24, 100  # The rows' indices have at most so many bytes, and times the file.


class MsdSummary:
    """The songs of one summary file, in the order of its rows."""

    units: Units = "raw"
    classes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Open the file and check that it has what a summary with segments has."""
        self._path = path
        self.passed_over: dict[str, Tally] = {}
        with opened(path, _unreadable(path)) as file:
            self._n_songs = _check_tables(path, file)
            _check_segment_arrays(path, file)
            self._begins = {part: _begins(path, file, part, self._n_songs) for part in WIDTHS}
        self._ends = {part: _ends(begins) for part, begins in self._begins.items()}

    def __len__(self) -> int:
        return self._n_songs

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`; one that cannot be read is yielded as `Skipped`."""
        return in_batches(self._songs(start))

    def _songs(self, start: int) -> Iterator[SongBatch | Skipped]:
        with opened(self._path, _unreadable(self._path)) as file:
            arrays = _Arrays.of(file)
            size = self._path.stat().st_size
            for first in range(start, self._n_songs, BATCH_SONGS):
                rows = slice(first, min(first + BATCH_SONGS, self._n_songs))
                ids = _column(file, "analysis/songs", "track_id", rows)
                artists = _column(file, "metadata/songs", "artist_id", rows)
                for row, song_id, artist in zip(range(rows.start, rows.stop), ids, artists, strict=True):
                    song = self._song(arrays, row, song_id or f"{self._path.stem}-{row:06d}", artist or None)
                    check_size(self._path, size)
                    yield song

    def _song(self, arrays: "_Arrays", row: int, song_id: str, artist: str | None) -> SongBatch | Skipped:
        at = [(int(self._begins[part][row]), int(self._ends[part][row])) for part in WIDTHS]
        try:
            found = _segments(arrays, song_id, at)
            own = arrays.own_segments(*at[0])
            segments = check_segments(found[:own], song_id)
        except SongError as error:
            return Skipped(song_id, str(error))
        if arrays.starts_s is None:
            self._pass_over("the check of where songs end, for there is no /analysis/segments_start", song_id)
        elif own < len(found):
            self._pass_over("segments between two songs that belong to neither, after", song_id)
        return SongBatch([song_id], Songs.of([segments]), [None], [artist])

    def _pass_over(self, reason: str, song_id: str) -> None:
        self.passed_over.setdefault(reason, Tally()).add([song_id])


@dataclass(frozen=True)
class _Arrays:
    """The arrays that all songs share."""

    parts: dict[str, Any]
    starts_s: Any  # None where there is none.

    @classmethod
    def of(cls, file: Any) -> "_Arrays":
        parts = {part: h5py.Dataset(dataset(file, f"analysis/{part}")) for part in WIDTHS}
        n_segments = len(parts["segments_timbre"])
        try:
            starts_s = h5py.Dataset(dataset(file, "analysis/segments_start"))
        except (SongError, KeyError):
            starts_s = None
        if starts_s is None or starts_s.shape != (n_segments,) or starts_s.dtype.kind not in "fiu":
            starts_s = None
        return cls(parts, starts_s)

    def own_segments(self, begin: int, end: int) -> int:
        """Return how many of these segments are the first song's: until their starts no longer grow."""
        if self.starts_s is None or end <= begin:
            return max(end - begin, 0)
        with damage_named("expected readable segments_start, found damage"):
            back = np.flatnonzero(~(np.diff(self.starts_s[begin:end]) > 0))
        return int(back[0]) + 1 if len(back) else end - begin


def recognises(path: Path) -> bool:
    """Tell whether `path` is an HDF5 file with more than one song."""
    if not starts_with(path, b"\x89HDF"):
        return False
    try:
        with opened(path, str(path)) as file:
            shape = dataset(file, "analysis/songs").shape
            return bool(shape) and shape[0] > 1
    except SongError:
        return False


def _unreadable(path: Path) -> str:
    return f"{path}: not a readable Million Song Dataset summary, it may be cut short"


def _check_tables(path: Path, file: Any) -> int:
    """Return the number of songs, on which both tables must agree."""
    rows = set()
    for name, columns in TABLES.items():
        table = h5py.Dataset(dataset(file, name))
        missing = set(columns) - set(table.dtype.names or ())
        if missing:
            raise SongError(f"{path}: expected /{name} with columns {', '.join(sorted(columns))}; found no {missing}")
        text_type(table.id, "track_id" if "track_id" in columns else "artist_id")
        rows.add(len(table))
    if len(rows) > 1:
        raise SongError(f"{path}: expected as many rows in /analysis/songs as in /metadata/songs, found {sorted(rows)}")
    return rows.pop()


def _check_segment_arrays(path: Path, file: Any) -> None:
    arrays = {part: _array_or_none(file, part) for part in WIDTHS}
    missing = [part for part, array in arrays.items() if array is None or not array.size]
    if missing:
        raise SongError(
            f"{path}: expected the songs' segments in /analysis, found none in {', '.join(missing)}. A summary of "
            "metadata alone, as msd_summary_file.h5 is, has none: take the tracks, or an aggregate file of them."
        )
    for part, width in WIDTHS.items():
        array = arrays[part]
        if array.shape[1:] != width or array.dtype.kind not in "fiu":
            expected = ", ".join(map(str, ("N", *width)))
            raise SongError(
                f"{path}: expected numbers of shape ({expected}) in {part}, found {array.dtype} {array.shape}"
            )


def _array_or_none(file: Any, part: str) -> Any:
    try:
        return h5py.Dataset(dataset(file, f"analysis/{part}"))
    except KeyError:
        return None


def _column(file: Any, table: str, column: str, rows: slice) -> list[str]:
    found: NDArray[Any] = h5py.Dataset(dataset(file, table)).fields(column)[rows]
    return [decoded(name) for name in found]


def _begins(path: Path, file: Any, part: str, n_songs: int) -> Ints:
    """Return where each song begins in an array, (n_songs,)."""
    most = INDEX_BYTES + INDEX_TIMES * path.stat().st_size
    if n_songs * 8 > most:
        raise SongError(f"{path}: expected at most {most // 8} songs in a file of its size, found {n_songs}")
    begins = h5py.Dataset(dataset(file, "analysis/songs")).fields(f"idx_{part}")[:]
    if begins.dtype.kind not in "iu":
        raise SongError(f"{path}: expected whole numbers in idx_{part}, found {begins.dtype}")
    return np.append(begins.astype(np.int64), len(h5py.Dataset(dataset(file, f"analysis/{part}"))))


def _ends(begins: Ints) -> Ints:
    """Return where each song ends, given where the songs begin and, last, the end of the array: at the next larger one.

    Of songs that begin at the same place all but one are empty. Where the rows are in order that is the last; where
    they are not, none can be told from the others, and all end before they begin.
    """
    starts, last = begins[:-1], begins[-1]
    if (np.diff(starts) >= 0).all():
        return np.append(starts[1:], last)
    places, counts = np.unique(np.append(starts, last), return_counts=True)
    at = np.searchsorted(places, starts)
    ends = np.append(places[1:], last)[at]
    return np.where(counts[at] > 1, starts - 1, ends)


def _segments(arrays: _Arrays, song_id: str, at: list[tuple[int, int]]) -> Floats:
    parts = []
    for (part, array), (begin, end) in zip(arrays.parts.items(), at, strict=True):
        if not 0 <= begin <= end <= min(len(array), begin + LONGEST):
            raise SongError(
                f"song {song_id!r}: expected 0 to {LONGEST} segments within the {len(array)} of {part}, "
                f"found {begin} to {end}"
            )
        with damage_named(f"song {song_id!r}: expected readable {part}, found damage"):
            parts.append(array[begin:end])
    timbre, pitches, loudness = map(len, parts)
    if not timbre == pitches == loudness:
        raise SongError(
            f"song {song_id!r}: expected as many rows of timbre as of pitches and loudness, found {timbre}, {pitches} "
            f"and {loudness}"
        )
    return np.column_stack(parts)


def _open(path: Path, _: Options) -> Source:
    return MsdSummary(path)


KIND = Kind("msd-summary", "many Million Song Dataset tracks in one HDF5 file", recognises, _open)
