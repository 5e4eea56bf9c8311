"""A run that is killed goes on to the very same result, whenever that was."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data.synth import synth
from training.journal import load_metrics

PATIENCE_S = 120
FITS = ("fold-1", "fold-2", "teacher")  # In the order they are trained in.
EPOCHS = 4


def train(songs: Path, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    words = ["train-teacher", songs, "--out", out, "--folds", 2, "--epochs", EPOCHS, "--batch-songs", 64, *more]
    shape = ["recurrent", "--state", 24, "--bptt-steps", 8, "--dropout", 0.2]
    command = [sys.executable, "-m", "segue", *map(str, [*words, *shape])]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_epoch(process: "subprocess.Popen[bytes]", metrics: Path, epoch: int) -> None:
    """Wait until a fit has come to the end of an epoch; the run must still be going on then."""
    deadline = time.monotonic() + PATIENCE_S
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < epoch:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    synth(folder / "songs.arrow", songs=600, classes=3)
    assert train(folder / "songs.arrow", folder / "run").wait(PATIENCE_S) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_a_random_epoch_ends_as_the_undisturbed_one(
    undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    moment = int(np.random.default_rng(seed).integers(len(FITS) * EPOCHS - 1))
    fit, epoch = FITS[moment // EPOCHS], moment % EPOCHS + 1
    songs = undisturbed / "songs.arrow"
    process = train(songs, tmp_path / "run")
    wait_for_epoch(process, tmp_path / "run.training/metrics" / f"{fit}.jsonl", epoch)
    process.kill()
    assert process.wait(PATIENCE_S) == -9
    assert not (tmp_path / "run").exists()
    assert train(songs, tmp_path / "run", "--resume").wait(PATIENCE_S) == 0
    for name in ("model.safetensors", "held_out.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (undisturbed / "run" / name).read_bytes()
    assert not (tmp_path / "run.training").exists()


def test_the_undisturbed_run_learnt_something(undisturbed: Path) -> None:
    epochs = load_metrics(undisturbed / "run")["teacher"]
    assert epochs[-1].train_loss < epochs[0].train_loss  # Or equal weights would prove little.
