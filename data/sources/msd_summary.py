"""Source: many Million Song Dataset tracks in one HDF5 file, as the dataset's `create_aggregate_file.py` writes them.

A row of `/analysis/songs` is a song. Its `idx_segments_timbre`, `idx_segments_pitches` and
`idx_segments_loudness_start` say where it begins in `/analysis/segments_timbre` (N, 12), `segments_pitches` (N, 12) and
`segments_loudness_start` (N,), which hold all songs one after the other; it ends where the next one begins. The artist
is in `/metadata/songs`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from segue.data.song import Floats, Ints, Songs, Units, check_segments
from segue.data.sources.source import BATCH_SONGS, NOTHING, Kind, Options, Skipped, Source, in_batches
from segue.data.table import SongBatch
from segue.errors import SongError

WIDTHS = {"segments_timbre": (12,), "segments_pitches": (12,), "segments_loudness_start": ()}
LONGEST = 100_000  # segments, some seven hours; a longer song is a broken index


class MsdSummary:
    """The songs of one summary file, in the order of its rows."""

    units: Units = "raw"
    classes: tuple[str, ...] = ()
    passed_over = NOTHING

    def __init__(self, path: Path) -> None:
        """Open the file and check that it has what a summary with segments has."""
        self._path = path
        with _opened(path) as file:
            self._n_songs = _check_tables(path, file)
            _check_segment_arrays(path, file["analysis"])

    def __len__(self) -> int:
        return self._n_songs

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the songs after the first `start`; one that cannot be read is yielded as `Skipped`."""
        return in_batches(self._songs(start))

    def _songs(self, start: int) -> Iterator[SongBatch | Skipped]:
        with _opened(self._path) as file:
            analysis, metadata = file["analysis"], file["metadata/songs"]
            for first in range(start, self._n_songs, BATCH_SONGS):
                rows = slice(first, min(first + BATCH_SONGS, self._n_songs))
                ids, artists = analysis["songs"].fields("track_id")[rows], metadata.fields("artist_id")[rows]
                bounds = [_bounds(analysis, part, rows) for part in WIDTHS]
                for song_id, artist, *at in zip(_text(ids), _text(artists), *bounds, strict=True):
                    yield _song(analysis, song_id, artist or None, at)


def recognises(path: Path) -> bool:
    """Tell whether `path` is an HDF5 file with more than one song."""
    if path.is_dir() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path) as file:
            songs = file.get("analysis/songs")
            return isinstance(songs, h5py.Dataset) and bool(songs.shape) and songs.shape[0] > 1
    except (OSError, KeyError, RuntimeError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise SongError(
            f"{path}: not a readable Million Song Dataset summary, it may be cut short: {error}. Fetch it again."
        ) from None


def _check_tables(path: Path, file: Any) -> int:
    """Return the number of songs, on which both tables must agree."""
    tables = {
        "analysis/songs": {"track_id", *(f"idx_{part}" for part in WIDTHS)},
        "metadata/songs": {"artist_id"},
    }
    rows = set()
    for name, columns in tables.items():
        table = file[name]
        missing = columns - set(table.dtype.names or ())
        if missing:
            raise SongError(f"{path}: expected /{name} with columns {', '.join(sorted(columns))}; found no {missing}")
        rows.add(len(table))
    if len(rows) > 1:
        raise SongError(f"{path}: expected as many rows in /analysis/songs as in /metadata/songs, found {sorted(rows)}")
    return rows.pop()


def _check_segment_arrays(path: Path, analysis: Any) -> None:
    missing = [part for part in WIDTHS if part not in analysis or not len(analysis[part])]
    if missing:
        raise SongError(
            f"{path}: expected the songs' segments in /analysis, found none in {', '.join(missing)}. A summary of "
            "metadata alone, as msd_summary_file.h5 is, has none: take the tracks, or an aggregate file of them."
        )
    for part, width in WIDTHS.items():
        array = analysis[part]
        if array.shape[1:] != width or array.dtype.kind not in "fiu":
            expected = ", ".join(map(str, ("N", *width)))
            raise SongError(
                f"{path}: expected numbers of shape ({expected}) in {part}, found {array.dtype} {array.shape}"
            )


def _bounds(analysis: Any, part: str, rows: slice) -> Iterator[tuple[int, int]]:
    """Return where each song of `rows` begins and ends in an array: the last one of all ends with it."""
    begins: Ints = analysis["songs"].fields(f"idx_{part}")[rows.start : rows.stop + 1].astype(np.int64)
    ends = np.append(begins[1:], len(analysis[part]))
    return zip(begins[: rows.stop - rows.start].tolist(), ends.tolist(), strict=False)


def _song(analysis: Any, song_id: str, artist: str | None, at: list[tuple[int, int]]) -> SongBatch | Skipped:
    try:
        segments = check_segments(_segments(analysis, song_id, at), song_id)
    except SongError as error:
        return Skipped(song_id, str(error))
    return SongBatch([song_id], Songs.of([segments]), [None], [artist])


def _segments(analysis: Any, song_id: str, at: list[tuple[int, int]]) -> Floats:
    parts = []
    for part, (begin, end) in zip(WIDTHS, at, strict=True):
        if not 0 <= begin <= end <= min(len(analysis[part]), begin + LONGEST):
            raise SongError(
                f"song {song_id!r}: expected 0 to {LONGEST} segments within the {len(analysis[part])} of {part}, "
                f"found {begin} to {end}"
            )
        try:
            parts.append(analysis[part][begin:end])
        except (OSError, RuntimeError) as error:
            raise SongError(f"song {song_id!r}: expected readable {part}, found damage: {error}") from None
    timbre, pitches, loudness = map(len, parts)
    if not timbre == pitches == loudness:
        raise SongError(
            f"song {song_id!r}: expected as many rows of timbre as of pitches and loudness, found {timbre}, {pitches} "
            f"and {loudness}"
        )
    return np.column_stack(parts)


def _text(names: NDArray[Any]) -> list[str]:
    return [name.decode(errors="replace") for name in names]


def _open(path: Path, _: Options) -> Source:
    return MsdSummary(path)


KIND = Kind("msd-summary", "many Million Song Dataset tracks in one HDF5 file", recognises, _open)
