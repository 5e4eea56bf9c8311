"""The training loop, one for all networks: optimiser, schedule, checkpoints, the best epoch kept.

Everything random in an epoch, from the order of the songs to dropout, is seeded by the run's seed and the epoch's
number. So a run is repeatable bit for bit on one machine, and one that was stopped goes on as if it never had been.
"""

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from segue.data.metrics import accuracy, mean_over_windows, nll, softmax
from segue.data.song import Floats, Ints
from segue.data.table import NO_LABEL, SongTable
from segue.errors import ConfigError, RunError
from segue.training.fit.augmentation import AugmentationConfig, augment
from segue.training.fit.execution import Execution
from segue.training.fit.feed import Feed, central_starts, check_songs, open_feed, random_starts
from segue.training.fit.journal import Checkpoint, Epoch, Journal
from segue.training.fit.losses import Loss, Targets
from segue.training.fit.optimisers import Decay, Optimiser, OptimiserName
from segue.training.fit.schedules import Schedule, cyclic, one_cycle
from segue.training.fit.steps import BatchSteps
from segue.training.networks.network import Network

log = logging.getLogger(__name__)

SONGS_AT_A_TIME = 256


@dataclass(frozen=True)
class LoopConfig:
    """How a network is trained."""

    epochs: int = 20  # How often the network goes through all training songs.
    batch_songs: int = 256  # Songs that one correction of the weights is learnt from.
    optimiser: OptimiserName = "adamw"  # How gradients correct the weights; plain gradient descent is sgd --momentum 0.
    momentum: float = 0.9  # Of sgd: the share of the last correction that is made again.
    schedule: Schedule = "one-cycle"  # The learning rate: up once and down to nothing, up and down in cycles, constant.
    learning_rate: float = 4e-3  # How far a correction goes: the highest rate of the schedule (eta_max).
    least_rate: float = 1e-5  # The rate that the cycles of the cyclic schedule start from (eta_min).
    half_cycle_steps: int = 500  # Corrections from the least to the highest rate in the cyclic schedule (n_s).
    half_cycle_epochs: float = 0.0  # The same in epochs (n_s = k songs / batch), in place of the steps; 0: by steps.
    cycles: int = 0  # Train for so many whole cycles of --half-cycle-epochs, in place of --epochs; 0: by epochs.
    weight_decay: float = 1e-4  # Pull of the weights to zero, against overfitting (L2; adamw: Loshchilov 2019).
    decay: Decay = "all"  # What is pulled: every parameter, or the weights of products alone (no biases, no norms).
    clip_norm: float = 1.0  # A gradient longer than this is shortened to it, so that no batch goes too far; inf: none.
    patience: int = 0  # Stop after so many epochs without a better one on the validation songs; 0: never.
    keep: Literal["best", "last"] = "best"  # Which epoch the run ends with: the best on validation songs, or the last.
    windows: int = 1  # 1: hear the middle of a song; more: average so many places, and train on random ones.
    augmentation: AugmentationConfig = AugmentationConfig()
    seed: int = 0  # Picks all that is random; the same seed makes the same run, bit for bit on one machine.

    def __post_init__(self) -> None:
        """Refuse settings under which nothing is learnt."""
        least = {
            "epochs": 1,
            "windows": 1,
            "batch_songs": 2,
            "half_cycle_steps": 1,
            "cycles": 0,
            "patience": 0,
            "seed": 0,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}: expected at least {low}, found {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum: expected 0 up to 1, found {self.momentum}")
        if not 0 <= self.half_cycle_epochs < float("inf"):
            raise ConfigError(f"half_cycle_epochs: expected at least 0, found {self.half_cycle_epochs}")
        whole = 2 * self.cycles * self.half_cycle_epochs
        if self.cycles and not (self.schedule == "cyclic" and whole >= 1 and whole == int(whole)):
            raise ConfigError(
                "cycles: expected the cyclic schedule and half_cycle_epochs that make whole epochs of so many cycles, "
                f"found schedule {self.schedule} and {self.cycles} x 2 x {self.half_cycle_epochs:g} epochs"
            )
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected a number above 0, found {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay: expected at least 0, found {self.weight_decay}")
        if self.schedule == "cyclic" and not 0 <= self.least_rate <= self.learning_rate:
            raise ConfigError(
                f"least_rate: expected 0 up to the learning rate of {self.learning_rate:g}, found {self.least_rate:g}"
            )

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return round(2 * self.cycles * self.half_cycle_epochs) or self.epochs

    def windows_after(self, epoch: int) -> int:
        """Return at how many windows of a validation song to look after an epoch: one where nothing depends on it.

        With `keep` last that is before the last epoch. Several would cost as much again as the training.
        """
        decides = self.keep == "best" or self.patience or epoch == self.n_epochs
        return self.windows if decides else 1

    def rate(self, step: int, n_steps: int) -> float:
        """Return the learning rate at training step `step` of `n_steps`, counted from 0."""
        if self.schedule == "one-cycle":
            return one_cycle(step, n_steps, self.learning_rate)
        if self.schedule == "cyclic":
            half = self.half_cycle_epochs * n_steps / self.n_epochs or self.half_cycle_steps
            return cyclic(step, half, self.least_rate, self.learning_rate)
        return self.learning_rate


@dataclass(frozen=True)
class Fit:
    """A training run: every epoch, which was kept, and what the network said of the validation songs then."""

    epochs: list[Epoch]
    kept: Epoch
    validation_logits: Floats  # (n_validation, n_classes), see `predict`.


def fit(
    network: Network,
    songs: SongTable,
    *,
    rows: Ints,
    targets: Targets,
    loss: Loss,
    validation_rows: Ints,
    config: LoopConfig,
    name: str,
    execution: Execution = Execution(device="cpu"),
    journal: Journal | None = None,
) -> Fit:
    """Train `network` in place, leave it with the weights of the epoch that is kept, and tell how it went.

    Args:
        network: what learns.
        songs: the table that the rows count in.
        rows: (n,) training songs.
        targets: of the n training songs.
        loss: what is made small.
        validation_rows: songs that pick the best epoch.
        config: the training settings.
        name: what the progress bar and the journal call this fit.
        execution: where it is trained.
        journal: keeps every epoch; where it has some of this fit already, training goes on after them.

    Raises:
        ConfigError: too few songs to train on or to validate with.
        RunError: the loss is no longer a number.
    """
    if len(rows) < 2 or not len(validation_rows):
        raise ConfigError(
            f"{name}: expected at least 2 songs to train on and 1 to validate with, "
            f"found {len(rows)} and {len(validation_rows)}"
        )
    check_songs(songs, rows)
    device = execution.pick_device()
    network.to(device)
    if execution.compile:
        network.compile_parts()
    optimiser = Optimiser(
        config.optimiser, network.parameters(), config.weight_decay, momentum=config.momentum, decay=config.decay
    )
    epochs: list[Epoch] = []
    best = weights_of(network)
    saved = journal.load(name) if journal else None
    if saved:
        network.load_state_dict(saved.network)
        optimiser.load(saved.optimiser)
        epochs, best = [*saved.epochs], {key: tensor.to(device) for key, tensor in saved.best.items()}
    lesson = EpochTrainer(name, rows, songs.lengths[rows], targets.to(device), open_feed(songs, device), loss, config)
    steps = lesson.steps(network, optimiser)
    labels = songs.labels[validation_rows]
    with tqdm(
        total=config.n_epochs * len(rows), initial=len(epochs) * len(rows), desc=name, unit=" songs", disable=None,
        file=sys.stderr,
    ) as progress:  # fmt: skip
        for number in range(len(epochs) + 1, config.n_epochs + 1):
            if _stalled(epochs, config.patience):
                break
            started = time.perf_counter()
            learnt = lesson.learn(steps, number, progress)
            songs_per_s = len(rows) / (time.perf_counter() - started)
            logits = predict(network, songs, validation_rows, config.windows_after(number))
            lesson.check_answers(logits, number, learnt.rate, network.n_parts)
            quality = accuracy(logits, labels), nll(softmax(logits), labels)
            epochs.append(Epoch(number, learnt.loss, learnt.accuracy, *quality, learnt.rate, songs_per_s))
            if best_epoch(epochs) is epochs[-1]:
                best = weights_of(network)
            if journal:
                journal.save(name, Checkpoint(epochs, weights_of(network), best, optimiser.tensors()))
            progress.set_postfix(loss=f"{learnt.loss:.3f}", accuracy=f"{quality[0]:.3f}")
    if config.keep == "best":
        network.load_state_dict(best)
    kept = best_epoch(epochs) if config.keep == "best" else epochs[-1]
    log.info("%s: validation accuracy %.3f in epoch %d of %d", name, kept.validation_accuracy, kept.epoch, len(epochs))
    return Fit(epochs, kept, predict(network, songs, validation_rows, config.windows))


class Learnt(NamedTuple):
    """What an epoch of training came to."""

    loss: float
    accuracy: float | None  # Of the songs with a label; None where there are none.
    rate: float  # The last learning rate.


@dataclass(frozen=True)
class EpochTrainer:
    """What is learnt from, and how: all that an epoch of training needs but the network itself."""

    name: str
    rows: Ints
    lengths: Ints  # (n,) of the songs, in segments.
    targets: Targets  # Where the network is.
    feed: Feed
    loss: Loss
    config: LoopConfig
    shuffle: bool = True  # Learn from the songs in random order; else in that of `rows`.

    @property
    def n_batches(self) -> int:
        """Batches in an epoch; batch normalisation has nothing to measure in a batch of one."""
        return min(math.ceil(len(self.rows) / self.config.batch_songs), len(self.rows) // 2)

    def steps(self, network: Network, optimiser: Optimiser) -> BatchSteps:
        """Return what `learn` takes steps with, from epoch to epoch."""
        return BatchSteps(network, optimiser, self.loss, self.config.clip_norm)

    def learn(self, steps: BatchSteps, epoch: int, progress: Any) -> Learnt:
        """Train the network of `steps` on every song once; a loss that is not a number is a `RunError`."""
        network = steps.network
        rng = np.random.default_rng([self.config.seed, epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        network.train()
        steps_an_epoch = self.n_batches * network.n_parts
        first = (epoch - 1) * steps_an_epoch
        costs: list[float] = []
        right = known = rate = 0.0
        order = rng.permutation(len(self.rows)) if self.shuffle else np.arange(len(self.rows))
        for batch in np.array_split(order, self.n_batches):
            targets = self.targets.of(torch.from_numpy(batch).to(self.targets.labels.device))
            rates = [
                self.config.rate(first + len(costs) + part, self.config.n_epochs * steps_an_epoch)
                for part in range(network.n_parts)
            ]
            taken = steps.take(self._windows(batch, rng, network), targets, rates)
            costs += taken.costs.tolist()
            rate = rates[-1]
            self._check_finite(costs, first, rate)
            labelled = targets.labels != NO_LABEL
            right += int((taken.logits.argmax(dim=1) == targets.labels)[labelled].sum())
            known += int(labelled.sum())
            progress.update(len(batch))
        return Learnt(float(np.mean(costs)), right / known if known else None, rate)

    def _windows(self, batch: Ints, rng: np.random.Generator, network: Network) -> Tensor:
        lengths = self.lengths[batch]
        starts = central_starts(lengths) if self.config.windows == 1 else random_starts(lengths, rng)
        segments = self.feed.windows(self.rows[batch], starts)
        return augment(segments, self.config.augmentation, network.standardise.deviation)

    def _check_finite(self, costs: Sequence[float], first: int, rate: float) -> None:
        wrong = next((place for place, cost in enumerate(costs) if not math.isfinite(cost)), None)
        if wrong is not None:
            raise self._diverged(f"the loss became {costs[wrong]} in training step {first + wrong + 1}", rate)

    def check_answers(self, logits: Floats, epoch: int, rate: float, n_parts: int) -> None:
        """Refuse logits after an epoch that are no numbers: its last step broke the weights, after the last loss."""
        if not np.isfinite(logits).all():
            last = epoch * self.n_batches * n_parts
            raise self._diverged(f"the validation logits became nan after training step {last}", rate)

    def _diverged(self, what: str, rate: float) -> RunError:
        return RunError(
            f"{self.name}: {what}, at a learning rate of {rate:.1e}. "
            f"Try a smaller --learning-rate than {self.config.learning_rate:g}, "
            f"or a smaller --clip-norm than {self.config.clip_norm:g}."
        )


def predict(network: Network, songs: SongTable, rows: Ints, windows: int) -> Floats:
    """Return logits (n, n_classes) for the given songs, in eval mode: the mean log-probability over their windows.

    Args:
        network: what predicts, wherever it is.
        songs: the table that the rows count in.
        rows: (n,) songs.
        windows: windows of a song, at most: the central one, or so many evenly spaced ones.
    """
    network.eval()
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), SONGS_AT_A_TIME):
            segments, counts = songs.songs(rows[start : start + SONGS_AT_A_TIME]).windows(windows)
            logits = network(torch.tensor(segments, device=device)).cpu().numpy()
            parts.append(mean_over_windows(logits, counts))
    return np.concatenate(parts)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights and statistics of a network."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch of the best validation accuracy, and among those of one accuracy of the best nll."""
    return max(epochs, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_nll))


def _stalled(epochs: Sequence[Epoch], patience: int) -> bool:
    """Tell whether the last `patience` epochs were all no better than one before them."""
    return bool(patience and epochs and len(epochs) - best_epoch(epochs).epoch >= patience)
