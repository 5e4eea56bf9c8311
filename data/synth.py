"""Make synthetic songs: seeded, in MSD units and ranges, with something to learn in their averages and in their order.

All genres share a set of sound states. A genre is a weighting over them, with habits of its own of moving from one to
the next. On top of that come segments that stray to any state, an offset a song (production, level), a transposition of
the chroma, and wrong labels. The genres are the same for every seed, so that two tables with different seeds are two
samples of one world: train on one, test on the other.

Examples:
    segue synth artifacts/songs.arrow --songs 8000
    segue synth artifacts/test.arrow --songs 2000 --seed 1
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tyro.conf import Positional

from segue.command import run
from segue.data.song import CHROMA, LOUDNESS, LOUDNESS_RANGE_DB, N_FEATURES, TIMBRE, WINDOW, Floats, Ints, Songs
from segue.data.sources.source import BATCH_SONGS
from segue.data.table import SongBatch, write_table
from segue.errors import ConfigError
from segue.places import check_out

# Mean and standard deviation of the 12 timbre coefficients and of the loudness over 1,894 tracks of the Million Song
# Dataset.
TIMBRE_MEAN = (45.8, 11.5, 11.4, -2.8, -8.7, -10.1, -3.0, -2.3, 4.6, 2.0, -1.0, 2.3)
TIMBRE_SD = (6.5, 60.4, 47.2, 36.6, 34.7, 29.7, 26.4, 23.0, 21.3, 18.7, 16.6, 18.0)
LOUDNESS_MEAN_DB, LOUDNESS_SD_DB = -17.8, 7.8
CHROMA_SD = 0.3


@dataclass(frozen=True)
class Difficulty:
    """The dials of the synthetic songs; `docs/synthetic-songs.md` shows what the models make of the defaults."""

    states: int = 24  # Sound states that all genres share.
    concentration: float = 0.3  # Dirichlet parameter of a genre's weights: small = few states, easy to tell.
    self_transition: float = 0.3  # Chance that a state goes on to itself.
    habit: float = 0.5  # Share of the other moves that follow the genre's favourite successors.
    stray: float = 0.4  # Share of segments from any state, whatever the genre.
    within: float = 0.6  # Spread of segments inside a state, in standard deviations of the feature.
    offset: float = 0.2  # Spread of a song's own offset, in standard deviations of the feature.
    label_noise: float = 0.1  # Share of songs whose label is drawn at random.

    def __post_init__(self) -> None:
        """Refuse dials that no song can follow."""
        shares = {name: getattr(self, name) for name in ("self_transition", "habit", "stray", "label_noise")}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: expected a share between 0 and 1, found {value}")
        if self.states < 2 or not self.concentration > 0 or self.within < 0 or self.offset < 0:
            raise ConfigError(f"expected states >= 2, concentration > 0, within >= 0 and offset >= 0; found {self}")


@dataclass(frozen=True)
class Genres:
    """The world that songs are drawn from.

    Attributes:
        states: (n_states, 25) mean segment of each sound state.
        weights: (n_genres, n_states) how much a genre likes each state.
        moves: (n_genres, n_states, n_states) chance of the next state, given the present one.
    """

    states: NDArray[np.float64]
    weights: NDArray[np.float64]
    moves: NDArray[np.float64]


def draw_genres(classes: int, seed: int, difficulty: Difficulty) -> Genres:
    """Draw sound states and `classes` genres over them."""
    rng = np.random.default_rng(seed)
    n = difficulty.states
    states = np.empty((n, N_FEATURES))
    states[:, TIMBRE] = np.array(TIMBRE_MEAN) + np.array(TIMBRE_SD) * rng.standard_normal((n, 12))
    chroma = rng.gamma(0.5, size=(n, 12))
    states[:, CHROMA] = chroma / chroma.max(axis=1, keepdims=True)
    states[:, LOUDNESS] = LOUDNESS_MEAN_DB + LOUDNESS_SD_DB * rng.standard_normal(n)
    weights = rng.dirichlet(np.full(n, difficulty.concentration), size=classes)
    moves = np.empty((classes, n, n))
    for genre in range(classes):
        liking = (weights[genre] + 1 / n) / 2
        successors = np.stack([rng.choice(n, size=2, replace=False, p=liking) for _ in range(n)])
        habits = np.zeros((n, n))
        np.put_along_axis(habits, successors, 0.5, axis=1)
        free = (1 - difficulty.habit) * weights[genre] + difficulty.habit * habits
        moves[genre] = difficulty.self_transition * np.eye(n) + (1 - difficulty.self_transition) * free
    return Genres(states, weights, moves)


def draw_songs(
    n_songs: int, genres: Genres, difficulty: Difficulty, rng: np.random.Generator, segments: int = WINDOW
) -> tuple[Floats, Ints]:
    """Draw songs of the genres: segments (n_songs, segments, 25) in raw units, and labels (n_songs,)."""
    n_genres, n_states = genres.weights.shape
    genre = rng.integers(n_genres, size=n_songs)
    state = _draw_states(genre, genres, rng, segments)
    strays = rng.random(state.shape) < difficulty.stray
    state = np.where(strays, rng.integers(n_states, size=state.shape), state)

    spread = np.array([*TIMBRE_SD, *[CHROMA_SD] * 12, LOUDNESS_SD_DB], dtype=np.float32)
    values: Floats = genres.states.astype(np.float32)[state]
    values += difficulty.within * spread * rng.standard_normal(values.shape, dtype=np.float32)
    values += difficulty.offset * spread * rng.standard_normal((n_songs, 1, N_FEATURES), dtype=np.float32)

    transposed = (np.arange(12) + rng.integers(12, size=(n_songs, 1))) % 12
    chroma = np.take_along_axis(values[..., CHROMA], transposed[:, None, :], axis=2)
    values[..., CHROMA] = chroma.clip(0, 1)
    values[..., LOUDNESS] = values[..., LOUDNESS].clip(*LOUDNESS_RANGE_DB)
    wrong = rng.random(n_songs) < difficulty.label_noise
    return values, np.where(wrong, rng.integers(n_genres, size=n_songs), genre)


def _draw_states(genre: Ints, genres: Genres, rng: np.random.Generator, segments: int) -> Ints:
    """Walk each song's Markov chain, all songs at once, by the inverse of the cumulative distribution."""
    last = genres.weights.shape[1] - 1
    starts = genres.weights.cumsum(axis=1)[genre]
    moves = genres.moves.cumsum(axis=2)
    walk = np.empty((len(genre), segments), dtype=np.int64)
    cumulative = starts
    for step in range(segments):
        chance = rng.random((len(genre), 1))
        walk[:, step] = (chance > cumulative).sum(axis=1).clip(max=last)
        cumulative = moves[genre, walk[:, step]]
    return walk


def batches(songs: int, classes: int, seed: int, genre_seed: int, difficulty: Difficulty) -> Iterator[SongBatch]:
    """Yield `songs` synthetic songs in batches; the first ones are the same however many are asked for."""
    genres = draw_genres(classes, genre_seed, difficulty)
    for first in range(0, songs, BATCH_SONGS):
        values, labels = draw_songs(BATCH_SONGS, genres, difficulty, np.random.default_rng([seed, first]))
        n = min(BATCH_SONGS, songs - first)
        yield SongBatch(
            song_ids=[f"synth-{seed}-{first + row:07d}" for row in range(n)],
            songs=Songs.of(values[:n]),
            labels=[genre_name(label) for label in labels[:n]],
            groups=[None] * n,
        )


def genre_name(index: int) -> str:
    """Return the name of a synthetic genre."""
    return f"genre-{index:02d}"


@dataclass(frozen=True)
class Synthesis:
    """What `segue synth` wrote."""

    out: Path
    songs: int
    classes: int
    difficulty: Difficulty

    def __str__(self) -> str:
        return f"{self.out}: {self.songs} synthetic songs of {self.classes} genres (raw)"


def synth(
    out: Positional[Path],
    songs: int,
    classes: int = 10,
    seed: int = 0,
    genre_seed: int = 0,
    difficulty: Difficulty = Difficulty(),
    overwrite: bool = False,
) -> Synthesis:
    """Make synthetic songs.

    Args:
        out: The table to write: Parquet if it ends in .parquet, else Arrow. One that this verb made is replaced.
        songs: How many songs.
        classes: How many genres.
        seed: Picks the songs.
        genre_seed: Picks the genres; keep it to get more songs of the same ones.
        difficulty: How hard the genres are to tell apart.
        overwrite: Replace what is there, whatever made it.
    """
    if songs < 1 or classes < 2 or seed < 0 or genre_seed < 0:
        raise ConfigError(
            f"expected songs >= 1, classes >= 2 and seeds >= 0; found {songs}, {classes}, {seed}, {genre_seed}"
        )
    check_out(out, "synth", [], overwrite=overwrite)
    progress = tqdm(total=songs, unit=" songs", disable=None, file=sys.stderr)
    with write_table(out, "raw", [genre_name(index) for index in range(classes)], made_by="synth") as table, progress:
        for batch in batches(songs, classes, seed, genre_seed, difficulty):
            table.write(batch)
            progress.update(len(batch))
    return Synthesis(out, songs, classes, difficulty)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `segue synth`."""
    return run(synth, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
