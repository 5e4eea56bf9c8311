"""Synthetic songs: seeded, in range, and drawn from the distributions they claim."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segue.data.song import LOUDNESS, TIMBRE, Ints, check_segments
from segue.data.synth import Difficulty, _draw_states, batches, draw_genres, draw_songs, main, synth
from segue.data.table import SongBatch, SongTable
from segue.errors import ConfigError

PURE = Difficulty(states=5, stray=0, within=0, offset=0, label_noise=0)  # Every segment is the mean of its state.
MONTE_CARLO_SIGMAS = 5


def first_batch(n_songs: int, seed: int = 0, genre_seed: int = 0) -> SongBatch:
    return next(batches(n_songs, classes=4, seed=seed, genre_seed=genre_seed, difficulty=Difficulty()))


def assert_close_by_monte_carlo(counts: Ints, chances: NDArray[np.float64]) -> None:
    """Compare counts (..., n) with n times the chances they were drawn by, within the error of so many draws."""
    n = counts.sum(axis=-1, keepdims=True)
    error = np.sqrt(n * chances * (1 - chances))
    np.testing.assert_array_less(np.abs(counts - n * chances), MONTE_CARLO_SIGMAS * error + 1e-9)


def test_the_same_seed_makes_the_same_file_and_another_seed_other_songs(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        synth(tmp_path / name, songs=20, classes=3, seed=seed)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "same").read_bytes()
    one, other = SongTable(tmp_path / "one"), SongTable(tmp_path / "other")
    assert not set(one.song_ids) & set(other.song_ids)
    assert not np.array_equal(one.segments(0), other.segments(0))


def test_the_first_songs_are_the_same_however_many_are_asked_for() -> None:
    few, many = first_batch(7), first_batch(1003)
    assert (few.song_ids, few.labels) == (many.song_ids[:7], many.labels[:7])
    np.testing.assert_array_equal(few.songs.segments, many.songs.segments[: 7 * 120])


def test_every_batch_has_songs_of_its_own() -> None:
    first, second = batches(1002, classes=4, seed=0, genre_seed=0, difficulty=Difficulty())
    assert (len(first), len(second)) == (1000, 2)
    assert not set(first.song_ids) & set(second.song_ids)
    assert not np.array_equal(first.songs.segments[:120], second.songs.segments[:120])


def test_songs_are_120_segments_of_valid_raw_values(synthetic_songs: Path) -> None:
    table = SongTable(synthetic_songs)
    assert (len(table), table.units, set(table.lengths)) == (400, "raw", {120})
    segments = check_segments(np.concatenate(table.songs(range(400))), "all")
    assert np.abs(segments[:, TIMBRE]).max() < 1000
    assert table.classes == ("genre-00", "genre-01", "genre-02", "genre-03")
    assert set(table.labels) == {0, 1, 2, 3}


def test_genres_have_chances_that_add_up_to_one() -> None:
    genres = draw_genres(6, 0, Difficulty())
    np.testing.assert_allclose(genres.weights.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(genres.moves.sum(axis=2), 1, atol=1e-12)
    assert min(genres.weights.min(), genres.moves.min()) >= 0


def test_states_follow_the_moves_of_their_genre() -> None:
    genres = draw_genres(3, 0, Difficulty(states=5))
    genre = np.arange(6000) % 3
    walks = _draw_states(genre, genres, np.random.default_rng(0), segments=40)
    starts, moves = np.zeros((3, 5), int), np.zeros((3, 5, 5), int)
    for one, walk in zip(genre, walks.tolist(), strict=True):
        starts[one, walk[0]] += 1
        for state, following in itertools.pairwise(walk):
            moves[one, state, following] += 1
    assert_close_by_monte_carlo(starts, genres.weights)
    assert_close_by_monte_carlo(moves, genres.moves)


def test_the_share_of_wrong_labels_is_the_label_noise() -> None:
    genres = draw_genres(5, 0, Difficulty())
    clean, noisy = (
        draw_songs(20_000, genres, Difficulty(label_noise=share), np.random.default_rng(0), segments=1)
        for share in (0.0, 0.3)
    )
    np.testing.assert_array_equal(clean[0], noisy[0])
    changed = int((clean[1] != noisy[1]).sum())
    assert_close_by_monte_carlo(np.array([changed, 20_000 - changed]), np.array([0.3 * 4 / 5, 1 - 0.3 * 4 / 5]))


def test_labels_are_spread_evenly_over_the_genres() -> None:
    _, labels = draw_songs(20_000, draw_genres(5, 0, PURE), PURE, np.random.default_rng(1), segments=1)
    assert_close_by_monte_carlo(np.bincount(labels), np.full(5, 0.2))


def test_the_genres_are_the_same_for_every_seed_of_songs(tmp_path: Path) -> None:
    def timbres(name: str, seed: int, genre_seed: int) -> list[set[tuple[float, ...]]]:
        """Return the timbres of the sound states that each genre's songs pass through."""
        synth(tmp_path / name, songs=300, classes=2, seed=seed, genre_seed=genre_seed, difficulty=PURE)
        table = SongTable(tmp_path / name)
        songs = [np.concatenate(table.songs(np.flatnonzero(table.labels == label))) for label in (0, 1)]
        return [set(map(tuple, segments[:, TIMBRE].tolist())) for segments in songs]

    one = timbres("one", seed=0, genre_seed=0)
    assert one == timbres("two", seed=1, genre_seed=0)
    assert not one[0] & timbres("three", seed=0, genre_seed=1)[0]


def test_a_song_is_its_states_as_long_as_nothing_is_added() -> None:
    genres = draw_genres(2, 0, PURE)
    segments, _ = draw_songs(50, genres, PURE, np.random.default_rng(0))
    nearest = np.abs(segments[..., None, TIMBRE] - genres.states[:, TIMBRE]).sum(axis=-1).argmin(axis=-1)
    np.testing.assert_array_equal(segments[..., TIMBRE], genres.states[nearest][..., TIMBRE].astype(np.float32))
    loudness_db = genres.states[nearest][..., LOUDNESS].clip(-60, 0).astype(np.float32)
    np.testing.assert_array_equal(segments[..., LOUDNESS], loudness_db)


def test_chroma_is_transposed_as_a_whole_song() -> None:
    genres = draw_genres(2, 0, PURE)
    segments, _ = draw_songs(50, genres, PURE, np.random.default_rng(0))
    nearest = np.abs(segments[..., None, TIMBRE] - genres.states[:, TIMBRE]).sum(axis=-1).argmin(axis=-1)
    plain = genres.states[nearest][..., 12:24].astype(np.float32)
    keys = [
        next(key for key in range(12) if np.array_equal(song, np.roll(states, -key, axis=1)))
        for song, states in zip(segments[..., 12:24], plain, strict=True)
    ]
    assert len(set(keys)) > 6


@pytest.mark.parametrize(
    ("setting", "value"), [("label_noise", 1.5), ("stray", -0.1), ("states", 1), ("concentration", 0.0)]
)
def test_dials_that_no_song_can_follow_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        Difficulty(**{setting: value})


def test_the_verb_refuses_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "songs.arrow"), "--songs", "5", "--classes", "1"]) == 1
    assert "segue synth: expected songs >= 1, classes >= 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_verb_takes_every_dial(tmp_path: Path) -> None:
    out = tmp_path / "songs.arrow"
    assert main([str(out), "--songs", "5", "--classes", "2", "--seed", "9", "--label-noise", "0", "--states", "3"]) == 0
    assert SongTable(out).song_ids == [f"synth-9-000000{row}" for row in range(5)]
