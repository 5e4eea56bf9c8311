"""Long songs as several: consecutive windows of a song become songs of their own."""

import numpy as np

from segue.data.song import WINDOW, Songs
from segue.data.table import SongBatch


def parts_of(batch: SongBatch) -> SongBatch:
    """Return every whole window of the songs, one after the other, as songs of 120 segments.

    The first part of `ID` is `ID/1`. All parts share the group of their song, or, where it has none, its id, so that no
    split tears them apart. What is left over at the end is dropped; a song shorter than a window stays as it is.
    """
    songs = batch.songs
    counts = np.maximum(songs.lengths // WINDOW, 1)
    owner = np.repeat(np.arange(len(batch)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = owner.tolist()
    parts = [songs[row][at * WINDOW : (at + 1) * WINDOW] for row, at in zip(rows, place.tolist(), strict=True)]
    return SongBatch(
        song_ids=[f"{batch.song_ids[row]}/{at + 1}" for row, at in zip(rows, place.tolist(), strict=True)],
        songs=Songs.of(parts),
        labels=[batch.labels[row] for row in rows],
        groups=[batch.groups[row] or batch.song_ids[row] for row in rows],
        second_labels=[batch.second_labels[row] for row in rows] if batch.second_labels else [],
        splits=[batch.splits[row] for row in rows] if batch.splits else [],
    )
