"""Source: Million Song Dataset tracks, one HDF5 file a track, alone or in a folder tree.

From `/analysis`: `segments_timbre` (T, 12), `segments_pitches` (T, 12), `segments_loudness_start` (T,); the track id
from `/analysis/songs`, the artist from `/metadata/songs` (Bertin-Mahieux et al. 2011).
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from h5py import h5s, h5t
from numpy.typing import NDArray

from segue.data.song import Songs, Units, check_segments
from segue.data.sources.folder import Listing, has_file, list_files
from segue.data.sources.hdf5 import dataset, decoded, opened, text_type
from segue.data.sources.source import LONGEST, Kind, Options, Skipped, Source, join, readable, starts_with
from segue.data.table import SongBatch
from segue.errors import SongError
from segue.machine import usable_cores

BLOCKS = ("timbre", "pitches", "loudness_start")
SUFFIXES = (".h5", ".hdf5", ".hdf")
Tracks = list[SongBatch | Skipped]
TRACKS_AT_A_TIME = 64  # Some megabytes of segments.


class MsdTracks:
    """The tracks of a folder tree, or one track, in the order of their names."""

    units: Units = "raw"
    classes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """List the tracks under `path`."""
        listing = list_files(path, SUFFIXES) if path.is_dir() else Listing([path], {})
        self._files, self.passed_over = listing.files, listing.passed_over
        if not self._files:
            raise SongError(f"{path}: expected a folder with Million Song Dataset tracks (*.h5), found none")

    def __len__(self) -> int:
        return len(self._files)

    def batches(self, start: int = 0) -> Iterator[SongBatch | Skipped]:
        """Yield the tracks in order, read by all cores; a file that cannot be read is yielded as `Skipped`."""
        files = self._files[start:]
        shares = [files[at : at + TRACKS_AT_A_TIME] for at in range(0, len(files), TRACKS_AT_A_TIME)]
        workers = min(usable_cores(), len(shares))
        if workers < 2:
            for share in shares:
                yield from read_tracks(share)
            return
        yield from in_processes(shares, workers)


def in_processes(
    shares: Sequence[Sequence[Path]], workers: int, read: Callable[[Sequence[Path]], Tracks] | None = None
) -> Iterator[SongBatch | Skipped]:
    """Yield the tracks of all shares in order, as `read` returns them (by default `read_tracks`), read by processes.

    Processes, not threads: HDF5 lets one thread of a process in at a time. A file over which HDF5 ends the process is
    yielded as `Skipped`.
    """
    first = 0
    while first < len(shares):
        try:
            for tracks in _in_order(shares[first:], workers, read or read_tracks):
                yield from tracks
                first += 1
        except BrokenProcessPool:  # Over a file of this share, or of one that was read ahead.
            for file in shares[first]:
                yield from _alone(file, read or read_tracks)
            first += 1


def _in_order(
    shares: Sequence[Sequence[Path]], workers: int, read: Callable[[Sequence[Path]], Tracks]
) -> Iterator[Tracks]:
    # Spawned, since forks inherit locks.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting: deque[Future[Tracks]] = deque()
        for share in shares:
            waiting.append(pool.submit(read, share))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _alone(file: Path, read: Callable[[Sequence[Path]], Tracks]) -> Tracks:
    try:
        (tracks,) = _in_order([[file]], 1, read)
    except BrokenProcessPool:
        return [Skipped(readable(file.name), "a damaged HDF5 file, which ended the process that read it")]
    return tracks


def read_tracks(files: Sequence[Path]) -> Tracks:
    """Return the tracks of some files as one batch, and before it what could not be read."""
    tracks: list[SongBatch] = []
    skipped: list[SongBatch | Skipped] = []
    for file in files:
        try:
            tracks.append(read_track(file))
        except SongError as error:
            skipped.append(Skipped(readable(file.name), str(error)))
    return [*skipped, join(tracks)] if tracks else skipped


def read_track(file: Path) -> SongBatch:
    """Return the one song of a track file."""
    with opened(file, "not a readable Million Song Dataset track, it may be cut short") as track:
        timbre, pitches, loudness = (_array(track, f"analysis/segments_{name}") for name in BLOCKS)
        track_id = _text(track, "analysis/songs", "track_id") or readable(file.stem)
        artist_id = _text(track, "metadata/songs", "artist_id")
    if not len(timbre) == len(pitches) == len(loudness):
        raise SongError(
            f"expected as many rows of timbre as of pitches and loudness, found {len(timbre)}, {len(pitches)} "
            f"and {len(loudness)}"
        )
    segments = check_segments(np.column_stack([timbre, pitches, loudness]), track_id)
    return SongBatch([track_id], Songs.of([segments]), [None], [artist_id or None])


# Below h5py's datasets, whose wrapping of a table of 20 columns takes as long as reading a whole song.


def _array(track: Any, name: str) -> NDArray[np.float64]:
    found = dataset(track, name)
    if len(found.shape) not in (1, 2) or found.shape[0] > LONGEST or found.shape[1:] not in ((), (12,)):
        raise SongError(f"expected at most {LONGEST} rows of numbers in /{name}, found shape {found.shape}")
    if found.get_type().get_class() not in (h5t.FLOAT, h5t.INTEGER):
        raise SongError(f"expected numbers in /{name}, found {found.dtype}")
    values = np.empty(found.shape)
    found.read(h5s.ALL, h5s.ALL, values)
    return values


def _text(track: Any, table: str, column: str) -> str:
    """Return a text column of a table of one row."""
    rows = dataset(track, table)
    if rows.shape != (1,):
        raise SongError(f"expected one row in /{table}, a file of one track, found shape {rows.shape}")
    text = text_type(rows, column)
    only = h5t.create(h5t.COMPOUND, text.get_size())
    only.insert(column.encode(), 0, text)
    found = np.empty(1, dtype=f"S{text.get_size()}")
    rows.read(h5s.ALL, h5s.ALL, found, only)
    return decoded(found[0])


def _end_with_parent() -> None:
    """Let this worker end when its parent is killed; it would wait for work for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    Thread(target=watch, daemon=True).start()


def recognises(path: Path) -> bool:
    """Tell whether `path` is an HDF5 file, or a folder with HDF5 files."""
    return starts_with(path, b"\x89HDF") or has_file(path, SUFFIXES)


def _open(path: Path, _: Options) -> Source:
    return MsdTracks(path)


KIND = Kind("msd", "Million Song Dataset tracks, an HDF5 file or a folder tree of them", recognises, _open)
