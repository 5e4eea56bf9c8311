"""Run folders: what is saved is what is loaded, and an incomplete or foreign run is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segue.data.splits import Shares, Splits, split
from segue.data.table import SongTable
from segue.errors import RunError
from segue.training.fit.loop import LoopConfig
from segue.training.networks.build import Config, EnsembleConfig, Role, build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise
from segue.training.runs import (
    HeldOut,
    Run,
    describe,
    load_held_out,
    load_run,
    load_splits,
    save_held_out,
    save_run,
    unlabelled_rows,
)
from tests.support.random_songs import random_batch, save

RECURRENT, DENSE = RecurrentConfig(state=4, bptt_steps=40), DenseConfig(look="pooled", hidden=(6,))
CONFIGS: dict[Role, Config] = {"teacher": RECURRENT, "student": DENSE}


@pytest.fixture(scope="module")
def table(synthetic_songs: Path) -> SongTable:
    return SongTable(synthetic_songs)


def saved(folder: Path, role: Role, songs: SongTable, config: Config | None = None) -> tuple[Run, Network, Splits]:
    """Save an untrained network as a run in `folder`."""
    config = config or CONFIGS[role]
    splits = split(songs, Shares(), seed=0)
    torch.manual_seed(0)
    network = build(config, len(songs.classes), Standardise.of(songs, splits.train))
    run = describe(role, config, LoopConfig(epochs=2), songs, splits, network)
    folder.mkdir()
    save_run(folder, run, network, songs, splits)
    return run, network, splits


@pytest.mark.parametrize(
    ("role", "config"), [("teacher", RECURRENT), ("teacher", EnsembleConfig((RECURRENT, DENSE))), ("student", DENSE)]
)
def test_a_run_is_loaded_as_it_was_saved(tmp_path: Path, table: SongTable, role: Role, config: Config) -> None:
    run, network, splits = saved(tmp_path / "run", role, table, config)
    loaded_run, loaded = load_run(tmp_path / "run", role)
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
    logits, unlabelled = np.split(np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32), [7])
    save_held_out(tmp_path, HeldOut(logits, unlabelled))
    found = load_held_out(tmp_path)
    np.testing.assert_array_equal(found.logits, logits)
    np.testing.assert_array_equal(found.unlabelled, unlabelled)


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


@pytest.mark.parametrize("record", ["", "{", "[]", '{"role": "teacher"}'])
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


@pytest.mark.parametrize("change", [{"state": 5}, {"bptt_steps": 8, "cell": "lstm"}])
def test_weights_that_do_not_fit_the_record_are_refused(
    tmp_path: Path, table: SongTable, change: dict[str, int]
) -> None:
    saved(tmp_path / "run", "teacher", table)
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["network"] |= change
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"the weights cannot be read or do not fit run\.json"):
        load_run(tmp_path / "run", "teacher")


@pytest.mark.parametrize("change", [{"state": 0}, {"state": "many"}, {"shape": "round"}])
def test_a_record_of_a_network_that_cannot_be_is_refused(
    tmp_path: Path, table: SongTable, change: dict[str, int]
) -> None:
    saved(tmp_path / "run", "teacher", table)
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["network"] |= change
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"run\.json: not the record of a run"):
        load_run(tmp_path / "run", "teacher")


def test_songs_without_a_label_by_artists_that_are_measured_on_are_left_out(tmp_path: Path) -> None:
    labels, groups = ["a", "b", None, None, None, "a"], ["x", "y", "x", "y", None, "z"]
    table = save(tmp_path / "songs.arrow", random_batch([120] * 6, labels, groups))
    splits = Splits(*(np.array(rows, dtype=np.int64) for rows in ([0], [1], [], [5])))
    assert unlabelled_rows(table, splits).tolist() == [2, 4]


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
    save_held_out(tmp_path, HeldOut(np.zeros((10, 4), np.float32), np.zeros((0, 4), np.float32)))
    file = tmp_path / "held_out.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match=r"held_out\.safetensors: cannot be read, it may be cut short"):
        load_held_out(tmp_path)
