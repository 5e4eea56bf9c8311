"""Warm start: a run begins with the weights of another, never unseen, never with what does not fit."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from segue.data.splits import Shares
from segue.data.synth import synth
from segue.data.table import SongTable, write_table
from segue.errors import RunError
from segue.training.fit.loop import LoopConfig
from segue.training.networks.build import build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.standardise import Standardise
from segue.training.runs import load_run
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher
from segue.training.warm_start import warm_start

NETWORK = DenseConfig(look="pooled", hidden=(6,))
LOOP = LoopConfig(epochs=1, batch_songs=32)
NO_STEP = LoopConfig(epochs=1, batch_songs=32, learning_rate=1e-12)
SHARES = Shares(validation=0.2, calibration=0.2)


def own_songs(path: Path, names: tuple[str, ...]) -> Path:
    """Write songs of our analyser's, under other ids, with these classes."""
    synth(path.with_suffix(".all.arrow"), songs=60, classes=len(names), seed=9)
    other = SongTable(path.with_suffix(".all.arrow"))
    batch = other.batch(range(len(other)))
    with write_table(path, "raw", names, features="segue-audio-1") as table:
        table.write(
            dataclasses.replace(
                batch,
                song_ids=[f"own/{name}" for name in batch.song_ids],
                labels=[names[label] for label in other.labels.tolist()],
            )
        )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    synth(folder / "many.arrow", songs=120, classes=3)
    train_teacher(folder / "many.arrow", folder / "many", folds=2, network=NETWORK, loop=LOOP, shares=SHARES)
    train_student(folder / "many.arrow", folder / "many", folder / "many-student", NETWORK, LOOP)
    classes = load_run(folder / "many", "teacher")[0].classes
    own_songs(folder / "own.arrow", (classes[2], "Polka", classes[0]))
    return folder


def test_a_run_begins_with_the_weights_of_another_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = train_teacher(
            folder / "own.arrow", folder / "own", folds=2, network=NETWORK, loop=NO_STEP, shares=SHARES,
            start=folder / "many",
        )  # fmt: skip
    assert f"from {folder / 'many'}" in str(made)
    assert "new to them: Polka" in caplog.text
    assert "its songs have echonest features" in caplog.text
    run, network = load_run(folder / "own", "teacher")
    before, theirs = load_run(folder / "many", "teacher")
    assert run.start is not None
    assert run.start.kept_classes == (before.classes[0], before.classes[2])
    assert json.loads((folder / "own/run.json").read_text())["start"]["features"] == "echonest"
    state, old = network.state_dict(), theirs.state_dict()
    rows = [run.classes.index(name) for name in run.start.kept_classes]
    of_readout = [name for name in state if state[name].shape[:1] == (3,)]
    assert of_readout
    for name, weights in state.items():
        if name in of_readout:
            torch.testing.assert_close(weights[rows], old[name][[0, 2]], atol=1e-5, rtol=0)
        elif "running" not in name and "num_batches" not in name and not name.startswith("standardise"):
            torch.testing.assert_close(weights, old[name], atol=1e-5, rtol=0)
    own = Standardise.of(SongTable(folder / "own.arrow"), np.arange(60))
    torch.testing.assert_close(state["standardise.mean"], own.mean, atol=3, rtol=0.5)
    assert (state["standardise.mean"] - old["standardise.mean"]).abs().max() > 1e-3


def test_a_student_begins_with_the_weights_of_another(folder: Path) -> None:
    train_teacher(folder / "own.arrow", folder / "cold", folds=2, network=NETWORK, loop=LOOP, shares=SHARES)
    made = train_student(
        folder / "own.arrow", folder / "cold", folder / "own-student", NETWORK, LOOP, start=folder / "many-student"
    )
    assert made.start == str((folder / "many-student").resolve())
    assert load_run(folder / "own-student", "student")[0].start is not None
    assert load_run(folder / "cold", "teacher")[0].start is None


@pytest.mark.parametrize(
    ("start", "network", "message"),
    [
        ("many", dataclasses.replace(NETWORK, hidden=(7,)), "expected a network with the weights of the one to train"),
        ("many-student", NETWORK, "expected a teacher run, found a student run"),
        ("nothing", NETWORK, "found no such folder"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, start: str, network: DenseConfig, message: str) -> None:
    with pytest.raises(RunError, match=message):
        train_teacher(folder / "own.arrow", folder / "x", folds=0, network=network, loop=LOOP, start=folder / start)
    assert not (folder / "x").exists()
    assert not (folder / "x.training").exists()


def test_joined_teachers_are_no_start(folder: Path) -> None:
    train_teacher(
        folder / "many.arrow", folder / "joined", folds=2, join_folds=True, network=NETWORK, loop=LOOP, shares=SHARES
    )
    with pytest.raises(RunError, match="expected a run of one network, found 2 joined ones"):
        train_teacher(folder / "own.arrow", folder / "x", network=NETWORK, loop=LOOP, start=folder / "joined")


def test_a_start_that_has_heard_what_is_held_out_is_refused(folder: Path) -> None:
    with pytest.raises(RunError, match="expected a run that never heard the songs that are held out now"):
        train_teacher(folder / "many.arrow", folder / "x", network=NETWORK, loop=LOOP, start=folder / "many")


def test_rows_of_the_readout_follow_their_classes(folder: Path) -> None:
    songs = SongTable(folder / "own.arrow")
    begin = warm_start(folder / "many", "teacher", NETWORK, songs, np.zeros(0, np.int64))
    torch.manual_seed(1)
    fresh, started = build(NETWORK, 3, Standardise()), build(NETWORK, 3, Standardise())
    started.load_state_dict(fresh.state_dict())
    begin.apply(started)
    _, theirs = load_run(folder / "many", "teacher")
    readout = [name for name, weights in started.state_dict().items() if weights.shape[:1] == (3,)]
    assert readout
    for name in readout:
        found, polka = started.state_dict()[name], songs.classes.index("Polka")
        torch.testing.assert_close(found[polka], fresh.state_dict()[name][polka])
        torch.testing.assert_close(found[0], theirs.state_dict()[name][2])
