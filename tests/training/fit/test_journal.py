"""The journal: what was finished stays, whatever happens to the disk, and nothing else is gone on with."""

import errno
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segue.data.synth import synth
from segue.errors import MissingDependencyError, RunError
from segue.training import train_teacher as verb
from segue.training.fit.execution import Execution
from segue.training.fit.journal import Checkpoint, Epoch, Journal, journal, load_metrics
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.train_teacher import train_teacher

SETTINGS: dict[str, Any] = {"songs": "some", "loop": LoopConfig()}
EPOCH = Epoch(1, 0.7, 0.5, 0.4, 1.1, 1e-3, 100.0)
NETWORK, LOOP = DenseConfig(hidden=(8,)), LoopConfig(epochs=4, batch_songs=40)
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def begun(out: Path) -> Journal:
    return Journal.open(out, SETTINGS, resume=False, tensorboard=False)


def checkpoint(epochs: int, seed: int = 0) -> Checkpoint:
    drawn = torch.Generator().manual_seed(seed)
    some = {"layer.weight": torch.randn(3, 4, generator=drawn), "norm.count": torch.tensor(7)}
    gathered = {"0.step": torch.tensor(3.0), "0.exp_avg": torch.randn(3, 4, generator=drawn)}
    return Checkpoint(
        [replace(EPOCH, epoch=number + 1) for number in range(epochs)],
        some,
        {name: tensor + 1 for name, tensor in some.items()},
        gathered,
    )


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert found.epochs == expected.epochs
    for part in ("network", "best", "optimiser"):
        tensors = getattr(found, part)
        assert tensors.keys() == getattr(expected, part).keys()
        for name, tensor in getattr(expected, part).items():
            np.testing.assert_array_equal(tensors[name], tensor)


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    opened = begun(tmp_path / "run")
    assert opened.load("teacher") is None
    for epochs in (1, 2):
        opened.save("teacher", checkpoint(epochs, seed=epochs))
    again = Journal.open(tmp_path / "run", SETTINGS, resume=True, tensorboard=False)
    assert_same(again.load("teacher"), checkpoint(2, seed=2))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_named_and_the_others_stay(tmp_path: Path, share: float) -> None:
    opened = begun(tmp_path / "run")
    for fit in ("fold-1", "fold-2"):
        opened.save(fit, checkpoint(1))
    file = tmp_path / "run.training/checkpoints/fold-2.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(RunError, match=r"fold-2\.safetensors: the checkpoint cannot be read.* Remove it to train this"):
        opened.load("fold-2")
    assert_same(opened.load("fold-1"), checkpoint(1))


@pytest.mark.parametrize("metadata", [{}, {"epochs": "[]]"}, {"epochs": '[{"epoch": 1}]'}])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, metadata: dict[str, str]) -> None:
    opened = begun(tmp_path / "run")
    save_file({"network.w": torch.ones(2)}, tmp_path / "run.training/checkpoints/teacher.safetensors", metadata)
    with pytest.raises(RunError, match=r"teacher\.safetensors: the checkpoint cannot be read"):
        opened.load("teacher")


def test_a_run_goes_on_with_the_settings_it_was_started_with_alone(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    others: list[tuple[dict[str, Any], str]] = [
        ({"songs": "others"}, "songs was some, and is others"),
        ({"loop": LoopConfig(seed=1)}, "loop was"),
    ]
    for changed, told in others:
        with pytest.raises(RunError, match=rf"run\.training: expected the settings .*: {told}"):
            Journal.open(tmp_path / "run", SETTINGS | changed, resume=True, tensorboard=False)


def test_a_run_that_never_began_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.training: expected a run to go on with, found none\. Leave --resume out"):
        Journal.open(tmp_path / "run", SETTINGS, resume=True, tensorboard=False)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_settings_that_are_none_are_named(tmp_path: Path, content: str) -> None:
    begun(tmp_path / "run")
    (tmp_path / "run.training/settings.json").write_text(content)
    with pytest.raises(RunError, match=r"settings\.json: .*Leave --resume out to begin anew"):
        Journal.open(tmp_path / "run", SETTINGS, resume=True, tensorboard=False)


def test_a_new_run_begins_without_what_an_old_one_left(tmp_path: Path) -> None:
    begun(tmp_path / "run").save("teacher", checkpoint(1))
    assert begun(tmp_path / "run").load("teacher") is None


def test_the_journal_goes_when_the_run_ends_well_and_stays_otherwise(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), journal(tmp_path / "run", SETTINGS, resume=False, tensorboard=False) as kept:
        kept.save("teacher", checkpoint(1))
        raise KeyboardInterrupt
    with journal(tmp_path / "run", SETTINGS, resume=True, tensorboard=False) as kept:
        assert_same(kept.load("teacher"), checkpoint(1))
    assert not (tmp_path / "run.training").exists()


def test_metrics_are_handed_over_without_what_was_half_written(tmp_path: Path) -> None:
    opened = begun(tmp_path / "run")
    for fit in ("teacher", "fold-10", "fold-2"):
        opened.save(fit, checkpoint(2))
    (tmp_path / "run.training/metrics/.fold-3.1.draft.jsonl").write_text("{")
    opened.hand_over(tmp_path / "run")
    found = load_metrics(tmp_path / "run")
    assert [*found] == ["teacher", "fold-2", "fold-10"]
    assert found["teacher"] == checkpoint(2).epochs


@pytest.mark.parametrize("content", ["", "{}\n", "no json\n"])
def test_metrics_that_are_none_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/teacher.jsonl").write_text(content)
    with pytest.raises(RunError, match=r"teacher\.jsonl: expected a line of JSON an epoch, found"):
        load_metrics(tmp_path)


def fill_up(monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    """Let the disk be full from the so-manyth checkpoint on, in the middle of the file."""
    calls = []

    def save(tensors: Any, file: Path, metadata: dict[str, str]) -> None:
        calls.append(file)
        save_file(tensors, file, metadata)
        if len(calls) >= at_call:
            file.write_bytes(file.read_bytes()[:100])
            raise NO_SPACE

    monkeypatch.setattr("segue.training.fit.journal.save_file", save)


def test_on_a_full_disk_the_epoch_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = begun(tmp_path / "run")
    fill_up(monkeypatch, at_call=2)
    opened.save("teacher", checkpoint(1))
    with pytest.raises(RunError, match=r"run\.training/checkpoints: cannot be written to: .*No space left on device"):
        opened.save("teacher", checkpoint(2))
    assert_same(opened.load("teacher"), checkpoint(1))
    assert [file.name for file in (tmp_path / "run.training/checkpoints").iterdir()] == ["teacher.safetensors"]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("journal") / "songs.arrow"
    synth(path, songs=120, classes=3)
    return path


@pytest.fixture(scope="module")
def undisturbed(songs: Path) -> Path:
    return train_teacher(songs, songs.parent / "undisturbed", folds=0, network=NETWORK, loop=LOOP).out


@pytest.mark.parametrize("moment", ["epoch 1", "epoch 3", "the end"])
def test_after_a_full_disk_a_run_goes_on_to_the_same_result(
    songs: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def train(execution: Execution) -> None:
        train_teacher(songs, tmp_path / "run", folds=0, network=NETWORK, loop=LOOP, execution=execution)

    def full(*_: Any) -> None:
        raise NO_SPACE

    with monkeypatch.context() as patch:
        if moment == "the end":
            patch.setattr("segue.training.runs.save_tensors", full)
        else:
            fill_up(patch, at_call=int(moment[-1]))
        with pytest.raises(RunError, match=r"cannot be written to: .*No space left on device"):
            train(Execution())
    assert not (tmp_path / "run").exists()
    train(Execution(resume=True))
    name = "model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (undisturbed / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_file_that_may_not_grow_ends_the_verb_without_a_traceback(songs: Path, tmp_path: Path) -> None:
    words = [str(songs), "--out", str(tmp_path / "run"), "--folds", "0", "--epochs", "1", "dense", "--look", "flat"]
    done = subprocess.run(
        [sys.executable, "-m", "segue.training.train_teacher", *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "run.training/checkpoints: cannot be written to: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_does_not_go_on_with_other_songs(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_up(monkeypatch, at_call=2)
    words = ["--out", str(tmp_path / "run"), "--folds", "0", "--epochs", "3", "--batch-songs", "40"]
    shape = ["dense", "--hidden", "8"]
    assert verb.main([str(songs), *words, *shape]) == 1
    synth(tmp_path / "other.arrow", songs=120, classes=3, seed=1)
    assert verb.main([str(tmp_path / "other.arrow"), *words, "--resume", *shape]) == 1
    assert "expected the settings that the run was started with, found others: songs was" in capsys.readouterr().err
    monkeypatch.undo()
    assert verb.main([str(songs), *words, "--resume", *shape]) == 0


def test_tensorboard_reads_the_metrics_back(songs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    train_teacher(songs, out, folds=0, network=NETWORK, loop=LOOP, execution=Execution(tensorboard=True))
    events = EventAccumulator(str(out / "tensorboard/teacher"))
    events.Reload()
    lines = [json.loads(line) for line in (out / "metrics/teacher.jsonl").read_text().splitlines()]
    assert len(lines) == LOOP.epochs
    for name in lines[0].keys() - {"epoch"}:
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [line["epoch"] for line in lines]
        assert [scalar.value for scalar in scalars] == pytest.approx([line[name] for line in lines], rel=1e-6)


def test_without_tensorboard_its_install_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"tensorboard is not installed: .*\[tensorboard\]"):
        Journal.open(tmp_path / "run", SETTINGS, resume=False, tensorboard=True)
    assert not [*tmp_path.iterdir()]
