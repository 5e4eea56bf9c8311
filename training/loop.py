"""The training loop, one for teachers and students: Adam, one cycle of the learning rate, the best epoch kept."""

import copy
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from data.errors import ConfigError, RunError
from data.metrics import accuracy, mean_over_windows, nll, softmax
from data.song import Floats, Ints, random_window, stack_windows
from data.table import SongTable
from training.networks import Network

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor], Tensor]
SONGS_AT_A_TIME = 256


@dataclass(frozen=True)
class LoopConfig:
    """How a network is trained."""

    epochs: int = 20  # Passes over the training songs.
    batch_songs: int = 256  # Songs in one batch.
    learning_rate: float = 4e-3  # Peak of the one cycle it rises and falls in (Smith and Topin 2018).
    weight_decay: float = 1e-4  # L2, decoupled from the gradient as in AdamW.
    clip_norm: float = 1.0  # Gradients longer than this are shortened to it.
    windows: int = 1  # Windows of a song: with 1 the central one; with more, training draws one at random every epoch.
    seed: int = 0  # Initial weights, order of songs, dropout.

    def __post_init__(self) -> None:
        """Refuse settings under which nothing is learnt."""
        if (
            self.epochs < 1
            or self.windows < 1
            or self.batch_songs < 2
            or not self.learning_rate > 0
            or not self.clip_norm > 0
        ):
            raise ConfigError(
                f"expected epochs >= 1, windows >= 1, batch_songs >= 2, learning_rate > 0, clip_norm > 0; found {self}"
            )


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training songs came to."""

    epoch: int
    train_loss: float
    validation_accuracy: float
    validation_nll: float
    songs_per_s: float


@dataclass(frozen=True)
class Fit:
    """A training run: every epoch, which was best, and what the network said of the validation songs then."""

    epochs: list[Epoch]
    best: Epoch
    validation_logits: Floats  # (n_validation, n_classes), see `predict`.


def fit(
    network: Network,
    songs: SongTable,
    *,
    rows: Ints,
    targets: Tensor,
    loss: Loss,
    validation_rows: Ints,
    config: LoopConfig,
    name: str,
) -> Fit:
    """Train `network` in place, leave it with the weights of the best epoch, and tell how it went.

    Args:
        network: a teacher or a student.
        songs: the table that the rows count in.
        rows: (n,) training songs.
        targets: (n, ...) what `loss` compares the logits with: labels, or a teacher's logits.
        loss: a function of logits (batch, n_classes) and targets (batch, ...) that returns one number.
        validation_rows: songs that pick the best epoch, by accuracy and then by nll.
        config: the training settings.
        name: what the progress bar calls this run.

    Raises:
        ConfigError: too few songs to train on or to validate with.
        RunError: the loss is no longer a number.
    """
    if len(rows) < 2 or not len(validation_rows):
        raise ConfigError(
            f"{name}: expected at least 2 songs to train on and 1 to validate with, "
            f"found {len(rows)} and {len(validation_rows)}"
        )
    torch.manual_seed(config.seed)
    order = np.random.default_rng(config.seed)
    # Batch normalisation has nothing to measure in a batch of one.
    batches = min(math.ceil(len(rows) / config.batch_songs), len(rows) // 2)
    parts = len(list(network.eval().parts(_training_windows(songs, rows[:1], config.windows, order))))
    optimiser = AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    schedule = OneCycleLR(optimiser, config.learning_rate, total_steps=config.epochs * batches * parts)
    labels = songs.labels[validation_rows]
    epochs: list[Epoch] = []
    best: tuple[Epoch, dict[str, Tensor], Floats] | None = None
    progress = tqdm(total=config.epochs * len(rows), desc=name, unit=" songs", disable=None, file=sys.stderr)
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        losses: list[float] = []
        network.train()
        for batch in np.array_split(order.permutation(len(rows)), batches):
            segments = _training_windows(songs, rows[batch], config.windows, order)
            wanted = targets[torch.from_numpy(batch)]
            for logits in network.parts(segments):
                cost = loss(logits, wanted)
                optimiser.zero_grad()
                torch.autograd.backward(cost)
                nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
                optimiser.step()
                schedule.step()
                losses.append(cost.item())
            if not math.isfinite(losses[-1]):
                raise RunError(
                    f"{name}: the loss became {losses[-1]} in epoch {epoch}, training step {len(losses)}. "
                    f"Try a smaller --learning-rate than {config.learning_rate:g}."
                )
            progress.update(len(batch))
        seconds = time.perf_counter() - started
        validation = predict(network, songs, validation_rows, config.windows)
        now = Epoch(
            epoch,
            float(np.mean(losses)),
            accuracy(validation, labels),
            nll(softmax(validation), labels),
            len(rows) / seconds,
        )
        epochs.append(now)
        progress.set_postfix(loss=f"{now.train_loss:.3f}", accuracy=f"{now.validation_accuracy:.3f}")
        if best is None or _better(now, best[0]):
            best = now, copy.deepcopy(network.state_dict()), validation
    progress.close()
    assert best is not None
    network.load_state_dict(best[1])
    network.eval()
    log.info(
        "%s: validation accuracy %.3f in epoch %d of %d", name, best[0].validation_accuracy, best[0].epoch, len(epochs)
    )
    return Fit(epochs, best[0], best[2])


def predict(network: Network, songs: SongTable, rows: Ints, windows: int) -> Floats:
    """Return logits (n, n_classes) for the given songs, in eval mode: the mean log-probability over their windows.

    Args:
        network: a teacher or a student.
        songs: the table that the rows count in.
        rows: (n,) songs.
        windows: windows of a song, at most: the central one, or so many evenly spaced ones.
    """
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), SONGS_AT_A_TIME):
            segments, counts = stack_windows(songs.songs(rows[start : start + SONGS_AT_A_TIME]), windows)
            parts.append(mean_over_windows(network(torch.from_numpy(segments)).numpy(), counts))
    return np.concatenate(parts)


def _training_windows(songs: SongTable, rows: Ints, windows: int, rng: np.random.Generator) -> Tensor:
    """Return one window of each of the given songs, (n, 120, 25), raw: the central one, or any if there are several."""
    found = songs.songs(rows)
    if windows == 1:
        return torch.from_numpy(stack_windows(found)[0])
    return torch.from_numpy(np.stack([random_window(song, rng) for song in found]))


def _better(epoch: Epoch, other: Epoch) -> bool:
    return (epoch.validation_accuracy, -epoch.validation_nll) > (other.validation_accuracy, -other.validation_nll)
