"""The feed: windows of the right songs from the right place, from disk and from a device's memory alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.song import Floats, Ints
from segue.data.table import SongBatch, SongTable
from segue.errors import SongError
from segue.training.fit.feed import ResidentFeed, TableFeed, central_starts, check_songs, open_feed, random_starts
from tests.support.random_songs import random_batch, save

LENGTHS = [1, 30, 119, 120, 121, 240, 400]
CPU = torch.device("cpu")
lengths = st.lists(st.integers(1, 500), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SongTable:
    return save(tmp_path_factory.mktemp("feed") / "songs.arrow", random_batch(LENGTHS), random_batch([200], seed=1))


def plain_window(song: Floats, start: int) -> Floats:
    """Return 120 segments from `start` on, a shorter song over and over."""
    return np.stack([song[(start + step) % len(song)] for step in range(120)])


@pytest.mark.parametrize("kind", [TableFeed, ResidentFeed])
def test_windows_are_the_songs_from_the_start_asked_for(
    table: SongTable, kind: type[TableFeed] | type[ResidentFeed]
) -> None:
    rows = np.array([6, 0, 3, 7, 1, 6, 4, 2, 5])
    starts = np.array([17, 0, 0, 80, 0, 280, 1, 0, 120])
    found = kind(table, CPU).windows(rows, starts)
    assert found.dtype == torch.float32
    expected = [plain_window(table.segments(row), start) for row, start in zip(rows, starts, strict=True)]
    np.testing.assert_array_equal(found, np.stack(expected))


def test_without_a_gpu_songs_stay_on_disk(table: SongTable) -> None:
    assert isinstance(open_feed(table, CPU), TableFeed)


@settings(deadline=None)
@given(lengths, st.integers(0, 2**32))
def test_random_windows_lie_inside_their_songs(some: list[int], seed: int) -> None:
    of_songs = np.array(some)
    starts = random_starts(of_songs, np.random.default_rng(seed))
    assert (starts >= 0).all()
    assert (starts + 120 <= np.maximum(of_songs, 120)).all()


@settings(deadline=None)
@given(lengths)
def test_the_central_window_has_as_much_before_it_as_behind_it(some: list[int]) -> None:
    for length, start in zip(some, central_starts(np.array(some)).tolist(), strict=True):
        assert start == (length - 120) // 2 if length >= 120 else start == 0


def broken(batch: SongBatch, place: int) -> SongBatch:
    batch.songs.segments[place, 3] = np.nan
    return batch


@pytest.mark.parametrize("at_a_time", [1, 3, 1024])
def test_the_first_broken_song_is_named_however_many_are_read_at_once(
    tmp_path: Path, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.training.fit.feed.SONGS_AT_A_TIME", at_a_time)
    songs = save(tmp_path / "songs.arrow", broken(random_batch([120] * 5), 120 * 4 + 7))
    fine: Ints = np.array([0, 2, 3])
    check_songs(songs, fine)
    with pytest.raises(SongError, match=r"songs\.arrow, song 'song-0-4', segment 7"):
        check_songs(songs, np.array([0, 4, 2]))
