"""What the training verbs refuse: before anything is trained, with a message that says what to do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from segue.data.splits import Shares, split
from segue.data.table import SongBatch
from segue.errors import ConfigError, LabelError, SongError
from segue.training import train_student, train_teacher
from segue.training.fit.execution import Execution
from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from tests.support.random_songs import random_batch, save

NETWORK, LOOP = DenseConfig(hidden=(4,)), LoopConfig(epochs=1, batch_songs=32)
SHAPE = ["dense", "--hidden", "4"]


def refused(verb_argv: Sequence[str], told: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that `segue train-teacher` fails with a message, and leaves nothing."""
    assert train_teacher.main([*verb_argv, "--out", str(out / "run"), *SHAPE]) == 1
    assert told in capsys.readouterr().err
    assert not [*out.glob("run*")]


def songs_of(labels: Sequence[str | None], groups: Sequence[str | None] = ()) -> SongBatch:
    return random_batch([120] * len(labels), labels, groups)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([None] * 60, "songs.arrow: expected labelled songs of at least two classes, found 0 labelled songs among 60"),
        (["Jazz"] * 60, "expected labelled songs of at least two classes, found 60 labelled songs, all Jazz"),
        (["Jazz", "Folk"] * 5, "songs.arrow: expected a class of at least 20 songs to split into 20, found 5 at most"),
    ],
)
def test_labels_that_nothing_can_be_learnt_from_are_refused(
    tmp_path: Path, labels: list[str | None], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "songs.arrow", songs_of(labels))
    refused([str(tmp_path / "songs.arrow")], told, tmp_path, capsys)


def test_a_class_of_one_artist_cannot_be_in_two_folds(tmp_path: Path) -> None:
    labels = ["Jazz"] * 100 + ["Folk"] * 100 + ["Polka"] * 9
    # The artists of the rarest class are dealt first: one validates, one calibrates, one is left to train on.
    artists = [f"artist {row % 40}" for row in range(200)] + ["Frankie", "Flaco", "Eva"] * 3
    table = save(tmp_path / "songs.arrow", songs_of(labels, artists))
    shares = Shares(validation=0.05, calibration=0.05)
    told = r"songs of Polka in at least two folds.*found 3 in one; they may be of one artist.*train without --folds"
    with pytest.raises(LabelError, match=told):
        train_teacher.train_teacher(table.path, tmp_path / "run", folds=2, network=NETWORK, loop=LOOP, shares=shares)
    assert [path.name for path in tmp_path.iterdir()] == ["songs.arrow"]


@pytest.mark.parametrize("part", ["train", "validation", "calibration", "test"])
def test_a_broken_song_of_any_part_is_named_before_anything_is_trained(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, shares = songs_of(["Jazz", "Folk"] * 40), Shares(0.1, 0.2, 0.1)
    table = save(tmp_path / "songs.arrow", batch)
    row = int(vars(split(table, shares, 0))[part][0])
    batch.songs.segments[row * 120 + 5, 2] = np.nan
    save(tmp_path / "songs.arrow", batch)
    monkeypatch.setattr(train_teacher, "fit_to_labels", None)
    with pytest.raises(SongError, match=rf"songs\.arrow, song 'song-0-{row}', segment 5: .*nan"):
        train_teacher.train_teacher(table.path, tmp_path / "run", network=NETWORK, loop=LOOP, shares=shares)
    assert [path.name for path in tmp_path.iterdir()] == ["songs.arrow"]


def test_steps_that_do_not_divide_the_window_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "songs.arrow", songs_of(["Jazz", "Folk"] * 40))
    words = [str(tmp_path / "songs.arrow"), "--out", str(tmp_path / "run"), "recurrent", "--bptt-steps", "7"]
    assert train_teacher.main(words) == 1
    assert "bptt_steps: expected a divisor of 120" in capsys.readouterr().err


def test_a_missing_table_is_named_with_the_verb_that_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([str(tmp_path / "gone.arrow")], "gone.arrow: expected a song table, found no such file", tmp_path, capsys)


def test_a_gpu_that_is_not_there_is_asked_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    save(tmp_path / "songs.arrow", songs_of(["Jazz", "Folk"] * 40))
    words = [str(tmp_path / "songs.arrow"), "--device", "cuda"]
    refused(words, "device: expected a GPU, found none that torch", tmp_path, capsys)


@pytest.mark.parametrize(
    ("device", "there", "taken"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_auto_takes_a_gpu_where_there_is_one(
    device: str, there: bool, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert Execution(device=device).pick_device().type == taken  # type: ignore[arg-type]


def test_a_run_takes_the_threads_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    for threads in (None, 3):
        Execution(device="cpu", threads=threads).prepare()
    assert taken == [3]
    with pytest.raises(ConfigError, match="threads: expected at least 1, found 0"):
        Execution(threads=0)


@pytest.mark.parametrize("hidden", [(), (8, 8)])
def test_a_student_has_one_hidden_layer(tmp_path: Path, hidden: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="hidden: expected "):
        train_student.train_student(tmp_path, tmp_path, tmp_path / "student", DenseConfig(hidden=hidden), LOOP)
