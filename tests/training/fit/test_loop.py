"""The training loop: repeatable, every song once an epoch, the best epoch kept, and a clear end when it fails."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from segue.data.metrics import accuracy, nll, softmax
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError
from segue.training.fit.feed import random_starts
from segue.training.fit.loop import Fit, LoopConfig, fit, predict
from segue.training.fit.losses import LabelConfig, LabelLoss, Loss, Targets
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.dense import DenseConfig
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise
from tests.support.random_songs import random_batch, save

TEACHER = RecurrentConfig(state=4, bptt_steps=60)
STUDENT = DenseConfig(look="pooled", hidden=(16,))
VALIDATION_ROWS = np.arange(300, 400)
ON_LABELS = LabelLoss(LabelConfig(), np.zeros(0, np.int64), 4)


@pytest.fixture(scope="module")
def table(synthetic_songs: Path) -> SongTable:
    return SongTable(synthetic_songs)


def trained(
    songs: SongTable,
    config: SingleConfig,
    loop: LoopConfig,
    n_train: int = 60,
    loss: Loss = ON_LABELS,
    labels: Tensor | None = None,
) -> tuple[Network, Fit]:
    rows = np.arange(n_train)
    torch.manual_seed(loop.seed)
    network = build(config, len(songs.classes), Standardise.of(songs, rows))
    fitted = fit(
        network,
        songs,
        rows=rows,
        targets=Targets(torch.from_numpy(songs.labels[rows]) if labels is None else labels),
        loss=loss,
        validation_rows=VALIDATION_ROWS,
        config=loop,
        name="a network",
    )
    return network, fitted


class Recorder:
    """A loss that keeps the targets it was called with, and can lose its number at one call."""

    def __init__(self, lost_at_call: int = 0) -> None:
        self.calls: list[list[int]] = []
        self.lost_at_call = lost_at_call

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        self.calls.append(targets.labels.tolist())
        return logits.square().mean() * (math.nan if len(self.calls) == self.lost_at_call else 1)


@pytest.mark.parametrize("config", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_the_same_seed_trains_the_same_network_bit_for_bit(table: SongTable, config: SingleConfig) -> None:
    (one, fit_one), (same, fit_same) = (trained(table, config, LoopConfig(epochs=2, batch_songs=25)) for _ in range(2))
    for name, tensor in one.state_dict().items():
        np.testing.assert_array_equal(tensor, same.state_dict()[name])
    np.testing.assert_array_equal(fit_one.validation_logits, fit_same.validation_logits)
    assert [epoch.train_loss for epoch in fit_one.epochs] == [epoch.train_loss for epoch in fit_same.epochs]


def test_another_seed_trains_another_network(table: SongTable) -> None:
    losses = [trained(table, STUDENT, LoopConfig(epochs=1, seed=seed))[1].kept.train_loss for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_the_network_ends_with_the_weights_of_its_best_epoch(table: SongTable) -> None:
    steps = itertools.count()

    def learn_for_four_epochs_and_unlearn_for_four(logits: Tensor, targets: Targets) -> Tensor:
        return ON_LABELS(logits, targets) * (1 if next(steps) < 4 * 3 else -5)

    loop = LoopConfig(epochs=8, batch_songs=20, learning_rate=0.02, schedule="constant")
    network, fitted = trained(table, STUDENT, loop, loss=learn_for_four_epochs_and_unlearn_for_four)
    assert fitted.kept == max(fitted.epochs, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_nll))
    assert fitted.kept.validation_accuracy > fitted.epochs[-1].validation_accuracy
    assert not network.training
    found = predict(network, table, VALIDATION_ROWS, windows=1)
    np.testing.assert_array_equal(found, fitted.validation_logits)
    labels = table.labels[VALIDATION_ROWS]
    assert fitted.kept.validation_accuracy == accuracy(found, labels)
    assert fitted.kept.validation_nll == nll(softmax(found), labels)


def test_every_song_is_learnt_from_once_an_epoch_and_once_a_part(table: SongTable) -> None:
    recorder = Recorder()
    trained(table, TEACHER, LoopConfig(epochs=2, batch_songs=25), loss=recorder, labels=torch.arange(60))
    assert len(recorder.calls) == 2 * 3 * 2  # epochs, batches, parts
    assert recorder.calls[::2] == recorder.calls[1::2]
    first, second = (
        [row for batch in calls[::2] for row in batch] for calls in (recorder.calls[:6], recorder.calls[6:])
    )
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second


def test_a_student_learns_more_than_chance(table: SongTable) -> None:
    _, fitted = trained(table, STUDENT, LoopConfig(epochs=8, batch_songs=50, learning_rate=0.02), n_train=300)
    assert fitted.kept.validation_accuracy > 0.5  # Four classes of equal size.
    assert fitted.epochs[-1].train_loss < fitted.epochs[0].train_loss


def test_a_loss_that_is_no_number_ends_the_run_and_says_where(table: SongTable) -> None:
    told = r"a network: the loss became nan in training step 5, .*0\.004, or a smaller --clip-norm"
    with pytest.raises(RunError, match=told):
        trained(table, STUDENT, LoopConfig(epochs=3, batch_songs=20), loss=Recorder(lost_at_call=5))


def test_a_loss_lost_in_the_middle_of_a_song_ends_the_run_too(table: SongTable) -> None:
    with pytest.raises(RunError, match="the loss became nan in training step 3"):
        trained(table, TEACHER, LoopConfig(epochs=1, batch_songs=20), loss=Recorder(lost_at_call=3))


def test_weights_that_the_last_step_broke_end_the_run_too(table: SongTable) -> None:
    loop = LoopConfig(epochs=1, batch_songs=20, learning_rate=1e38, schedule="constant")
    with pytest.raises(RunError, match=r"the validation logits became nan after training step 1, at .*1\.0e\+38"):
        trained(table, STUDENT, loop, n_train=20)


def test_no_batch_is_a_song_on_its_own(table: SongTable) -> None:
    recorder = Recorder()  # Batch normalisation has nothing to measure in a batch of one.
    trained(table, STUDENT, LoopConfig(epochs=1, batch_songs=2), n_train=7, loss=recorder)
    assert sorted(map(len, recorder.calls)) == [2, 2, 3]


@pytest.mark.parametrize(("n_train", "n_validation"), [(60, 0), (1, 100), (0, 100)])
def test_songs_to_train_on_and_to_validate_with_are_needed(table: SongTable, n_train: int, n_validation: int) -> None:
    with pytest.raises(ConfigError, match=rf"a network: expected at least 2 .* found {n_train} and {n_validation}"):
        fit(
            build(STUDENT, 4, Standardise()),
            table,
            rows=np.arange(n_train),
            targets=Targets(torch.from_numpy(table.labels[:n_train])),
            loss=ON_LABELS,
            validation_rows=VALIDATION_ROWS[:n_validation],
            config=LoopConfig(epochs=1),
            name="a network",
        )


def test_prediction_does_not_depend_on_how_many_songs_are_asked_for(
    table: SongTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = build(TEACHER, 4, Standardise())
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(np.stack([table.segments(row)[:120] for row in range(50)])))
    monkeypatch.setattr("segue.training.fit.loop.SONGS_AT_A_TIME", 7)
    found = predict(network.train(), table, np.arange(50), windows=1)
    np.testing.assert_allclose(found, logits.log_softmax(dim=1), atol=1e-6)


def test_a_song_of_several_windows_gets_the_mean_of_their_log_probabilities(tmp_path: Path) -> None:
    batch = random_batch([120, 400, 30])
    save(tmp_path / "songs.arrow", batch)
    table, network = SongTable(tmp_path / "songs.arrow"), build(TEACHER, 4, Standardise()).eval()
    starts = [[0], [0, 140, 280], [0]]
    songs = [table.segments(0), table.segments(1), np.tile(table.segments(2), (4, 1))]
    with torch.inference_mode():
        expected = [
            np.mean([network(torch.tensor(song[None, at : at + 120])).log_softmax(1)[0].numpy() for at in some], axis=0)
            for song, some in zip(songs, starts, strict=True)
        ]
    np.testing.assert_allclose(predict(network, table, np.arange(3), windows=3), expected, atol=1e-5)


def test_training_on_several_windows_sees_more_than_the_centre() -> None:
    starts = random_starts(np.full(4000, 400), np.random.default_rng(0))
    assert set(starts.tolist()) == set(range(281))
    assert random_starts(np.array([30, 120]), np.random.default_rng(0)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("windows", 0), ("batch_songs", 1), ("learning_rate", 0.0), ("learning_rate", math.nan),
        ("clip_norm", 0.0), ("weight_decay", -1.0), ("patience", -1), ("half_cycle_steps", 0),
    ],
)  # fmt: skip
def test_settings_under_which_nothing_is_learnt_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected .*, found {value:g}"):
        LoopConfig(**{name: value})  # type: ignore[arg-type]


def test_the_least_rate_of_a_cycle_is_not_above_its_peak() -> None:
    with pytest.raises(ConfigError, match=r"least_rate: expected 0 up to the learning rate of 0\.004, found 1$"):
        LoopConfig(schedule="cyclic", least_rate=1.0)
    assert LoopConfig(learning_rate=1e-6).rate(0, 10) < 1e-6  # Other schedules have none.


def test_where_the_last_epoch_is_kept_the_others_are_looked_at_once() -> None:
    last = LoopConfig(epochs=3, keep="last", windows=4)
    assert [last.windows_after(epoch) for epoch in (1, 2, 3)] == [1, 1, 4]
    assert [replace(last, keep="best").windows_after(epoch) for epoch in (1, 2, 3)] == [4, 4, 4]
    assert replace(last, patience=1).windows_after(1) == 4
