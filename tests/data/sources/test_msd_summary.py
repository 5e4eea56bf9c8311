"""Million Song Dataset summaries: every song of the file comes through, and a broken song harms no other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.song import Floats
from segue.data.sources.msd import MsdTracks
from segue.data.sources.msd_summary import MsdSummary, recognises
from segue.data.sources.source import Skipped, Source, Tally
from segue.data.table import SongBatch
from segue.errors import SongError
from tests.support.random_songs import random_segments

PARTS = ("segments_timbre", "segments_pitches", "segments_loudness_start")
IDX = [f"idx_{part}" for part in PARTS]


def write_summary(path: Path, songs: Mapping[str, Floats]) -> Path:
    """Write songs in the layout of `create_aggregate_file.py`: tables of rows, and arrays that all songs share."""
    everything = np.concatenate([*songs.values(), np.zeros((0, 25))])
    begins = np.cumsum([0, *(len(segments) for segments in songs.values())])
    columns = [
        ("analysis_sample_rate", "<i4"),
        ("duration", "<f8"),
        *((name, "<i4") for name in IDX),
        ("track_id", "S32"),
    ]
    rows = [(22050, 1.5, *[begin] * 3, song_id) for song_id, begin in zip(songs, begins, strict=False)]
    with h5py.File(path, "w") as file:
        file["analysis/songs"] = np.array(rows, columns)
        artists = [(f"AR-{song_id}" if song_id else "", 0.5) for song_id in songs]
        file["metadata/songs"] = np.array(artists, [("artist_id", "S32"), ("song_hotttnesss", "<f8")])
        for part, values in zip(PARTS, (everything[:, :12], everything[:, 12:24], everything[:, 24]), strict=True):
            shape = (None, *values.shape[1:])
            file.create_dataset(
                f"analysis/{part}", data=values, dtype="<f8", maxshape=shape, chunks=(64, *shape[1:]), compression=1
            )
    return path


def three_songs() -> dict[str, Floats]:
    return {f"TR{length}": random_segments(length, seed=length) for length in (300, 120, 7)}


def read(path: Path) -> tuple[list[SongBatch], list[Skipped]]:
    source: Source = MsdSummary(path)
    items = list(source.batches())
    skipped = [item for item in items if isinstance(item, Skipped)]
    return [item for item in items if isinstance(item, SongBatch)], skipped


def test_songs_come_through_value_by_value(tmp_path: Path) -> None:
    songs = three_songs()
    path = write_summary(tmp_path / "summary.h5", songs)
    (batch,), skipped = read(path)
    assert not skipped
    assert len(MsdSummary(path)) == 3
    assert (MsdSummary(path).units, MsdSummary(path).classes) == ("raw", ())
    assert batch.song_ids == ["TR300", "TR120", "TR7"]
    assert batch.groups == ["AR-TR300", "AR-TR120", "AR-TR7"]
    assert batch.labels == [None] * 3
    assert batch.songs.lengths.tolist() == [300, 120, 7]
    assert batch.songs.segments.dtype == np.float32
    np.testing.assert_array_equal(batch.songs.segments, np.concatenate(list(songs.values())))


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12), rows=st.integers(1, 5))
def test_songs_of_all_lengths_come_through_however_they_are_sliced(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], rows: int
) -> None:
    songs = {f"TR{row}": random_segments(length, seed=row) for row, length in enumerate(lengths)}
    path = write_summary(tmp_path_factory.mktemp("h5") / "summary.h5", songs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segue.data.sources.msd_summary.BATCH_SONGS", rows)
        patch.setattr("segue.data.sources.source.BATCH_SONGS", 3)
        batches, skipped = read(path)
    assert not skipped
    assert max(map(len, batches)) <= 3
    assert [song_id for batch in batches for song_id in batch.song_ids] == list(songs)
    assert [length for batch in batches for length in batch.songs.lengths] == lengths
    np.testing.assert_array_equal(
        np.concatenate([batch.songs.segments for batch in batches]), np.concatenate([*songs.values()])
    )


@pytest.mark.parametrize("start", range(4))
def test_an_earlier_runs_songs_are_passed_over(tmp_path: Path, start: int) -> None:
    summary = MsdSummary(write_summary(tmp_path / "summary.h5", three_songs()))
    batches = [item for item in summary.batches(start) if isinstance(item, SongBatch)]
    rest = list(three_songs().values())[start:]
    np.testing.assert_array_equal(
        np.concatenate([np.zeros((0, 25)), *(batch.songs.segments for batch in batches)]),
        np.concatenate([np.zeros((0, 25)), *rest]),
    )


def test_a_batch_of_long_songs_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.source.BATCH_SEGMENTS", 200)
    batches, _ = read(write_summary(tmp_path / "summary.h5", three_songs()))
    assert [batch.song_ids for batch in batches] == [["TR300"], ["TR120", "TR7"]]


def test_no_artist_is_no_group_and_the_same_id_twice_passes(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.h5", {"": random_segments(3), "TR1": random_segments(4)})
    with h5py.File(path, "a") as file:
        rows = file["analysis/songs"][:]
        rows["track_id"] = b"TR1"
        file["analysis/songs"][:] = rows
    (batch,), _ = read(path)
    assert (batch.song_ids, batch.groups) == (["TR1", "TR1"], [None, "AR-TR1"])


Change = Callable[[Any], object]


def index(row: int, value: int, *columns: str) -> Change:
    """Return a change that lets the song of a row begin elsewhere."""

    def change(file: Any) -> None:
        rows = file["analysis/songs"][:]
        for column in columns:
            rows[column][row] = value
        file["analysis/songs"][:] = rows

    return change


def value(part: str, at: int | tuple[int, int], number: float) -> Change:
    return lambda file: file[f"analysis/{part}"].__setitem__(at, number)


BAD_SONGS: dict[str, tuple[Change, list[str], str]] = {
    "past the end": (index(2, 500, IDX[0]), ["TR120", "TR7"], "within the 427 of segments_timbre, found 300 to 500"),
    "negative": (index(0, -1, IDX[1]), ["TR300"], "within the 427 of segments_pitches, found -1 to 300"),
    "backwards": (
        index(1, 425, IDX[2]),
        ["TR300", "TR120", "TR7"],
        "song 'TR300': expected as many rows of timbre as of pitches and loudness, found 300, 300 and 420",
    ),
    "no segments": (index(2, 300, *IDX), ["TR120"], "song 'TR120': expected at least one segment, found none"),
    "NaN": (
        value("segments_timbre", (301, 4), np.nan),
        ["TR120"],
        "song 'TR120', segment 1: expected finite numbers, found nan in timbre_5",
    ),
    "loud": (
        value("segments_loudness_start", 426, 2.5),
        ["TR7"],
        "song 'TR7', segment 6: expected loudness_start_db between -60 and 0, found 2.5",
    ),
}


@pytest.mark.parametrize(("change", "names", "complaint"), BAD_SONGS.values(), ids=BAD_SONGS)
def test_a_broken_song_is_skipped_and_the_rest_converts(
    tmp_path: Path, change: Change, names: list[str], complaint: str
) -> None:
    path = write_summary(tmp_path / "summary.h5", three_songs())
    with h5py.File(path, "a") as file:
        change(file)
    batches, skipped = read(path)
    assert [song.name for song in skipped] == names
    assert complaint in skipped[0].reason
    assert [name for batch in batches for name in batch.song_ids] == [
        name for name in three_songs() if name not in names
    ]


def test_a_song_too_long_to_be_one_is_skipped_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.msd_summary.LONGEST", 200)
    (batch,), (skipped,) = read(write_summary(tmp_path / "summary.h5", three_songs()))
    assert (batch.song_ids, skipped.name) == (["TR120", "TR7"], "TR300")
    assert "expected 0 to 200 segments" in skipped.reason


def reorder(path: Path, rows: list[int], starts: bool = True) -> Path:
    """Take the songs of some rows in another order, or some of them alone; their segments stay where they are."""
    with h5py.File(path, "a") as file:
        for table in ("analysis/songs", "metadata/songs"):
            kept = file[table][:][rows]
            del file[table]
            file[table] = kept
        if starts:
            lengths = [len(song) for song in three_songs().values()]
            file["analysis/segments_start"] = np.concatenate([np.arange(length) * 0.25 for length in lengths])
    return path


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2], [1, 0], [2, 1], [1], [2]])
@pytest.mark.parametrize("starts", [True, False])
def test_a_song_ends_where_its_own_segments_do_whatever_rows_there_are(
    tmp_path: Path, rows: list[int], starts: bool
) -> None:
    summary = MsdSummary(reorder(write_summary(tmp_path / "summary.h5", three_songs()), rows, starts))
    (batch,) = summary.batches()
    assert isinstance(batch, SongBatch)
    names, songs = list(three_songs()), list(three_songs().values())
    assert batch.song_ids == [names[row] for row in rows]
    unchecked = "the check of where songs end, for there is no /analysis/segments_start"
    if starts:
        np.testing.assert_array_equal(batch.songs.segments, np.concatenate([songs[row] for row in rows]))
        cut = [names[row] for row in rows if row < 2 and row + 1 not in rows]
        between = "segments between two songs that belong to neither, after"
        assert summary.passed_over == ({between: Tally(len(cut), cut)} if cut else {})
    else:
        assert summary.passed_over == {unchecked: Tally(len(rows), batch.song_ids)}
        if len(rows) == 3:
            np.testing.assert_array_equal(batch.songs.segments, np.concatenate([songs[row] for row in rows]))


def test_songs_that_begin_at_one_place_are_empty_but_for_the_last(tmp_path: Path) -> None:
    songs = {"TR1": random_segments(5), "TR0": random_segments(0), "TR2": random_segments(6, 2)}
    path = write_summary(tmp_path / "summary.h5", songs)
    (batch,), (skipped,) = read(path)
    assert (batch.song_ids, batch.songs.lengths.tolist(), skipped.name) == (["TR1", "TR2"], [5, 6], "TR0")
    with h5py.File(path, "a") as file:
        for table in ("analysis/songs", "metadata/songs"):
            file[table][:] = file[table][:][[2, 1, 0]]
    (batch,), skipped_two = read(path)
    assert (batch.song_ids, [song.name for song in skipped_two]) == (["TR1"], ["TR2", "TR0"])


def test_a_file_cut_short_while_it_is_read_ends_the_conversion(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.h5", {f"TR{row}": random_segments(50, row) for row in range(20)})
    items = MsdSummary(path)._songs(0)
    next(items)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(SongError, match=r"summary\.h5: expected \d+ bytes, found \d+: the file was cut short while it"):
        list(items)


def test_rows_that_a_header_claims_are_not_believed(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.h5", three_songs())
    with h5py.File(path, "a") as file:
        for table in ("analysis/songs", "metadata/songs"):
            kind = file[table].dtype
            del file[table]
            file.create_dataset(table, shape=(10**12,), dtype=kind, chunks=(1000,), compression=1)
    with pytest.raises(SongError, match=r"expected at most \d+ songs in a file of its size, found 1000000000000"):
        MsdSummary(path)


def delete(name: str) -> Change:
    return lambda file: file.__delitem__(name)


def replace(name: str, content: Any) -> Change:
    """Return a change that puts an array, or a group where there is none, in the place of a part."""

    def change(file: Any) -> None:
        del file[name]
        file[name if content is not None else f"{name}/deeper"] = 0 if content is None else content

    return change


UNREADABLE = "not a readable Million Song Dataset summary, it may be cut short"
BAD_FILES: dict[str, tuple[Change, str]] = {
    "no analysis": (delete("analysis"), UNREADABLE),
    "no songs": (delete("analysis/songs"), UNREADABLE),
    "no metadata": (delete("metadata/songs"), UNREADABLE),
    "a group of songs": (replace("metadata/songs", None), UNREADABLE),
    "songs without columns": (replace("analysis/songs", np.arange(3)), "expected /analysis/songs with columns idx_seg"),
    "tables of unequal length": (
        replace("metadata/songs", np.array([(b"AR1",)], [("artist_id", "S32")])),
        "expected as many rows in /analysis/songs as in /metadata/songs, found [1, 3]",
    ),
    "no segments": (delete("analysis/segments_timbre"), "found none in segments_timbre. A summary of metadata alone"),
    "empty segments": (
        replace("analysis/segments_loudness_start", np.zeros(0)),
        "found none in segments_loudness_start. A summary of metadata alone, as msd_summary_file.h5 is, has none",
    ),
    "timbre of 11 columns": (
        replace("analysis/segments_timbre", np.zeros((427, 11))),
        "expected numbers of shape (N, 12) in segments_timbre, found float64 (427, 11)",
    ),
    "text": (
        replace("analysis/segments_loudness_start", np.array([b"x"] * 427)),
        "expected numbers of shape (N) in segments_loudness_start, found |S1 (427,)",
    ),
    "a scalar": (replace("analysis/segments_loudness_start", 1.0), UNREADABLE),
}


@pytest.mark.parametrize(("change", "complaint"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_breaks_the_layout_is_refused(tmp_path: Path, change: Change, complaint: str) -> None:
    path = write_summary(tmp_path / "summary.h5", three_songs())
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(SongError) as raised:
        MsdSummary(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert complaint in str(raised.value)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = write_summary(tmp_path / "summary.h5", three_songs())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert not recognises(path)
    with pytest.raises(
        SongError, match=r"summary\.h5: not a readable Million Song Dataset summary, it may be cut short"
    ):
        MsdSummary(path)


def test_damage_harms_only_the_songs_that_it_hits(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.h5", three_songs())
    with h5py.File(path) as file:
        chunk = file["analysis/segments_timbre"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    (batch,), (skipped,) = read(path)
    assert (skipped.name, batch.song_ids) == ("TR300", ["TR120", "TR7"])
    assert "song 'TR300': expected readable segments_timbre, found damage" in skipped.reason


def test_a_summary_is_recognised_by_its_rows(tmp_path: Path) -> None:
    assert recognises(write_summary(tmp_path / "summary.h5", three_songs()))
    assert not recognises(write_summary(tmp_path / "track.h5", {"TR1": random_segments(5)}))
    (tmp_path / "text.h5").write_text("{}")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["analysis/songs/deeper"] = 1
    assert not any(recognises(tmp_path / name) for name in ("text.h5", "other.h5", "gone.h5", "."))


def test_real_tracks_in_one_file_are_the_tracks_themselves(real_songs: Path, tmp_path: Path) -> None:
    (tracks,) = [item for item in MsdTracks(real_songs / "h5").batches() if isinstance(item, SongBatch)]
    parts = np.split(tracks.songs.segments, np.cumsum(tracks.songs.lengths)[:-1])
    (batch,), skipped = read(write_summary(tmp_path / "all.h5", dict(zip(tracks.song_ids, parts, strict=True))))
    assert (skipped, batch.song_ids) == ([], tracks.song_ids)
    np.testing.assert_array_equal(batch.songs.segments, tracks.songs.segments)
