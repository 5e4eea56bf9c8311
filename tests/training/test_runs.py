"""Run folders: what is saved is what is loaded, and an incomplete or foreign run is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training.standardise import Standardise
from training.student import StudentConfig
from training.teacher import TeacherConfig

from data.errors import RunError
from data.splits import Shares, Splits, split
from data.table import SongTable
from tests.random_songs import random_batch, save
from training.loop import Epoch, Fit, LoopConfig
from training.networks import Config, Kind, Network, build
from training.runs import (
    Run,
    describe,
    load_held_out,
    load_run,
    load_splits,
    save_held_out,
    save_run,
)

CONFIGS: dict[Kind, Config] = {
    "teacher": TeacherConfig(state=4, bptt_steps=40),
    "student": StudentConfig(look="pooled", hidden=6),
}
EPOCHS = [Epoch(1, 1.25, 0.1 + 0.2, 1 / 3, 1000.5), Epoch(2, 0.75, 0.5, 0.875, 999.25)]


@pytest.fixture(scope="module")
def table(synthetic_songs: Path) -> SongTable:
    return SongTable(synthetic_songs)


def saved(folder: Path, kind: Kind, songs: SongTable) -> tuple[Run, Network, Splits]:
    """Save an untrained network as a run in `folder`."""
    splits = split(songs, Shares(), seed=0)
    torch.manual_seed(0)
    network = build(CONFIGS[kind], len(songs.classes), Standardise.of(songs, splits.train))
    fitted = Fit(EPOCHS, EPOCHS[1], np.zeros((len(splits.validation), 4), dtype=np.float32))
    run = describe(kind, CONFIGS[kind], LoopConfig(epochs=2), songs, splits, fitted, held_out_accuracy=None)
    folder.mkdir()
    save_run(folder, run, network, songs, splits)
    return run, network, splits


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_a_run_is_loaded_as_it_was_saved(tmp_path: Path, table: SongTable, kind: Kind) -> None:
    run, network, splits = saved(tmp_path / "run", kind, table)
    loaded_run, loaded = load_run(tmp_path / "run", kind)
    assert loaded_run == run
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], tensor)
    for name, rows in vars(load_splits(tmp_path / "run", loaded_run, table)).items():
        np.testing.assert_array_equal(rows, vars(splits)[name])


def test_a_run_says_what_it_was_made_from(tmp_path: Path, table: SongTable) -> None:
    run, _, splits = saved(tmp_path / "run", "teacher", table)
    assert (run.songs_sha256, run.classes, run.units) == (table.fingerprint(), table.classes, "raw")
    assert run.split_songs == {name: len(rows) for name, rows in vars(splits).items()}
    assert sum(run.split_songs.values()) == 400
    assert run.provenance.libraries["torch"] == torch.__version__


def test_held_out_logits_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    save_held_out(tmp_path, logits)
    np.testing.assert_array_equal(load_held_out(tmp_path), logits)


def test_a_run_of_the_other_kind_is_refused(tmp_path: Path, table: SongTable) -> None:
    saved(tmp_path / "run", "teacher", table)
    with pytest.raises(RunError, match="run: expected a student run, found a teacher run"):
        load_run(tmp_path / "run", "student")


def test_a_missing_run_is_named_with_the_verb_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone: expected a teacher run, found no such folder\. `segue train-teacher`"):
        load_run(tmp_path / "gone", "teacher")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected a teacher run, found a folder without run\.json"):
        load_run(tmp_path, "teacher")


@pytest.mark.parametrize("record", ["", "{", "[]", '{"kind": "teacher"}'])
def test_a_record_that_is_no_record_is_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(RunError, match=r"run\.json: not the record of a run"):
        load_run(tmp_path, "teacher")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_weights_cut_short_are_refused(tmp_path: Path, table: SongTable, share: float) -> None:
    saved(tmp_path / "run", "teacher", table)
    weights = tmp_path / "run/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match="run: the weights cannot be read or do not fit"):
        load_run(tmp_path / "run", "teacher")


def test_missing_weights_are_named(tmp_path: Path, table: SongTable) -> None:
    saved(tmp_path / "run", "student", table)
    (tmp_path / "run/model.safetensors").unlink()
    with pytest.raises(RunError, match=r"the weights cannot be read .*model\.safetensors"):
        load_run(tmp_path / "run", "student")


@pytest.mark.parametrize("change", [{"state": 5}, {"state": 0}, {"neurons": 4}])
def test_weights_that_do_not_fit_the_record_are_refused(
    tmp_path: Path, table: SongTable, change: dict[str, int]
) -> None:
    saved(tmp_path / "run", "teacher", table)
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["network"] |= change
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"the weights cannot be read or do not fit run\.json"):
        load_run(tmp_path / "run", "teacher")


def test_a_table_of_other_songs_is_refused(tmp_path: Path, table: SongTable) -> None:
    run, _, _ = saved(tmp_path / "run", "teacher", table)
    other = save(tmp_path / "other.arrow", random_batch([120]))
    with pytest.raises(RunError, match=r"run: was trained on .*synthetic\.arrow .*other\.arrow holds other songs"):
        load_splits(tmp_path / "run", run, other)


@pytest.mark.parametrize("splits", [None, "", "{", "[]", '{"train": ["no such song"]}', '{"train": []}'])
def test_splits_that_cannot_be_read_are_refused(tmp_path: Path, table: SongTable, splits: str | None) -> None:
    run, _, _ = saved(tmp_path / "run", "teacher", table)
    (tmp_path / "run/splits.json").unlink()
    if splits is not None:
        (tmp_path / "run/splits.json").write_text(splits)
    with pytest.raises(RunError, match=r"splits\.json: cannot be read"):
        load_splits(tmp_path / "run", run, table)


def test_missing_held_out_logits_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"held-out logits of fold teachers, found none\. .*--folds 2"):
        load_held_out(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.9])
def test_held_out_logits_cut_short_are_refused(tmp_path: Path, share: float) -> None:
    save_held_out(tmp_path, np.zeros((10, 4), dtype=np.float32))
    file = tmp_path / "held_out.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match=r"held_out\.safetensors: cannot be read, it may be cut short"):
        load_held_out(tmp_path)
