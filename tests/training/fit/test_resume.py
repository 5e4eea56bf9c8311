"""A run that is killed goes on to the very same result, whenever that was."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from segue.data.synth import synth
from segue.training.fit.journal import load_metrics

PATIENCE_S = 120
FITS = ("fold-1", "fold-2", "teacher")  # In the order they are trained in.
EPOCHS = 4


def train(songs: Path, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    words = ["train-teacher", songs, "--out", out, "--folds", 2, "--epochs", EPOCHS, "--batch-songs", 64, *more]
    shape = ["recurrent", "--state", 24, "--bptt-steps", 8, "--dropout", 0.2]
    command = [sys.executable, "-m", "segue", *map(str, [*words, *shape])]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # In networks this small a second one only waits for the first.
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=one_thread,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # A shell's background jobs ignore it.
    )


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


def assert_goes_on_to_the_same_result(songs: Path, out: Path, undisturbed: Path) -> None:
    assert not out.exists()
    assert train(songs, out, "--resume").wait(PATIENCE_S) == 0
    for name in ("model.safetensors", "held_out.safetensors"):
        assert (out / name).read_bytes() == (undisturbed / "run" / name).read_bytes()
    assert not out.with_name("run.training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_a_random_epoch_ends_as_the_undisturbed_one(
    undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    moment = int(np.random.default_rng(seed).integers(len(FITS) * EPOCHS - 1))
    fit, epoch = FITS[moment // EPOCHS], moment % EPOCHS + 1
    process = train(undisturbed / "songs.arrow", tmp_path / "run")
    wait_for_epoch(process, tmp_path / "run.training/metrics" / f"{fit}.jsonl", epoch)
    process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert_goes_on_to_the_same_result(undisturbed / "songs.arrow", tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_epoch_and_says_how_to_go_on(undisturbed: Path, tmp_path: Path) -> None:
    process = train(undisturbed / "songs.arrow", tmp_path / "run")
    wait_for_epoch(process, tmp_path / "run.training/metrics/fold-2.jsonl", 2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "every epoch that was finished is in" in told.decode()
    assert "Traceback" not in told.decode()
    assert_goes_on_to_the_same_result(undisturbed / "songs.arrow", tmp_path / "run", undisturbed)


def test_the_undisturbed_run_learnt_something(undisturbed: Path) -> None:
    epochs = load_metrics(undisturbed / "run")["teacher"]
    assert epochs[-1].train_loss < epochs[0].train_loss  # Or equal weights would prove little.
