"""`segue train-teacher` and `segue train-student`, end to end on a few songs."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segue.data.metrics import accuracy, agreement
from segue.data.splits import Shares, deal
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError
from segue.training import train_student, train_teacher
from segue.training.fit.loop import LoopConfig, predict
from segue.training.fit.losses import DistillationConfig, LabelConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.runs import load_held_out, load_run, load_splits
from segue.training.train_student import TrainedStudent
from segue.training.train_teacher import TrainedTeacher, fit_to_labels

FOLDS = 2
TEACHER, LOOP = RecurrentConfig(state=6, bptt_steps=60), LoopConfig(epochs=2, batch_songs=32, seed=5)
STUDENT, STUDENT_LOOP = DenseConfig(look="pooled", hidden=(12,)), LoopConfig(epochs=3, batch_songs=32)
SHARES = Shares(validation=0.1, calibration=0.2, test=0.1)


@dataclass(frozen=True)
class Trained:
    """A small teacher with two fold teachers, and its student."""

    songs: Path
    teacher: TrainedTeacher
    student: TrainedStudent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    synth(folder / "songs.arrow", songs=160, classes=3)
    songs = folder / "songs.arrow"
    teacher = train_teacher.train_teacher(
        songs, folder / "teacher", folds=FOLDS, network=TEACHER, loop=LOOP, shares=SHARES
    )
    student = train_student.train_student(songs, folder / "teacher", folder / "student", STUDENT, STUDENT_LOOP)
    return Trained(songs, teacher, student)


def test_the_runs_are_complete_and_nothing_else_is_left(trained: Trained) -> None:
    folder = trained.songs.parent
    assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == {
        "songs.arrow",
        *(f"teacher/{name}" for name in ("run.json", "splits.json", "model.safetensors", "held_out.safetensors")),
        *(f"teacher/metrics/{name}.jsonl" for name in ("teacher", "fold-1", "fold-2")),
        *(f"student/{name}" for name in ("run.json", "splits.json", "model.safetensors", "metrics/student.jsonl")),
        *(f"student/teacher/{name}" for name in ("run.json", "model.safetensors")),
    }


def test_the_splits_are_a_partition_that_teacher_and_student_share(trained: Trained) -> None:
    of_teacher, of_student = (
        json.loads((run.out / "splits.json").read_text()) for run in (trained.teacher, trained.student)
    )
    assert of_teacher == of_student
    assert {name: len(ids) for name, ids in of_teacher.items()} == trained.teacher.split_songs
    assert sum(map(len, of_teacher.values())) == 160
    assert {song_id for ids in of_teacher.values() for song_id in ids} == set(SongTable(trained.songs).song_ids)


@pytest.mark.parametrize("fold", range(FOLDS))
def test_held_out_logits_are_those_of_a_teacher_that_never_saw_the_songs(trained: Trained, fold: int) -> None:
    table = SongTable(trained.songs)
    train = load_splits(trained.teacher.out, load_run(trained.teacher.out, "teacher")[0], table).train
    unseen = deal(table, train, FOLDS, 0) == fold
    loop = dataclasses.replace(LOOP, seed=LOOP.seed + 1 + fold)
    network, _ = fit_to_labels(table, train[~unseen], train[unseen], TEACHER, loop, "the same fold again")
    np.testing.assert_array_equal(
        load_held_out(trained.teacher.out).logits[unseen], predict(network, table, train[unseen], windows=1)
    )


def test_the_figures_of_the_teacher_are_those_of_its_files(trained: Trained) -> None:
    table, out = SongTable(trained.songs), trained.teacher.out
    run, network = load_run(out, "teacher")
    splits = load_splits(out, run, table)
    held_out_accuracy = accuracy(load_held_out(out).logits, table.labels[splits.train])
    assert trained.teacher.held_out_accuracy == run.held_out_accuracy == held_out_accuracy
    validation_accuracy = accuracy(
        predict(network, table, splits.validation, windows=1), table.labels[splits.validation]
    )
    assert trained.teacher.validation_accuracy == run.validation_accuracy == validation_accuracy


def test_the_figures_of_the_student_are_those_of_its_files(trained: Trained) -> None:
    table, out = SongTable(trained.songs), trained.student.out
    run, student = load_run(out, "student")
    _, teacher = load_run(out / "teacher", "teacher")
    rows = load_splits(out, run, table).validation
    student_logits, teacher_logits = predict(student, table, rows, 1), predict(teacher, table, rows, 1)
    assert trained.student.validation_accuracy == accuracy(student_logits, table.labels[rows])
    assert trained.student.teacher_validation_accuracy == accuracy(teacher_logits, table.labels[rows])
    assert trained.student.validation_agreement == agreement(student_logits, teacher_logits)


def test_the_records_say_what_was_learnt_from(trained: Trained) -> None:
    teacher, _ = load_run(trained.teacher.out, "teacher")
    student, _ = load_run(trained.student.out, "student")
    assert (teacher.labels, teacher.distillation) == (LabelConfig(), None)
    assert (student.labels, student.distillation) == (None, DistillationConfig())


def test_the_student_brings_its_teacher_along(trained: Trained) -> None:
    for name in ("run.json", "model.safetensors"):
        assert (trained.student.out / "teacher" / name).read_bytes() == (trained.teacher.out / name).read_bytes()


def test_the_networks_standardise_by_the_training_songs_alone(trained: Trained) -> None:
    table = SongTable(trained.songs)
    run, teacher = load_run(trained.teacher.out, "teacher")
    _, student = load_run(trained.student.out, "student")
    segments = np.concatenate(table.songs(load_splits(trained.teacher.out, run, table).train)).astype(np.float64)
    for network in (teacher, student):
        np.testing.assert_allclose(network.standardise.mean, segments.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(network.standardise.deviation, segments.std(axis=0), rtol=1e-5)


def test_without_folds_there_is_nothing_to_distil(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs, teacher, student = str(trained.songs), str(tmp_path / "teacher"), str(tmp_path / "student")
    small = ["--epochs", "1", "--batch-songs", "64"]
    assert (
        train_teacher.main([songs, "--out", teacher, "--folds", "0", *small, "recurrent", "--state", "2", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["held_out_accuracy"] is None
    assert train_student.main([songs, "--teacher", teacher, "--out", student, *small]) == 1
    assert "expected held-out logits of fold teachers, found none. Train the teacher with" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


@pytest.mark.parametrize("folds", [1, -1])
def test_folds_that_hold_nothing_out_are_refused(trained: Trained, tmp_path: Path, folds: int) -> None:
    with pytest.raises(ConfigError, match=f"folds: expected 0 or at least 2, found {folds}"):
        train_teacher.train_teacher(trained.songs, tmp_path / "teacher", folds)


def test_a_student_of_other_songs_than_the_teacher_is_refused(trained: Trained, tmp_path: Path) -> None:
    synth(tmp_path / "other.arrow", songs=160, classes=3, seed=1)
    with pytest.raises(RunError, match=r"teacher: was trained on .*songs\.arrow .*other\.arrow holds other songs"):
        train_student.train_student(tmp_path / "other.arrow", trained.teacher.out, tmp_path / "student")
