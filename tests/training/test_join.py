"""`segue join`: one run that says the mean of what its members say, and only of runs that belong together."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from segue.data.metrics import accuracy
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import RunError
from segue.training.fit.loop import LoopConfig, predict
from segue.training.fit.selection import Selected
from segue.training.join import join, main
from segue.training.networks.build import EnsembleConfig, SingleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.report.report import report
from segue.training.runs import load_held_out, load_run, load_splits
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher

LOOP = LoopConfig(epochs=2, batch_songs=32)
SHAPES: dict[str, SingleConfig] = {
    "dense": DenseConfig(hidden=(8,)),
    "convolutional": ConvolutionalConfig(channels=(4,), kernel=3, summary=False, hidden=()),
    "recurrent": RecurrentConfig(state=4, bptt_steps=60),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs and a run of two fold teachers of each shape."""
    folder = tmp_path_factory.mktemp("join")
    synth(folder / "songs.arrow", songs=160, classes=3)
    for seed, (name, config) in enumerate(SHAPES.items()):
        loop = replace(LOOP, seed=seed)
        train_teacher(folder / "songs.arrow", folder / name, folds=2, network=config, loop=loop)
    return folder


@pytest.fixture(scope="module")
def joined(runs: Path) -> Path:
    return join(tuple(runs / name for name in SHAPES), runs / "joined").out


def log_softmax(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    return found


def test_it_says_the_mean_log_probability_of_its_members(runs: Path, joined: Path) -> None:
    table = SongTable(runs / "songs.arrow")
    record, network = load_run(joined, "teacher")
    assert record.network == EnsembleConfig(tuple(SHAPES.values()))
    rows = load_splits(joined, record, table).calibration
    said = [predict(load_run(runs / name, "teacher")[1], table, rows, windows=1) for name in SHAPES]
    expected = np.mean([log_softmax(one) for one in said], axis=0)
    np.testing.assert_allclose(predict(network, table, rows, windows=1), log_softmax(expected), atol=1e-5)


def test_held_out_logits_are_the_mean_of_those_of_all_fold_teachers(runs: Path, joined: Path) -> None:
    expected = np.mean([log_softmax(load_held_out(runs / name).logits) for name in SHAPES], axis=0)
    found = load_held_out(joined).logits
    np.testing.assert_allclose(found, expected, atol=1e-5)
    table, (record, _) = SongTable(runs / "songs.arrow"), load_run(joined, "teacher")
    assert record.held_out_accuracy == accuracy(found, table.labels[load_splits(joined, record, table).train])


def test_what_is_joined_can_be_joined_looked_at_and_distilled(runs: Path, joined: Path, tmp_path: Path) -> None:
    again = join((joined, runs / "dense"), tmp_path / "again").out
    record, _ = load_run(again, "teacher")
    assert record.network == EnsembleConfig((*SHAPES.values(), SHAPES["dense"]))
    assert "without metrics" in str(report(again, repeats=1, page=tmp_path / "page.html"))
    assert "members 3 bptt_steps" in (tmp_path / "page.html").read_text()
    student = train_student(runs / "songs.arrow", again, tmp_path / "student", DenseConfig(hidden=(8,)), LOOP)
    assert student.teacher_validation_accuracy == record.validation_accuracy


def test_only_what_pays_is_joined(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is that of `select`, which has tests of its own; here one member, then two, are kept."""
    record, _ = load_run(runs / "dense", "teacher")
    splits = load_splits(runs / "dense", record, SongTable(runs / "songs.arrow"))
    labels = SongTable(runs / "songs.arrow").labels[splits.train]
    held_out = [load_held_out(runs / name).logits for name in SHAPES]
    for members in ((1,), (2, 0)):
        choice = Mock(return_value=Selected(members, ("why", "why not", "because")))
        monkeypatch.setattr("segue.training.join.select", choice)
        made = join(tuple(runs / name for name in SHAPES), tmp_path / str(len(members)), choose=True)
        np.testing.assert_array_equal(choice.call_args.args[0], held_out)
        np.testing.assert_array_equal(choice.call_args.args[1], labels)
        assert made.chosen == ("dense: why", "convolutional: why not", "recurrent: because")
        assert "dense: why" in str(made)
        record, _ = load_run(made.out, "teacher")
        shapes = [list(SHAPES.values())[one] for one in members]
        assert record.network == (EnsembleConfig(tuple(shapes)) if len(shapes) > 1 else shapes[0])
        assert record.chosen == made.chosen


def test_one_run_alone_is_not_joined(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs / "dense"), "--out", str(tmp_path / "joined")]) == 1
    assert "expected at least two teacher runs to join, found 1" in capsys.readouterr().err


def test_runs_of_other_splits_or_windows_are_refused(runs: Path, tmp_path: Path) -> None:
    songs, config = runs / "songs.arrow", SHAPES["dense"]
    other = train_teacher(songs, tmp_path / "other", folds=0, split_seed=1, network=config, loop=LOOP).out
    with pytest.raises(RunError, match=r"other: expected the split of .*dense, found another; .*--split-seed"):
        join((runs / "dense", other), tmp_path / "joined")
    more = train_teacher(songs, tmp_path / "more", folds=0, network=config, loop=replace(LOOP, windows=2)).out
    with pytest.raises(RunError, match=r"more: expected 1 windows a song as in .*dense, found 2"):
        join((runs / "dense", more), tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_without_fold_teachers_there_are_no_held_out_logits(runs: Path, tmp_path: Path) -> None:
    alone = train_teacher(runs / "songs.arrow", tmp_path / "alone", folds=0, network=SHAPES["dense"], loop=LOOP).out
    found = join((runs / "dense", alone), tmp_path / "joined")
    assert found.held_out_accuracy is None
    with pytest.raises(RunError, match="joined: expected held-out logits of fold teachers, found none"):
        load_held_out(found.out)


def test_fold_teachers_may_be_the_teacher(runs: Path, tmp_path: Path) -> None:
    found = train_teacher(
        runs / "songs.arrow", tmp_path / "run", folds=2, join_folds=True, network=SHAPES["dense"], loop=LOOP
    )
    record, _ = load_run(found.out, "teacher")
    assert record.network == EnsembleConfig((SHAPES["dense"],) * 2)
    held_out, of_runs = load_held_out(found.out).logits, load_held_out(runs / "dense").logits
    np.testing.assert_array_equal(held_out, of_runs)  # The same fold teachers as of the run that was trained alone.
