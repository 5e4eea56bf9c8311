"""Tables that stand apart, and songs that become several: nothing is lost, nothing torn apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segue.data.joined import JoinedSongs, open_songs
from segue.data.parts import parts_of
from segue.data.songs import songs as convert
from segue.data.splits import Shares, split
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import LabelError, SongError
from tests.support.random_songs import random_batch, save


def test_rows_of_joined_tables_are_those_of_both(tmp_path: Path) -> None:
    for name, seed, songs in (("a", 0, 60), ("b", 1, 40)):
        synth(tmp_path / f"{name}.arrow", songs, classes=3, seed=seed)
    first, second = SongTable(tmp_path / "a.arrow"), SongTable(tmp_path / "b.arrow")
    joined = open_songs(first.path, second.path)
    assert isinstance(joined, JoinedSongs)
    assert len(joined) == 100
    np.testing.assert_array_equal(joined.labels, np.concatenate([first.labels, second.labels]))
    for row in (0, 59, 60, 99):
        part, at = (first, row) if row < 60 else (second, row - 60)
        np.testing.assert_array_equal(joined.segments(row), part.segments(at))
        assert joined.song_ids[row] == part.song_ids[at]
    assert joined.lengths.tolist() == [120] * 100
    assert joined.fingerprint() not in (first.fingerprint(), second.fingerprint())
    splits = split(joined, Shares(validation=0.3, calibration=0.25), seed=0)
    np.testing.assert_array_equal(splits.validation, np.arange(60, 100))
    assert max(splits.train.max(), splits.calibration.max()) < 60
    assert len(splits.train) + len(splits.calibration) == 60


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first = save(tmp_path / "a.arrow", random_batch([120, 120], ["Jazz", "Rock"]))
    with pytest.raises(SongError, match=r"a\.arrow: expected other songs than in .*, found 2 that are in both"):
        JoinedSongs(first, first)
    batch = random_batch([120])
    other = save(tmp_path / "b.arrow", replace(batch, song_ids=["x"], labels=["Folk"]))
    with pytest.raises(LabelError, match=r"labels Folk are not among the expected classes: Jazz, Rock"):
        JoinedSongs(first, other)


def test_parts_are_the_consecutive_windows_of_their_song() -> None:
    batch = random_batch([361, 40, 240, 120], ["a", "b", "c", None], ["x", None, None, "y"])
    parts = parts_of(batch)
    names = batch.song_ids
    assert parts.song_ids == [
        f"{names[song]}/{at}" for song, at in ((0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (2, 2), (3, 1))
    ]
    assert parts.songs.lengths.tolist() == [120, 120, 120, 40, 120, 120, 120]
    assert parts.labels == ["a", "a", "a", "b", "c", "c", None]
    assert parts.groups == ["x", "x", "x", names[1], names[2], names[2], "y"]
    np.testing.assert_array_equal(parts.songs.segments, np.delete(batch.songs.segments, 360, axis=0))


def test_the_verb_splits_songs_into_parts_and_no_split_tears_them_apart(tmp_path: Path) -> None:
    save(tmp_path / "long.arrow", random_batch([300] * 40, ["a", "b"] * 20))
    convert((tmp_path / "long.arrow", tmp_path / "parts.arrow"), parts=True)
    table = SongTable(tmp_path / "parts.arrow")
    assert len(table) == 80
    splits = split(table, Shares(validation=0.2, calibration=0.2), seed=0)
    sides = [{table.groups[row] for row in rows} for rows in vars(splits).values() if len(rows)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40
