"""Million Song Dataset tracks: HDF5 values come through as they are, and a bad file is named and left out."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from segue.data.song import Floats
from segue.data.songs import songs
from segue.data.sources.msd import MsdTracks, Tracks, in_processes, read_tracks
from segue.data.sources.source import Skipped
from segue.data.table import SongBatch, SongTable
from segue.errors import SongError
from tests.support.random_songs import random_segments

SHORT = {
    "TRAGPEA128F422B47E": 109,
    "TRAKORW128F1484DF0": 10,
    "TRALRTY128F428BE43": 100,
    "TRANRIK128F148C860": 35,
}


def write_track(path: Path, track_id: str, segments: Floats, artist_id: str = "AR1") -> Path:
    """Write one track in the layout of the Million Song Dataset: float64 arrays, ids in compound rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["analysis/segments_timbre"] = segments[:, :12].astype(np.float64)
        file["analysis/segments_pitches"] = segments[:, 12:24].astype(np.float64)
        file["analysis/segments_loudness_start"] = segments[:, 24].astype(np.float64)
        file["analysis/songs"] = np.array([(22050, track_id)], [("analysis_sample_rate", "<i4"), ("track_id", "S32")])
        file["metadata/songs"] = np.array([(artist_id, 0.5)], [("artist_id", "S32"), ("song_hotttnesss", "<f8")])
    return path


def read(path: Path) -> tuple[list[SongBatch], list[Skipped]]:
    items = list(MsdTracks(path).batches())
    skipped = [item for item in items if isinstance(item, Skipped)]
    return [item for item in items if isinstance(item, SongBatch)], skipped


def test_tracks_of_a_folder_tree_come_through_value_by_value(tmp_path: Path) -> None:
    tracks = {f"TR{length}": random_segments(length, seed=length) for length in (300, 120, 7)}
    for place, (track_id, segments) in zip(("A/B/C", "A/B/D", "X/Y/Z"), tracks.items(), strict=True):
        write_track(tmp_path / place / f"{track_id}.h5", track_id, segments, artist_id=f"AR-{track_id}")
    (batch,), skipped = read(tmp_path)
    assert not skipped
    assert batch.song_ids == list(tracks)
    assert batch.groups == ["AR-TR300", "AR-TR120", "AR-TR7"]
    assert batch.labels == [None, None, None]
    assert batch.songs.lengths.tolist() == [300, 120, 7]
    assert batch.songs.segments.dtype == np.float32
    np.testing.assert_array_equal(batch.songs.segments, np.concatenate(list(tracks.values())))


def test_one_file_is_one_track_and_no_artist_is_no_group(tmp_path: Path) -> None:
    (batch,), _ = read(write_track(tmp_path / "one.h5", "TR1", random_segments(5), artist_id=""))
    assert (batch.song_ids, batch.groups) == (["TR1"], [None])


def test_batches_cover_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.sources.msd.TRACKS_AT_A_TIME", 2)
    for number in range(5):
        write_track(tmp_path / f"{number}.h5", f"TR{number}", random_segments(3, seed=number))
    batches, _ = read(tmp_path)
    assert [batch.song_ids for batch in batches] == [["TR0", "TR1"], ["TR2", "TR3"], ["TR4"]]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_named_counted_and_left_out(tmp_path: Path, share: float) -> None:
    write_track(tmp_path / "h5/whole.h5", "TR1", random_segments(200))
    cut = write_track(tmp_path / "h5/cut.h5", "TR2", random_segments(200))
    content = cut.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    report = songs((tmp_path / "h5", tmp_path / "out.arrow"))
    ((reason, tally),) = report.left_out.items()
    assert (report.songs, tally.examples) == (1, ["cut.h5"])
    assert reason == "not a readable Million Song Dataset track, it may be cut short"
    assert f"left out: 1\n    {reason}: 1: cut.h5" in str(report)
    assert SongTable(tmp_path / "out.arrow").song_ids == ["TR1"]


def test_a_file_cut_short_is_an_error_when_strict(tmp_path: Path) -> None:
    write_track(tmp_path / "h5/whole.h5", "TR1", random_segments(200))
    (tmp_path / "h5/cut.h5").write_bytes((tmp_path / "h5/whole.h5").read_bytes()[:3000])
    with pytest.raises(SongError, match=r"^cut\.h5: not a readable Million Song Dataset track"):
        songs((tmp_path / "h5", tmp_path / "out.arrow"), strict=True)
    assert not (tmp_path / "out.arrow").exists()


@pytest.mark.parametrize("missing", ["analysis", "analysis/segments_pitches", "analysis/songs", "metadata/songs"])
def test_a_file_without_one_of_the_parts_is_left_out(tmp_path: Path, missing: str) -> None:
    path = write_track(tmp_path / "part.h5", "TR1", random_segments(5))
    with h5py.File(path, "a") as file:
        del file[missing]
    batches, (skipped,) = read(path)
    assert (batches, skipped.name) == ([], "part.h5")


@pytest.mark.parametrize("missing", ["analysis", "analysis/songs", "metadata/songs"])
def test_a_part_of_another_kind_is_left_out(tmp_path: Path, missing: str) -> None:
    path = write_track(tmp_path / "part.h5", "TR1", random_segments(5))
    with h5py.File(path, "a") as file:
        del file[missing]
        file[missing] = np.arange(3)
    batches, (skipped,) = read(path)
    assert (batches, skipped.name) == ([], "part.h5")


def test_parts_of_unequal_length_are_left_out_and_told(tmp_path: Path) -> None:
    path = write_track(tmp_path / "part.h5", "TR1", random_segments(5))
    with h5py.File(path, "a") as file:
        del file["analysis/segments_pitches"]
        file["analysis/segments_pitches"] = np.zeros((4, 12))
    _, (skipped,) = read(path)
    assert "expected as many rows of timbre as of pitches and loudness, found 5, 4 and 5" in skipped.reason


def test_a_track_that_breaks_the_contract_is_left_out_and_told(tmp_path: Path) -> None:
    segments = random_segments(5)
    segments[3, 24] = 2.5
    _, (skipped,) = read(write_track(tmp_path / "loud.h5", "TR1", segments))
    assert skipped.name == "loud.h5"
    assert "song 'TR1', segment 3: expected loudness_start_db between -60 and 0, found 2.5" in skipped.reason


def read_or_die(files: Sequence[Path]) -> Tracks:
    """Read tracks, and end as HDF5 does where it meets damage that it has no check for."""
    if any(file.name == "deadly.h5" for file in files):
        os.kill(os.getpid(), signal.SIGSEGV)
    return read_tracks(files)


@pytest.mark.slow
def test_a_file_over_which_the_reader_dies_is_left_out(tmp_path: Path) -> None:
    names = ["a", "deadly", "b", "c"]
    files = [write_track(tmp_path / f"{name}.h5", name, random_segments(3, row)) for row, name in enumerate(names)]
    items = list(in_processes([files[:2], files[2:]], 2, read_or_die))
    skipped = [item for item in items if isinstance(item, Skipped)]
    batches = [item for item in items if isinstance(item, SongBatch)]
    assert [song.name for song in skipped] == ["deadly.h5"]
    assert [name for batch in batches for name in batch.song_ids] == ["a", "b", "c"]
    expected = [random_segments(3, row) for row in (0, 2, 3)]
    np.testing.assert_array_equal(np.concatenate([batch.songs.segments for batch in batches]), np.concatenate(expected))


def test_a_folder_without_tracks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SongError, match=r"expected a folder with Million Song Dataset tracks \(\*\.h5\), found none"):
        MsdTracks(tmp_path)


def test_real_tracks_convert_with_their_labels(real_songs: Path, tmp_path: Path) -> None:
    classes_file = real_songs / "labels/msd_tagtraum_cd1.cls"
    report = songs((real_songs / "h5", tmp_path / "songs.arrow"), labels=classes_file)
    assert (report.songs, report.left_out, report.units) == (64, {}, "raw")
    assert report.short.examples == [f"{name} ({length} segments)" for name, length in SHORT.items()]
    table = SongTable(tmp_path / "songs.arrow")
    rows = [line.split("\t") for line in classes_file.read_text().splitlines() if not line.startswith("#")]
    genre_of = {row[0]: row[1] for row in rows}
    names = [table.classes[label] if label >= 0 else None for label in table.labels]
    assert names == [genre_of.get(song_id) for song_id in table.song_ids]
    assert sum(report.labelled.values()) == 64 - names.count(None) > 0


@pytest.mark.parametrize("track_id", ["TRAAENC128F1451DE9", "TRAKORW128F1484DF0", "TRBCBLN128F932BC9D"])
def test_real_tracks_come_through_value_by_value(real_songs: Path, track_id: str) -> None:
    (batch,), _ = read(real_songs / f"h5/{track_id}.h5")
    with h5py.File(real_songs / f"h5/{track_id}.h5") as file:
        analysis = file["analysis"]
        found = batch.songs.segments
        np.testing.assert_array_equal(found[:, :12], analysis["segments_timbre"][:].astype(np.float32))
        np.testing.assert_array_equal(found[:, 12:24], analysis["segments_pitches"][:].astype(np.float32))
        np.testing.assert_array_equal(found[:, 24], analysis["segments_loudness_start"][:].astype(np.float32))
        assert batch.groups == [file["metadata/songs"][0]["artist_id"].decode()]
    assert batch.song_ids == [track_id]
