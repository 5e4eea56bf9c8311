"""`segue songs` from end to end: its exit codes, its one JSON document, and what it keeps, counts and leaves out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.data.songs import main, songs
from segue.data.table import SongTable
from tests.support.random_songs import random_batch, random_segments, save

INPUTS = random_segments(6 * 120).reshape(6, 120, 25)


def course_file(path: Path, **changes: Any) -> Path:
    arrays = {
        "inputs": INPUTS,
        "targets": np.array([0, 1, 2, 0, 1, -1]),
        "label_map": np.array(["Jazz", "Folk", "Rock"]),
        "track_ids": np.array([f"TR{row}" for row in range(6)]),
        "fold": np.array([0, 0, 1, 1, 2, 2]),
        "balanced": np.array([True, False] * 3),
    }
    np.savez(path, **arrays | changes)
    return path


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Run the verb with --json and return the one document it prints."""
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("name", ["songs.arrow", "songs.parquet"])
def test_a_course_file_becomes_a_song_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(course_file(tmp_path / "course.npz"), tmp_path / name) == 0
    printed = capsys.readouterr().out
    assert f"{name}: 6 songs (raw)" in printed
    assert "labelled: 5 (Folk 2, Jazz 2, Rock 1)" in printed
    assert "without a label: 1: TR5" in printed
    table = SongTable(tmp_path / name)
    assert (table.units, table.classes, table.labels.tolist()) == ("raw", ("Jazz", "Folk", "Rock"), [0, 1, 2, 0, 1, -1])
    np.testing.assert_array_equal(table.songs(range(6)), INPUTS)


def test_json_is_exactly_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, course_file(tmp_path / "course.npz"), tmp_path / "songs.arrow") == {
        "out": str(tmp_path / "songs.arrow"),
        "units": "raw",
        "features": "echonest",
        "songs": 6,
        "labelled": {"Jazz": 2, "Folk": 2, "Rock": 1},
        "unlabelled": {"count": 1, "examples": ["TR5"]},
        "short": {"count": 0, "examples": []},
        "clipped": {"count": 0, "examples": []},
        "left_out": {},
        "passed_over": {},
        "warnings": [],
    }


def test_bad_usage_exits_with_2(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        run(tmp_path / "course.npz", tmp_path / "songs.arrow", "--no-such-option")
    assert raised.value.code == 2


def test_a_failure_exits_with_1_and_prints_the_reason_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "gone.npz", tmp_path / "songs.arrow", "--json") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"segue songs: {tmp_path / 'gone.npz'}: expected a source of songs, found no such file or folder\n"
    )
    assert not (tmp_path / "songs.arrow").exists()


def test_an_interruption_exits_with_130_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segue.data.songs.Labelling.apply", interrupt)
    source = course_file(tmp_path / "course.npz")
    assert run(source, tmp_path / "songs.arrow") == 130
    assert "segue songs: stopped" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_one_path_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(course_file(tmp_path / "course.npz")) == 1
    assert "expected SOURCE... OUT, at least two paths; found 1" in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "songs.csv").write_text("song_id,segments\n")
    assert run(tmp_path / "songs.csv", tmp_path / "songs.arrow") == 1
    assert (
        "songs.csv: expected an .npz file, HDF5 tracks, audio analyses in JSON or a song table, found a file"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        (["--where", "fold=0,2"], [0, 1, 4, 5]),
        (["--where", "balanced=true"], [0, 2, 4]),
        (["--where", "fold=0,2", "--where", "balanced=true"], [0, 4]),
        (["--where", "track_ids=TR3"], [3]),
    ],
)
def test_where_keeps_songs_by_their_fields(tmp_path: Path, conditions: list[str], kept: list[int]) -> None:
    assert run(course_file(tmp_path / "course.npz"), tmp_path / "songs.arrow", *conditions) == 0
    assert SongTable(tmp_path / "songs.arrow").song_ids == [f"TR{row}" for row in kept]


def test_no_table_is_written_where_no_song_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = course_file(tmp_path / "course.npz"), tmp_path / "songs.arrow"
    assert run(source, out, "--where", "fold=7") == 1
    assert "songs.arrow: not written, for no song is left of 0. Is it the right source" in capsys.readouterr().err
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF")
    assert run(tmp_path / "cut.h5", out) == 1
    assert "no song is left of 1. Left out: not a readable Million Song Dataset track" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("condition", ["fold", "fold=", "=0"])
def test_where_without_field_or_value_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], condition: str
) -> None:
    assert run(course_file(tmp_path / "course.npz"), tmp_path / "songs.arrow", "--where", condition) == 1
    assert f"--where: expected FIELD=VALUE[,VALUE], found {condition!r}" in capsys.readouterr().err


def test_a_table_can_be_selected_from(tmp_path: Path) -> None:
    batch = random_batch([4, 5, 6], labels=["Jazz", "Folk", "Jazz"], groups=["Ella", "Nina", None])
    save(tmp_path / "all.arrow", batch)
    assert run(tmp_path / "all.arrow", tmp_path / "jazz.parquet", "--where", "label=Jazz") == 0
    table = SongTable(tmp_path / "jazz.parquet")
    assert (table.song_ids, table.groups) == (["song-0-0", "song-0-2"], ["Ella", None])
    np.testing.assert_array_equal(np.concatenate(table.songs([0, 1])), batch.take([0, 2]).songs.segments)


def test_a_condition_given_twice_keeps_songs_of_either_value_whatever_their_case(tmp_path: Path) -> None:
    save(tmp_path / "all.arrow", random_batch([4, 5, 6, 7], labels=["Jazz", "Folk", "Rock", None]))
    assert (
        run(tmp_path / "all.arrow", tmp_path / "out.arrow", "--where", "label=jazz", "--where", "label=FOLK,None") == 0
    )
    assert SongTable(tmp_path / "out.arrow").song_ids == ["song-0-0", "song-0-1"]


def test_a_song_is_not_a_duplicate_of_one_that_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty, sound = random_batch([4, 4]), random_batch([4])
    faulty.songs.segments[0, 12] = 2.0
    save(tmp_path / "faulty.arrow", faulty)
    save(tmp_path / "sound.arrow", sound)
    assert run(tmp_path / "faulty.arrow", tmp_path / "sound.arrow", tmp_path / "out.arrow", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["songs"] == 2
    assert [tally["examples"] for tally in report["left_out"].values()] == [["song-0-0"]]


def test_a_list_of_errors_takes_nobodys_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty = random_batch([4, 4])
    faulty.songs.segments[0, 12] = 2.0
    save(tmp_path / "faulty.arrow", faulty)
    errors = tmp_path / "out.arrow.errors.tsv"
    errors.write_text("somebody's work")
    assert run(tmp_path / "faulty.arrow", tmp_path / "out.arrow") == 1
    assert "out.arrow.errors.tsv: expected nothing there, or what `segue songs` made" in capsys.readouterr().err
    assert (errors.read_text(), (tmp_path / "out.arrow").exists()) == ("somebody's work", False)
    errors.unlink()
    for _ in range(2):
        assert run(tmp_path / "faulty.arrow", "--out", tmp_path / "out.arrow") == 0
        assert errors.read_text().splitlines()[0] == "song\treason"
        assert len(errors.read_text().splitlines()) == 2


def test_a_table_has_only_some_fields_to_select_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "all.arrow", random_batch([4]))
    assert run(tmp_path / "all.arrow", tmp_path / "out.arrow", "--where", "year=1999") == 1
    assert "all.arrow: no field 'year' to select by; it has song_id, label, group" in capsys.readouterr().err


def test_two_tables_become_one(tmp_path: Path) -> None:
    first = random_batch([4, 130], labels=["Jazz", "Rock"], seed=1)
    second = random_batch([5], labels=["Folk"], seed=2)
    save(tmp_path / "1.arrow", first, classes=["Rock", "Jazz"])
    save(tmp_path / "2.parquet", second, classes=["Folk", "Jazz"])
    assert run(tmp_path / "1.arrow", tmp_path / "2.parquet", tmp_path / "both.arrow") == 0
    table = SongTable(tmp_path / "both.arrow")
    assert table.song_ids == first.song_ids + second.song_ids
    assert (table.classes, table.labels.tolist()) == (("Rock", "Jazz", "Folk"), [1, 0, 2])
    np.testing.assert_array_equal(
        np.concatenate(table.songs([0, 1, 2])), np.concatenate([first.songs.segments, second.songs.segments])
    )


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_table_never_takes_the_place_of_what_it_is_read_from(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = save(tmp_path / "songs.arrow", random_batch([4, 5])).path
    before = path.read_bytes()
    assert run(path, path, "--where", "song_id=song-0-1", *options) == 1
    assert run(path, "--out", path, "--where", "song_id=song-0-1", *options) == 1
    assert path.read_bytes() == before


def test_raw_and_standardised_songs_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "raw.arrow", random_batch([4], seed=1))
    save(tmp_path / "scaled.arrow", random_batch([4], seed=2), units="standardised")
    assert run(tmp_path / "raw.arrow", tmp_path / "scaled.arrow", tmp_path / "both.arrow") == 1
    assert "raw and standardised songs cannot share a table" in capsys.readouterr().err
    assert not (tmp_path / "both.arrow").exists()


def test_songs_with_an_id_seen_before_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = random_batch([4, 5, 6])
    twice.song_ids[:] = ["a", "b", "a"]
    again = random_batch([7, 8], seed=1)
    again.song_ids[:] = ["b", "c"]
    save(tmp_path / "1.arrow", twice)
    save(tmp_path / "2.arrow", again)
    report = answer(capsys, tmp_path / "1.arrow", tmp_path / "2.arrow", tmp_path / "out.arrow")
    assert report["songs"] == 3
    assert report["left_out"] == {"another song has the same id": {"count": 2, "examples": ["a", "b"]}}
    table = SongTable(tmp_path / "out.arrow")
    assert (table.song_ids, table.lengths.tolist()) == (["a", "b", "c"], [4, 5, 8])


def test_a_song_with_a_blank_id_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = random_batch([4, 5, 6])
    batch.song_ids[:] = ["", "b", " "]
    save(tmp_path / "bad.arrow", batch)
    report = answer(capsys, tmp_path / "bad.arrow", tmp_path / "out.arrow")
    assert report["left_out"] == {"expected an id": {"count": 2, "examples": ["a song without an id"] * 2}}
    assert SongTable(tmp_path / "out.arrow").song_ids == ["b"]


def test_bad_songs_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = random_batch([4, 5, 0, 6])
    bad.songs.segments[4 + 1, 12] = 1.5
    save(tmp_path / "bad.arrow", bad)
    report = answer(capsys, tmp_path / "bad.arrow", tmp_path / "out.arrow")
    assert report["left_out"] == {
        "expected chroma_C between 0 and 1": {"count": 1, "examples": ["song-0-1"]},
        "expected at least one segment": {"count": 1, "examples": ["song-0-2"]},
    }
    table = SongTable(tmp_path / "out.arrow")
    assert table.song_ids == ["song-0-0", "song-0-3"]
    np.testing.assert_array_equal(
        np.concatenate(table.songs([0, 1])), np.delete(bad.songs.segments, slice(4, 9), axis=0)
    )


def test_rounding_noise_is_clipped_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = random_batch([4, 5, 6])
    segments = batch.songs.segments
    segments[5, 12], segments[6, 23], segments[4, 24] = 1.0000001, -1e-7, 0.0001
    segments[9, 24] = -60.0004
    save(tmp_path / "noisy.arrow", batch)
    report = answer(capsys, tmp_path / "noisy.arrow", tmp_path / "out.arrow")
    assert (report["songs"], report["left_out"]) == (3, {})
    assert report["clipped"] == {
        "count": 2,
        "examples": ["song-0-1 (loudness_start_db 1e-04)", "song-0-2 (loudness_start_db -60.0004)"],
    }
    found = SongTable(tmp_path / "out.arrow").songs(range(3)).segments
    expected = segments.copy()
    expected[:, 12:24], expected[:, 24] = expected[:, 12:24].clip(0, 1), expected[:, 24].clip(-60, 0)
    np.testing.assert_array_equal(found, expected)


def test_more_than_rounding_noise_is_shown_with_all_its_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = random_batch([4, 5])
    batch.songs.segments[0, 12] = 1.00002
    save(tmp_path / "bad.arrow", batch)
    assert run(tmp_path / "bad.arrow", tmp_path / "out.arrow", "--strict") == 1
    assert "expected chroma_C between 0 and 1, found 1.00002\n" in capsys.readouterr().err


def test_strict_stops_at_the_first_bad_song(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = random_batch([4, 5])
    bad.songs.segments[4, 24] = np.nan
    save(tmp_path / "bad.arrow", bad)
    assert run(tmp_path / "bad.arrow", tmp_path / "out.arrow", "--strict") == 1
    assert "song-0-1: segment 0: expected finite numbers, found nan in loudness_start_db" in capsys.readouterr().err
    assert not (tmp_path / "out.arrow").exists()


def test_short_songs_are_kept_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "songs.arrow", random_batch([119, 120, 10]))
    report = answer(capsys, tmp_path / "songs.arrow", tmp_path / "out.arrow")
    assert (report["songs"], report["short"]["examples"]) == (3, ["song-0-0 (119 segments)", "song-0-2 (10 segments)"])


def test_a_label_file_gives_the_genres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "songs.cls").write_text("# genres\nTR0\tSwing\nTR2\tBebop\tSwing\nTR9\tBlues\n")
    source = course_file(tmp_path / "course.npz")
    report = answer(capsys, source, tmp_path / "out.arrow", "--labels", tmp_path / "songs.cls")
    assert report["labelled"] == {"Swing": 1, "Bebop": 1}
    assert report["unlabelled"]["examples"] == ["TR1", "TR3", "TR4", "TR5"]
    assert SongTable(tmp_path / "out.arrow").classes == ("Bebop", "Swing")


def test_two_genres_of_one_track_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "songs.cls").write_text("TR0\tSwing\nTR0\tBebop\nTR1\tSwing\nTR1\tSwing\n")
    source = course_file(tmp_path / "course.npz")
    report = answer(capsys, source, tmp_path / "out.arrow", "--labels", tmp_path / "songs.cls")
    (warning,) = report["warnings"]
    assert report["labelled"] == {"Swing": 2}
    assert warning.endswith("tracks with two different genres, of which the first is taken: 1: TR0 (Swing, Bebop)")


@pytest.mark.parametrize("ids", ["SO{}", "tr{}", '"TR{}"', "TR{}.h5"])
def test_a_label_file_of_other_ids_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], ids: str) -> None:
    (tmp_path / "songs.cls").write_text("".join(f"{ids.format(row)}\tSwing\n" for row in range(6)))
    source = course_file(tmp_path / "course.npz")
    report = answer(capsys, source, tmp_path / "out.arrow", "--labels", tmp_path / "songs.cls")
    (warning,) = report["warnings"]
    assert report["labelled"] == {}
    assert f"none of the ids in the label file is among the songs, ids there are like {ids.format(0)!r}" in warning
    assert warning.endswith("of the songs like 'TR0'")


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_a_blank_label_of_a_table_is_none(tmp_path: Path, suffix: str) -> None:
    batch = random_batch([3] * 5, labels=["Rock", "", "  ", " Rock ", None], groups=["A", "", " ", "A ", None])
    save(tmp_path / f"all.{suffix}", batch, classes=["", "Rock", " "])
    assert run(tmp_path / f"all.{suffix}", tmp_path / "out.arrow") == 0
    for table in (SongTable(tmp_path / f"all.{suffix}"), SongTable(tmp_path / "out.arrow")):
        assert (table.classes, table.labels.tolist()) == (("Rock",), [0, -1, -1, 0, -1])
        assert table.groups == ["A", None, None, "A", None]


def test_a_blank_name_in_a_label_map_is_no_class(tmp_path: Path) -> None:
    source = course_file(
        tmp_path / "course.npz", label_map=np.array([" ", " Folk", "Folk"]), group=np.array(["", "A"] * 3)
    )
    assert run(source, tmp_path / "out.arrow") == 0
    table = SongTable(tmp_path / "out.arrow")
    assert (table.classes, table.labels.tolist()) == (("Folk",), [-1, 0, 0, -1, 0, -1])
    assert table.groups == [None, "A"] * 3


def test_a_missing_label_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = course_file(tmp_path / "course.npz")
    assert run(source, tmp_path / "out.arrow", "--labels", tmp_path / "gone.cls") == 1
    assert "gone.cls: expected a label file, found no such file" in capsys.readouterr().err


def test_songs_of_other_classes_lose_their_label(tmp_path: Path) -> None:
    source = course_file(tmp_path / "course.npz")
    assert run(source, tmp_path / "out.arrow", "--classes", "Rock", "Jazz") == 0
    table = SongTable(tmp_path / "out.arrow")
    assert (table.classes, table.labels.tolist()) == (("Rock", "Jazz"), [1, -1, 0, 1, -1, -1])


def test_a_class_that_no_song_can_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = course_file(tmp_path / "course.npz")
    assert run(source, tmp_path / "out.arrow", "--classes", "Rock", "Polka") == 1
    assert "--classes: no song has the class Polka; found Folk, Jazz, Rock" in capsys.readouterr().err


def test_units_can_be_given_to_a_source_that_does_not_say(tmp_path: Path) -> None:
    source = course_file(tmp_path / "course.npz", inputs=INPUTS * 3)
    assert songs((source, tmp_path / "out.arrow"), units="standardised").songs == 6
    assert SongTable(tmp_path / "out.arrow").units == "standardised"


def test_at_most_so_many_songs_of_a_class_are_drawn_and_all_unlabelled_ones_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["Jazz"] * 30 + ["Folk"] * 5 + [None] * 7
    save(tmp_path / "all.arrow", random_batch([3] * 42, labels=labels))
    drawn, balance = [], ("--balance", "10")
    for seed in ("0", "0", "1"):
        report = answer(capsys, tmp_path / "all.arrow", "--out", tmp_path / "out.arrow", *balance, "--seed", seed)
        assert (report["labelled"], report["unlabelled"]["count"], report["songs"]) == ({"Jazz": 10, "Folk": 5}, 7, 22)
        assert report["left_out"]["beyond the 10 songs drawn of their class"]["count"] == 20
        drawn.append(SongTable(tmp_path / "out.arrow").song_ids)
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["all.arrow", "out.arrow"]


def test_the_second_genre_of_a_label_file_is_kept(tmp_path: Path) -> None:
    save(tmp_path / "all.arrow", random_batch([3, 4], labels=["Folk", "Folk"]))
    (tmp_path / "genres.cls").write_text("song-0-0\tJazz\tVocal\nsong-0-1\tRock\n")
    assert run(tmp_path / "all.arrow", tmp_path / "out.arrow", "--labels", tmp_path / "genres.cls") == 0
    table = SongTable(tmp_path / "out.arrow")
    assert ([table.classes[label] for label in table.labels], table.second_labels) == (
        ["Jazz", "Rock"],
        ["Vocal", None],
    )


@pytest.mark.parametrize(("kind", "code"), [("table", 0), ("course", 1), ("analysis", 1), ("msd", 1)])
def test_from_overrides_what_the_content_tells(tmp_path: Path, kind: str, code: int) -> None:
    save(tmp_path / "all.arrow", random_batch([3]))
    assert run(tmp_path / "all.arrow", tmp_path / "out.arrow", "--from", kind) == code
    assert (tmp_path / "out.arrow").exists() == (kind == "table")


@pytest.mark.parametrize("condition", ["label=Jazz", "group=1", "song_id=song-0-2400"])
def test_a_parquet_table_is_decoded_in_pieces_with_the_same_result(tmp_path: Path, condition: str) -> None:
    labels = [("Jazz", "Folk", None)[row % 3] for row in range(2500)]
    groups = [str(row // 1000) for row in range(2500)]
    batch = random_batch([1 + row % 3 for row in range(2500)], labels=labels, groups=groups)
    for suffix in ("arrow", "parquet"):
        save(tmp_path / f"all.{suffix}", batch)
        assert run(tmp_path / f"all.{suffix}", tmp_path / f"from-{suffix}.arrow", "--where", condition) == 0
    arrow, parquet = SongTable(tmp_path / "from-arrow.arrow"), SongTable(tmp_path / "from-parquet.arrow")
    assert parquet.song_ids == arrow.song_ids
    assert [parquet.classes[label] for label in parquet.labels] == [arrow.classes[label] for label in arrow.labels]
    rows = range(len(arrow))
    np.testing.assert_array_equal(np.concatenate(parquet.songs(rows)), np.concatenate(arrow.songs(rows)))


def test_a_parquet_table_cut_short_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "all.parquet", random_batch([3] * 50))
    content = (tmp_path / "all.parquet").read_bytes()
    (tmp_path / "all.parquet").write_bytes(content[: len(content) // 2])
    assert run(tmp_path / "all.parquet", tmp_path / "out.arrow") == 1
    assert "all.parquet: the file cannot be read, it may be cut short" in capsys.readouterr().err


def test_classes_pick_from_analyses_that_list_none(tmp_path: Path) -> None:
    segment = {"timbre": [1.0] * 12, "pitches": [0.5] * 12, "loudness_start": -9.0}
    lines = [json.dumps({"id": genre, "genre": genre, "segments": [segment]}) for genre in ("Jazz", "Folk", "Rock")]
    (tmp_path / "songs.jsonl").write_text("\n".join(lines))
    assert run(tmp_path / "songs.jsonl", tmp_path / "out.arrow", "--classes", "Rock", "Jazz") == 0
    table = SongTable(tmp_path / "out.arrow")
    assert (table.classes, dict(zip(table.song_ids, table.labels.tolist(), strict=True))) == (
        ("Rock", "Jazz"),
        {"Jazz": 1, "Folk": -1, "Rock": 0},
    )


def test_a_conversion_of_a_folder_may_be_repeated_beside_it(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    segment = {"timbre": [1.0] * 12, "pitches": [0.5] * 12, "loudness_start": -9.0}
    for name in ("a", "b"):
        (tmp_path / f"songs/{name}.json").write_text(json.dumps({"segments": [segment]}))
        assert run(tmp_path / "songs", tmp_path / "songs.arrow") == 0
        assert SongTable(tmp_path / "songs.arrow").song_ids[-1] == name
