"""Source: Million Song Dataset tracks, one HDF5 file a track, alone or in a folder tree.

From `/analysis`: `segments_timbre` (T, 12), `segments_pitches` (T, 12), `segments_loudness_start` (T,); the track id
from `/analysis/songs`, the artist from `/metadata/songs` (Bertin-Mahieux et al. 2011).
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from data.errors import SongError
from data.song import Units, check_segments
from data.source import BATCH_SONGS, Skipped
from data.table import SongBatch


class MsdTracks:
    """The tracks of a folder tree, or one track, in the order of their names."""

    units: Units = "raw"
    classes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """List the tracks under `path`."""
        self._files = sorted(path.rglob("*.h5")) if path.is_dir() else [path]
        if not self._files:
            raise SongError(f"{path}: expected a folder with Million Song Dataset tracks (*.h5), found none")

    def __len__(self) -> int:
        return len(self._files)

    def batches(self) -> Iterator[SongBatch | Skipped]:
        """Yield the tracks in batches; a file that cannot be read is yielded as `Skipped`."""
        tracks: list[SongBatch] = []
        for file in self._files:
            try:
                tracks.append(self._track(file))
            except SongError as error:
                yield Skipped(file.name, str(error))
            if len(tracks) == BATCH_SONGS:
                yield _join(tracks)
                tracks = []
        if tracks:
            yield _join(tracks)

    def _track(self, file: Path) -> SongBatch:
        try:
            with h5py.File(file) as track:
                analysis = track["analysis"]
                timbre = analysis["segments_timbre"][:]
                pitches = analysis["segments_pitches"][:]
                loudness = analysis["segments_loudness_start"][:]
                track_id = analysis["songs"]["track_id"][0].decode()
                artist_id = track["metadata"]["songs"]["artist_id"][0].decode()
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise SongError(f"not a readable Million Song Dataset track, it may be cut short: {error}") from None
        if not len(timbre) == len(pitches) == len(loudness):
            raise SongError(
                f"expected as many rows of timbre as of pitches and loudness, found {len(timbre)}, {len(pitches)} "
                f"and {len(loudness)}"
            )
        segments = check_segments(np.column_stack([timbre, pitches, loudness]), track_id)
        return SongBatch([track_id], segments, np.array([len(segments)]), [None], [artist_id or None])


def _join(tracks: list[SongBatch]) -> SongBatch:
    return SongBatch(
        song_ids=[track.song_ids[0] for track in tracks],
        segments=np.concatenate([track.segments for track in tracks]),
        lengths=np.array([len(track.segments) for track in tracks]),
        labels=[None] * len(tracks),
        groups=[track.groups[0] for track in tracks],
    )
