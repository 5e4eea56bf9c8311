"""A catalogue that grows, and a recipe that retrains on it in seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segue.data.song import Songs
from segue.data.synth import draw_genres, draw_songs
from segue.data.table import SongBatch
from tests.support.bundles import CLASSES, EASY
from tests.support.random_songs import save

SONGS_PER_ARTIST = 4

CATALOGUE_RECIPE = """
workspace = "$SPACE/work"
bundle = "$SPACE/bundle"
releases = "$SPACE/releases"

[songs]
sources = ["$SPACE/songs.arrow"]

[test]
sources = ["$SPACE/held-out.arrow"]

[teacher]
folds = 2
network = { shape = "dense", hidden = [64], hidden_dropout = 0.1 }
loop = { epochs = 4, batch_songs = 32, learning_rate = 3e-3 }

[student]
network = { hidden = [48] }
loop = { epochs = 4, batch_songs = 32, learning_rate = 3e-3 }

[export]
forms = { int8 = "never" }

[export.calibration]
points = 20

[gate]
cost_factor = 20.0  # Of networks this small a busy machine measures little.
ece_rise = 0.2
resamples = 500
"""


def write_songs(path: Path, n_songs: int, seed: int, *, shuffled: float = 0.0, louder_db: float = 0.0) -> Path:
    """Write songs of the tests' genres, four an artist; a share has its label shuffled, and all may be louder."""
    rng = np.random.default_rng(seed)
    values, labels = draw_songs(n_songs, draw_genres(len(CLASSES), 0, EASY), EASY, rng)
    values[..., 24] = np.clip(values[..., 24] + louder_db, -60, 0)
    wrong = rng.random(n_songs) < shuffled
    labels[wrong] = rng.integers(len(CLASSES), size=wrong.sum())
    batch = SongBatch(
        song_ids=[f"song-{seed}-{row}" for row in range(n_songs)],
        songs=Songs.of(values),
        labels=[CLASSES[label] for label in labels],
        groups=[f"artist-{seed}-{row // SONGS_PER_ARTIST}" for row in range(n_songs)],
    )
    save(path, batch, classes=CLASSES)
    return path


def write_catalogue(path: Path, weeks: Sequence[tuple[int, int, float]]) -> Path:
    """Write the songs of several weeks as one table: (songs, seed, share of shuffled labels) each."""
    from segue.data.songs import songs as convert

    parts = [
        write_songs(path.with_name(f"week-{seed}.arrow"), n, seed, shuffled=shuffled) for n, seed, shuffled in weeks
    ]
    path.unlink(missing_ok=True)
    convert((*parts, path))
    return path
