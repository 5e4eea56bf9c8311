"""Whole songs in one `.npz` file: they come through value by value, and a bad file is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.data.song import Songs
from segue.data.songs import songs
from segue.data.sources.registry import recognise
from segue.data.sources.whole import WholeSongs
from segue.data.table import SongBatch, SongTable
from segue.errors import ConfigError, SongError
from tests.support.random_songs import random_segments

LENGTHS = np.array([3, 200, 1])
SEGMENTS = random_segments(204)
IDS = np.array(["TR1", "TR2", "TR3"])
FACTS: dict[str, Any] = {
    "targets": np.array([1, -1, 0]),
    "label_map": np.array(["Jazz", "Folk"]),
    "group": np.array([7, 7, 8]),
}


def save(path: Path, **changes: Any) -> Path:
    """Write a sound file of whole songs with some arrays changed, or left out where they are None."""
    arrays = {"segments": SEGMENTS, "lengths": LENGTHS, "track_ids": IDS} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def read(source: WholeSongs, start: int = 0) -> SongBatch:
    (batch,) = source.batches(start)
    assert isinstance(batch, SongBatch)
    return batch


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_songs_come_through_value_by_value(tmp_path: Path, dtype: Any) -> None:
    path, out = save(tmp_path / "songs.npz", segments=SEGMENTS.astype(dtype), **FACTS), tmp_path / "songs.arrow"
    assert recognise(path).name == "whole"
    assert songs((path, out)).songs == 3
    table = SongTable(out)
    assert (table.units, table.classes, table.song_ids) == ("raw", ("Jazz", "Folk"), ["TR1", "TR2", "TR3"])
    assert (table.labels.tolist(), table.groups) == ([1, -1, 0], ["7", "7", "8"])
    ends = np.cumsum(LENGTHS)
    for row, (start, end) in enumerate(zip(ends - LENGTHS, ends, strict=True)):
        np.testing.assert_array_equal(table.segments(row), SEGMENTS[start:end].astype(dtype).astype(np.float32))


def test_the_course_file_beside_it_says_what_the_songs_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "songs.npz", track_ids=IDS, fold=np.array([0, 1, 0]), **FACTS)
    source = WholeSongs(save(tmp_path / "songs_full_length.npz"), where={"fold": ["0"]})
    assert (len(source), source.classes) == (2, ("Jazz", "Folk"))
    batch = read(source)
    np.testing.assert_array_equal(batch.songs.segments, SEGMENTS[[0, 1, 2, 203]])
    assert (batch.song_ids, batch.labels, batch.groups) == (["TR1", "TR3"], ["Folk", "Jazz"], ["7", "8"])
    assert read(source, start=1).song_ids == ["TR3"]


def test_without_one_beside_it_no_song_has_a_label(tmp_path: Path) -> None:
    source = WholeSongs(save(tmp_path / "songs_full_length.npz"))
    batch = read(source)
    assert (source.classes, batch.labels, batch.groups) == ((), [None] * 3, [None] * 3)
    with pytest.raises(ConfigError, match="no field 'fold' to select by"):
        WholeSongs(tmp_path / "songs_full_length.npz", where={"fold": ["0"]})


def test_one_beside_it_that_is_of_other_songs_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "songs.npz", track_ids=IDS[::-1], **FACTS)
    with pytest.raises(SongError, match=r"expected the track_ids of songs\.npz in the same order, found others"):
        WholeSongs(save(tmp_path / "songs_full_length.npz"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": None}, "expected arrays 'segments' and 'lengths', found lengths, track_ids"),
        (
            {"segments": SEGMENTS.reshape(-1, 50)},
            r"expected segments \(n, 25\) of type float16 or float32, found float32 \(102, 50\)",
        ),
        ({"segments": SEGMENTS.astype(int)}, "of type float16 or float32, found int64"),
        ({"lengths": LENGTHS.astype(float)}, "expected an integer in lengths for each of the 3 songs, found float64"),
        ({"lengths": LENGTHS[:, None]}, r"in lengths for each of the 3 songs, found int64 \(3, 1\)"),
        ({"lengths": np.array([6, 200, 1])}, "add up to the 204 segments, found a least of 1 and a sum of 207"),
        ({"lengths": np.array([0, 203, 1])}, "found a least of 0 and a sum of 204"),
        ({"track_ids": IDS[:2]}, r"expected 'track_ids' for each of the 3 songs, found shape \(2,\)"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SongError, match=rf"songs\.npz: .*{message}"):
        WholeSongs(save(tmp_path / "songs.npz", **changes))


def test_the_real_songs_are_those_of_the_course_file(real_songs: Path, tmp_path: Path) -> None:
    """The central window of every whole song is the fixed one, but for the rounding to float16."""
    whole, fixed = tmp_path / "whole.arrow", tmp_path / "fixed.arrow"
    songs((real_songs / "msd_songs_full_length.npz", whole), where=("fold=3",))
    songs((real_songs / "msd_songs.npz", fixed), where=("fold=3",))
    found, expected = SongTable(whole), SongTable(fixed)
    assert (found.song_ids, found.groups) == (expected.song_ids, expected.groups)
    np.testing.assert_array_equal(found.labels, expected.labels)
    for row in range(len(found)):
        np.testing.assert_allclose(
            Songs.of([found.segments(row)]).windows()[0][0], expected.segments(row), rtol=1e-3, atol=1e-3
        )
