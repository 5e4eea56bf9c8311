"""`segue score`: every song answered once, in order, whatever the files, the form of the output, and the kills."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from segue.data.columns import SEGMENTS
from segue.data.song import FEATURE_NAMES, Floats
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError, SongError
from segue.serving.batch.catalogue import Rows
from segue.serving.batch.run import LocalEngine
from segue.serving.batch.run_folder import RunFolder
from segue.serving.batch.score import main, score
from segue.serving.batch.scorer import Scorer
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.predictions import Answers
from segue.serving.runtime import OnnxModel
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES
from tests.support.random_songs import random_batch, random_segments, save

COLUMNS = ["song_id", "genre", "cross_entropy_nats", "answered_by", "rung", "windows"]
PROBABILITIES = [f"probability_{name}" for name in CLASSES]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 500 songs be eight parts, and a teacher's batch be smaller than the hard songs of a part."""
    monkeypatch.setattr("segue.serving.batch.score.PART_SONGS", 64)
    monkeypatch.setattr("segue.serving.batch.catalogue.READ_SONGS", 20)
    monkeypatch.setattr("segue.serving.batch.scorer.FULL_SONGS", 16)


def read(path: Path) -> pa.Table:
    """Return all answers, with one column a class, however they were written."""
    if path.suffix == ".csv":
        return pyarrow.csv.read_csv(path)
    if path.is_dir():
        table = pa.concat_tables([pq.read_table(file) for file in sorted(path.glob("part-*.parquet"))])
    else:
        table = pq.read_table(path)
    if "probabilities" in table.column_names:
        table = table.flatten()
    return table.rename_columns([name.replace("probabilities.", "probability_") for name in table.column_names])


def expected(bundle: Path, songs: Path, threshold_nats: float) -> Answers:
    table = SongTable(songs)
    return open_cascade(load_bundle(bundle)).answer(table.songs(range(len(table))), threshold_nats)


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet", "scores"])
def test_every_song_gets_the_answer_of_the_cascade(bundle: Path, mixed_songs: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    scored = score(bundle, (str(mixed_songs),), out, threshold=BOTH_ANSWER_NATS, probs=True)
    found, answers = read(out), expected(bundle, mixed_songs, BOTH_ANSWER_NATS)
    assert found.column_names == [*COLUMNS, *PROBABILITIES]
    assert found["song_id"].to_pylist() == SongTable(mixed_songs).song_ids
    assert found["genre"].to_pylist() == [CLASSES[choice] for choice in answers.choice]
    assert found["answered_by"].to_pylist() == [answers.answered_by(row) for row in range(500)]
    assert set(found["answered_by"].to_pylist()) == {"student", "teacher"}
    assert found["rung"].to_pylist() == (answers.rung + 1).tolist()
    assert found["windows"].to_pylist() == answers.windows.tolist()
    probs = np.column_stack([found[name].to_numpy() for name in PROBABILITIES])
    np.testing.assert_allclose(probs, answers.probs, atol=1e-6)
    np.testing.assert_allclose(found["cross_entropy_nats"].to_numpy(), -np.log(probs.max(axis=1)), atol=1e-6)
    assert scored.fallback_rate == answers.fell_back.mean()
    assert scored.songs_by_genre == {name: found["genre"].to_pylist().count(name) for name in CLASSES}


def test_modes_are_the_ends_of_the_dial(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    fast = score(bundle, (str(mixed_songs),), tmp_path / "a.parquet", mode="fast")
    accurate = score(bundle, (str(mixed_songs),), tmp_path / "b.parquet", mode="accurate")
    balanced = score(bundle, (str(mixed_songs),), tmp_path / "c.parquet", mode="balanced")
    assert (fast.fallback_rate, accurate.fallback_rate) == (0.0, 1.0)
    own = load_bundle(bundle).manifest.threshold_nats
    assert balanced.fallback_rate == expected(bundle, mixed_songs, own).fell_back.mean()


def test_the_verb_says_what_it_wrote(
    bundle: Path, mixed_songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.parquet"
    assert main([str(bundle), str(mixed_songs), str(out), "--threshold", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["out"], printed["songs"], printed["fallback_rate"]) == (str(out), 500, 1.0)
    summary = json.loads((tmp_path / "scores.summary.json").read_text())
    assert summary["bundle_version"] == load_bundle(bundle).manifest.version
    assert [(file["name"], file["rows"]) for file in summary["files"]] == [(str(mixed_songs), 500)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scores.parquet", "scores.summary.json"]


def test_many_files_in_any_form_are_one_catalogue(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    table = pa.ipc.open_file(mixed_songs).read_all()
    folder = tmp_path / "songs" / "year=2026"
    folder.mkdir(parents=True)
    pq.write_table(table.slice(0, 150), folder / "a.parquet", row_group_size=40)
    with pa.ipc.new_file(folder / "b.arrow", table.schema) as file:
        file.write_table(table.slice(150, 150), max_chunksize=33)
    pq.write_table(table.slice(300), tmp_path / "c.parquet")
    places = (str(tmp_path / "songs"), str(tmp_path / "[c].parquet"))
    score(bundle, places, tmp_path / "parts.parquet", threshold=BOTH_ANSWER_NATS)
    score(bundle, (str(mixed_songs),), tmp_path / "one.parquet", threshold=BOTH_ANSWER_NATS)
    assert read(tmp_path / "parts.parquet").equals(read(tmp_path / "one.parquet"))


def test_columns_of_ones_own_are_carried_along(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    table = pa.ipc.open_file(mixed_songs).read_all()
    table = table.append_column("year", pa.array(range(500), pa.int16()))
    pq.write_table(table, tmp_path / "songs.parquet")
    score(bundle, (str(tmp_path / "songs.parquet"),), tmp_path / "out.csv", keep=("year", "label"))
    found = read(tmp_path / "out.csv")
    assert found.column_names == [*COLUMNS, "year", "label"]
    assert found["year"].to_pylist() == list(range(500))
    assert found["label"].to_pylist() == table["label"].to_pylist()
    with pytest.raises(SongError, match=r"--keep artist: expected such a column, found song_id, segments"):
        score(bundle, (str(tmp_path / "songs.parquet"),), tmp_path / "no.csv", keep=("artist",))


def test_folders_of_partitions_are_columns_too(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    table = pa.ipc.open_file(mixed_songs).read_all()
    for row, name in enumerate(["year=2025/part of=a%20b", "year=2026/part of=__HIVE_DEFAULT_PARTITION__"]):
        (tmp_path / "songs" / name).mkdir(parents=True)
        pq.write_table(table.slice(100 * row, 100), tmp_path / "songs" / name / "0.parquet")
    score(bundle, (str(tmp_path / "songs"),), tmp_path / "out.parquet", keep=("label", "year", "part of"))
    found = read(tmp_path / "out.parquet")
    assert found["label"].to_pylist() == table["label"].to_pylist()[:200]
    assert found["year"].to_pylist() == ["2025"] * 100 + ["2026"] * 100
    assert found["part of"].to_pylist() == ["a b"] * 100 + [None] * 100


def test_kept_columns_of_two_types_are_named(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    table = pa.ipc.open_file(mixed_songs).read_all().slice(0, 3)
    pq.write_table(table.append_column("year", pa.array([1, 2, 3])), tmp_path / "a.parquet")
    pq.write_table(table.append_column("year", pa.array(["1", "2", "3"])), tmp_path / "b.parquet")
    with pytest.raises(SongError, match=r"column 'year': expected int64 as in the first songs, found string"):
        score(bundle, (str(tmp_path / "[ab].parquet"),), tmp_path / "out.csv", keep=("year",))


def test_streams_are_read_and_carry_columns_along(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    table = pa.ipc.open_file(mixed_songs).read_all()
    with pa.ipc.new_stream(tmp_path / "songs.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=33)
    score(bundle, (str(tmp_path / "songs.arrow"),), tmp_path / "a.parquet", keep=("label",))
    score(bundle, (str(mixed_songs),), tmp_path / "b.parquet", keep=("label",))
    assert read(tmp_path / "a.parquet").equals(read(tmp_path / "b.parquet"))


def test_a_competition_wants_numbers_of_classes(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    score(bundle, (str(mixed_songs),), tmp_path / "out.csv", competition=True, threshold=BOTH_ANSWER_NATS)
    found = read(tmp_path / "out.csv")
    assert found.column_names == ["Id", "Class"]
    assert found["Class"].to_pylist() == expected(bundle, mixed_songs, BOTH_ANSWER_NATS).choice.tolist()


def test_no_songs_give_an_empty_file(bundle: Path, tmp_path: Path) -> None:
    songs = save(tmp_path / "songs.arrow")
    scored = score(bundle, (str(songs.path),), tmp_path / "scores.parquet")
    assert (scored.songs, scored.fallback_rate, read(tmp_path / "scores.parquet").num_rows) == (0, 0.0, 0)


# --- songs that cannot be scored ---


@pytest.fixture
def broken_songs(tmp_path: Path) -> Path:
    """Return a table as another program might write it, with a NaN in its third song and no segments in its fifth."""
    segments = random_segments(6 * 120).reshape(6, 120, 25)
    segments[2, 7, 24] = np.nan
    lists = segments.tolist()
    lists[4] = []
    columns = {"song_id": pa.array(list("abcdef")), "segments": pa.array(lists, SEGMENTS), "n": pa.array(range(6))}
    table = pa.table(columns).replace_schema_metadata({"segue.units": "raw"})
    with pa.ipc.new_file(tmp_path / "broken.arrow", table.schema) as file:
        file.write_table(table)
    return tmp_path / "broken.arrow"


def test_a_bad_song_is_named_and_stops_nobody(bundle: Path, broken_songs: Path, tmp_path: Path) -> None:
    scored = score(bundle, (str(broken_songs),), tmp_path / "out.parquet", keep=("n",))
    found = read(tmp_path / "out.parquet")
    assert (found["song_id"].to_pylist(), found["n"].to_pylist()) == (list("abdf"), [0, 1, 3, 5])
    rejects = pq.read_table(tmp_path / "out.rejects.parquet").to_pylist()
    nan = f"segment 7: expected finite numbers, found nan in {FEATURE_NAMES[24]}"
    assert [(one["row"], one["song_id"], one["reason"]) for one in rejects] == [
        (2, "c", nan),
        (4, "e", "expected at least one segment, found none"),
    ]
    assert {one["source"] for one in rejects} == {str(broken_songs)}
    assert (scored.songs, sum(scored.rejected.values())) == (4, 2)
    assert "rejected 2 songs" in str(scored)


def test_strict_stops_at_the_first_bad_song(bundle: Path, broken_songs: Path, tmp_path: Path) -> None:
    with pytest.raises(SongError, match=r"broken\.arrow, row 2, song 'c': segment 7: expected finite"):
        score(bundle, (str(broken_songs),), tmp_path / "out.parquet", strict=True)
    assert not (tmp_path / "out.parquet").exists()


def test_too_many_bad_songs_stop_the_run(bundle: Path, broken_songs: Path, tmp_path: Path) -> None:
    score(bundle, (str(broken_songs),), tmp_path / "out.parquet", max_rejects=0.34)
    with pytest.raises(SongError, match=r"more than 30\.0% of 6 songs cannot be scored"):
        score(bundle, (str(broken_songs),), tmp_path / "other.parquet", max_rejects=0.3)


def test_a_song_that_no_model_knows_is_rejected(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknowing(_: OnnxModel, windows: Floats) -> Floats:
        return np.full((len(windows), len(CLASSES)), np.nan, np.float32)

    monkeypatch.setattr(OnnxModel, "logits", unknowing)
    scored = score(bundle, (str(mixed_songs),), tmp_path / "scores.csv")
    assert (scored.songs, scored.rejected) == (
        0,
        {"the models' answer is not a number; are the song's values in range?": 500},
    )


def test_rejects_are_counted_by_what_is_wrong_and_not_by_the_number_found(bundle: Path, tmp_path: Path) -> None:
    songs = np.zeros((40, 120, 25), np.float32)
    songs[:, :, 24] = np.arange(1, 41)[:, None]  # Louder than can be, each in a way of its own.
    np.savez(tmp_path / "songs.npz", inputs=songs, targets=np.zeros(40, int), label_map=np.array(CLASSES[:1]))
    scored = score(bundle, (str(tmp_path / "songs.npz"),), tmp_path / "scores.csv")
    assert scored.rejected == {"expected loudness_start_db between -60 and 0": 40}


# --- runs that are stopped ---


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.parquet")}


@pytest.mark.parametrize("dial", [{"threshold": BOTH_ANSWER_NATS}, {"agree": 0.8}])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dial: dict[str, float]
) -> None:
    score(bundle, (str(mixed_songs),), tmp_path / "undisturbed", **dial)  # type: ignore[arg-type]
    write, written = RunFolder.write, iter([None] * 3)

    def stop(*arguments: object) -> None:
        if next(written, "stop") == "stop":
            raise KeyboardInterrupt
        write(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", stop)
        with pytest.raises(KeyboardInterrupt, match="The same command goes on"):
            score(bundle, (str(mixed_songs),), tmp_path / "stopped", **dial)  # type: ignore[arg-type]
    assert len(list((tmp_path / "stopped").glob("part-*.parquet"))) == 3
    (tmp_path / "stopped" / ".part-00003.1.draft.parquet").write_bytes(b"of a run that was killed")
    scored = score(bundle, (str(mixed_songs),), tmp_path / "stopped", **dial)  # type: ignore[arg-type]
    assert scored.resumed_songs == 192
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "undisturbed")
    assert not list((tmp_path / "stopped").glob(".*"))


def test_a_run_of_something_else_is_not_gone_on_with(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    out, songs = tmp_path / "out", tmp_path / "songs.arrow"
    shutil.copy(mixed_songs, songs)
    score(bundle, (str(songs),), out, threshold=0.5)
    before = bytes_of(out)
    with pytest.raises(ConfigError, match=r": threshold was 0\.5 and is 0\.6\. Repeat"):
        score(bundle, (str(songs),), out, threshold=0.6)
    with pytest.raises(ConfigError, match=r"probs was False and is True"):
        score(bundle, (str(songs),), out, threshold=0.5, probs=True)
    save(songs, random_batch([120] * 70))
    with pytest.raises(ConfigError, match=r"songs\.arrow was changed\. Repeat the command .*--overwrite"):
        score(bundle, (str(songs),), out, threshold=0.5)
    assert bytes_of(out) == before
    assert score(bundle, (str(songs),), out, threshold=0.5, overwrite=True).songs == 70


def test_two_runs_into_one_folder_do_not_disturb_each_other(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunFolder.write
    refused: list[object] = []

    def meanwhile(*arguments: object) -> None:
        if not refused:
            with pytest.raises(ConfigError, match=r"another run writes there: process \d+ on .*, since 20") as error:
                score(bundle, (str(mixed_songs),), tmp_path / "out")
            refused.append(error)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "write", meanwhile)
    assert score(bundle, (str(mixed_songs),), tmp_path / "out").songs == 500
    assert refused


def test_a_file_that_changes_meanwhile_ends_the_run_and_leaves_what_was_scored(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = tmp_path / "songs.parquet"
    pq.write_table(pa.ipc.open_file(mixed_songs).read_all(), songs)
    write, written = RunFolder.write, iter([None] * 2)

    def change(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        if next(written, "now") == "now":
            songs.touch()

    monkeypatch.setattr(RunFolder, "write", change)
    with pytest.raises(SongError, match=r"songs\.parquet: (was changed|the file was written to) while it was read"):
        score(bundle, (str(songs),), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) >= 3
    assert not (tmp_path / "out" / "_summary.json").exists()


def test_a_part_that_could_not_be_written_is_told_before_a_song_of_the_next_one(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ConfigError("the disk is full")

    checked = Scorer._checked

    def faulty(self: Scorer, rows: Rows, room: Any = None) -> Any:
        return checked(self, replace(rows, faults={0: "bad"} if rows.first >= 64 else {}), room)

    monkeypatch.setattr(RunFolder, "write", full)
    monkeypatch.setattr(Scorer, "_checked", faulty)
    with pytest.raises(ConfigError, match="the disk is full"):
        score(bundle, (str(mixed_songs),), tmp_path / "out", strict=True)


def test_a_run_that_is_removed_meanwhile_ends_and_says_so(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunFolder.write

    def remove(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        shutil.rmtree(tmp_path / "out")

    monkeypatch.setattr(RunFolder, "write", remove)
    with pytest.raises(RunError, match="out: was there when the run began, and is gone"):
        score(bundle, (str(mixed_songs),), tmp_path / "out")
    assert not (tmp_path / "out").exists()


CUT_WHILE_SCORED = """
import os, sys
from pathlib import Path
from segue.serving.batch import catalogue
from segue.serving.batch.score import score
read = catalogue.Catalogue.read
def cut(self, part, keep=()):
    for rows in read(self, part, keep):
        yield rows
        os.truncate(sys.argv[2], 100_000)
catalogue.Catalogue.read = cut
score(Path(sys.argv[1]), (sys.argv[2],), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("name", ["songs.arrow", "songs.parquet"])
def test_a_file_cut_short_meanwhile_is_an_error_and_no_signal(
    bundle: Path, mixed_songs: Path, tmp_path: Path, name: str
) -> None:
    table, songs = pa.ipc.open_file(mixed_songs).read_all().combine_chunks(), tmp_path / name
    table = pa.concat_tables([table] * 10).combine_chunks()  # One large record batch.
    if songs.suffix == ".parquet":
        pq.write_table(table, songs)
    else:
        with pa.ipc.new_file(songs, table.schema) as file:
            file.write_table(table)
    words = [sys.executable, "-c", CUT_WHILE_SCORED, str(bundle), str(songs), str(tmp_path / "out")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"SongError: {songs}: the file was written to while it was read" in ended.stderr


def test_an_engine_that_makes_no_more_parts_is_no_end_of_a_run(
    bundle: Path, mixed_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = LocalEngine.parts
    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "parts", lambda engine, tasks: islice(parts(engine, tasks), 3))
        with pytest.raises(RunError, match="308 of 500 songs were not scored; repeat the command"):
            score(bundle, (str(mixed_songs),), tmp_path / "out")
    assert not (tmp_path / "out" / "_summary.json").exists()
    assert score(bundle, (str(mixed_songs),), tmp_path / "out").resumed_songs == 192


# --- dials ---


def test_the_promise_of_a_catalogue_is_kept_and_rests_on_the_sample(
    bundle: Path, mixed_songs: Path, tmp_path: Path
) -> None:
    scored = score(bundle, (str(mixed_songs),), tmp_path / "out.parquet", agree=0.9, confidence=0.9)
    teacher = expected(bundle, mixed_songs, -1.0)
    genres = read(tmp_path / "out.parquet")["genre"].to_pylist()
    differ = sum(genre != CLASSES[choice] for genre, choice in zip(genres, teacher.choice, strict=True))
    assert differ <= 50  # One draw; tests/serving/batch/test_agreement.py has the evidence.
    assert scored.promise
    assert scored.promise.startswith("at least 90.0% of these 500 songs get the teacher's answer, with 90% confidence")


def test_two_settings_of_the_dial_are_refused(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one setting of the dial, found --threshold and --budget"):
        score(bundle, (str(mixed_songs),), tmp_path / "out", threshold=0.4, budget=10)


def test_a_budget_of_much_time_asks_the_teacher_and_of_none_the_student(
    bundle: Path, mixed_songs: Path, tmp_path: Path
) -> None:
    slow = score(bundle, (str(mixed_songs),), tmp_path / "slow.parquet", budget=3600)
    fast = score(bundle, (str(mixed_songs),), tmp_path / "fast.parquet", budget=1e-6)
    assert (slow.fallback_rate, fast.fallback_rate) == (1.0, 0.0)


# --- what is refused ---


IMPOSSIBLE: list[tuple[str, dict[str, object], str]] = [
    ("scores.csv", {"threshold": -1.0}, "threshold: expected at least 0 nats, found -1"),
    ("scores.csv", {"threshold": np.nan}, "threshold: expected at least 0 nats, found nan"),
    ("scores.parquet", {"competition": True}, "--competition writes a CSV; expected a name that ends in .csv"),
    ("scores.csv", {"windows": 0}, "windows: expected at least 1, found 0"),
    ("scores.csv", {"agree": 1.0}, "agree: expected a share between 0 and 1, found 1"),
    ("scores.csv", {"budget": 0.0}, "budget: expected more than 0 seconds, found 0"),
]


@pytest.mark.parametrize(("name", "settings", "message"), IMPOSSIBLE)
def test_settings_that_cannot_work_are_refused(
    bundle: Path, mixed_songs: Path, tmp_path: Path, name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        score(bundle, (str(mixed_songs),), tmp_path / name, **settings)  # type: ignore[arg-type]
    assert not (tmp_path / name).exists()


def test_songs_in_other_units_are_refused(bundle: Path, tmp_path: Path) -> None:
    songs = save(tmp_path / "songs.arrow", random_batch([120]), units="standardised").path
    with pytest.raises(SongError, match=r"songs.arrow: expected raw songs for this bundle, found standardised ones"):
        score(bundle, (str(songs),), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_songs_that_are_not_there_are_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SongError, match=r"none-\*\.arrow: expected songs, found no such file or folder"):
        score(bundle, (str(tmp_path / "none-*.arrow"),), tmp_path / "out")


def test_a_place_to_write_that_was_forgotten_is_asked_for(bundle: Path, mixed_songs: Path) -> None:
    with pytest.raises(ConfigError, match=r"mixed\.arrow: expected OUT as the last path, .* Or say --out OUT"):
        score(bundle, (str(mixed_songs), str(mixed_songs)))


def test_an_empty_file_is_called_that(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "songs.arrow").touch()
    with pytest.raises(SongError, match=r"songs\.arrow: expected songs, found an empty file$"):
        score(bundle, (str(tmp_path / "songs.arrow"),), tmp_path / "out.csv")


def test_a_folder_of_other_files_is_left_alone(bundle: Path, mixed_songs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years")
    with pytest.raises(ConfigError, match=r"found a folder of other files, no _run\.json"):
        score(bundle, (str(mixed_songs),), tmp_path / "thesis", overwrite=True)
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_a_table_whose_name_is_no_text_is_scored_and_its_bad_songs_are_named(bundle: Path, tmp_path: Path) -> None:
    for suffix in ("arrow", "parquet"):
        path = tmp_path / f"caf\udce9.{suffix}"
        batch = random_batch([120, 120])
        batch.songs.segments[120, 12] = 2.0
        save(path, batch)
        found = score(bundle, (str(path),), tmp_path / f"{suffix}.csv")
        assert (found.songs, (tmp_path / f"{suffix}.csv").is_file()) == (1, True)


def test_a_table_that_is_refused_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1\0\0 and nothing more")
    with pytest.raises(SongError, match=r"bad\.arrow: "):
        score(bundle, (str(tmp_path / "bad.arrow"),), tmp_path / "out.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["bad.arrow"]
