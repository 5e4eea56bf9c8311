"""Random raw songs for tests, within the ranges that `segue.data.song` allows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segue.data.song import Floats, Songs, Units
from segue.data.table import SongBatch, SongTable, write_table


def random_segments(n_segments: int, seed: int = 0) -> Floats:
    """Return segments (n_segments, 25) that pass every check."""
    rng = np.random.default_rng(seed)
    timbre, chroma = rng.normal(0, 40, (n_segments, 12)), rng.random((n_segments, 12))
    loudness_db = rng.uniform(-60, 0, (n_segments, 1))
    return np.hstack([timbre, chroma, loudness_db]).astype(np.float32)


def random_batch(
    lengths: Sequence[int],
    labels: Sequence[str | None] = (),
    groups: Sequence[str | None] = (),
    seed: int = 0,
) -> SongBatch:
    """Return songs of the given lengths; without labels or groups they have none."""
    nothing: list[str | None] = [None] * len(lengths)
    return SongBatch(
        song_ids=[f"song-{seed}-{row}" for row in range(len(lengths))],
        songs=Songs(random_segments(sum(lengths), seed), np.array(lengths, dtype=np.int64)),
        labels=[*labels] or nothing,
        groups=[*groups] or nothing,
    )


def save(path: Path, *batches: SongBatch, units: Units = "raw", classes: Sequence[str] = ()) -> SongTable:
    """Write the batches to a song table and open it."""
    with write_table(path, units, classes) as table:
        for batch in batches:
            table.write(batch)
    return SongTable(path)
