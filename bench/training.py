"""Measure the training loop beside the plainest one, with one thread and with one for each core.

The network is the study's: a BN-RNN of 341 neurons, parts of 4 steps. The plain loop is what the formula says, one cell
after the other: the segment and the state concatenated, one affine map, batch normalisation, tanh; torch's Adam as it
comes. Both start from the same weights and see the same batches of 50 songs in the same order, in turn, epoch by epoch.
Ours is the whole `segue.training.fit.loop`, reading of songs included; the plain one finds its songs in memory.

Example:
    python -m segue.bench.training
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam
from tqdm import tqdm

from segue.atomic import atomic_file
from segue.command import run, to_json
from segue.data.song import N_FEATURES, Ints
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError
from segue.machine import usable_cores
from segue.provenance import Provenance, provenance
from segue.publish import write_block
from segue.training.fit.feed import TableFeed
from segue.training.fit.loop import EpochTrainer, LoopConfig
from segue.training.fit.losses import Targets
from segue.training.fit.optimisers import Optimiser
from segue.training.networks.recurrent import EPS, MOMENTUM, RecurrentConfig, RecurrentNetwork
from segue.training.networks.standardise import Standardise

COMMAND = "python -m segue.bench.training"
SONGS = 200  # Synthetic songs in an epoch.
COMPARED_STEPS = 20
NETWORK = RecurrentConfig(bptt_steps=4)
LOOP = LoopConfig(
    batch_songs=50, optimiser="adam", schedule="constant", learning_rate=1e-4, weight_decay=0.0, clip_norm=float("inf")
)


@dataclass(frozen=True)
class TrainingSpeed:
    """Our training loop beside the plain one."""

    threads: int
    batch_songs: int
    state: int
    bptt_steps: int
    rounds: int
    songs_per_s: float
    plain_songs_per_s: float
    ratio: float  # Ours over the plain one's, of medians over the rounds.
    largest_difference: float  # Between the losses of the first `compared_steps` training steps.
    compared_steps: int


class PlainNetwork(nn.Module):
    """h_t = tanh(BN(W [x_t, h_{t-1}] + b)), step by step."""

    def __init__(self, network: RecurrentNetwork) -> None:
        """Begin with the weights of `network`."""
        super().__init__()
        readout = network.head.readout
        assert isinstance(readout, nn.Linear)
        self.state = network.config.state
        self.affine = nn.Linear(N_FEATURES + self.state, self.state)
        self.norm = nn.BatchNorm1d(self.state, eps=EPS, momentum=MOMENTUM)
        self.readout = nn.Linear(self.state, readout.out_features)
        self.readout.load_state_dict(readout.state_dict())
        with torch.no_grad():
            self.affine.weight.copy_(torch.cat([network.input.weight, network.cell.recurrent.weight], dim=1))
            self.affine.bias.zero_()

    def parts(self, standard: Tensor) -> Iterator[Tensor]:
        """Yield the logits after each part of standardised windows (n, 120, 25)."""
        h = standard.new_zeros(len(standard), self.state)
        for start in range(0, standard.shape[1], NETWORK.bptt_steps):
            for step in range(start, start + NETWORK.bptt_steps):
                h = torch.tanh(self.norm(self.affine(torch.cat([standard[:, step], h], dim=1))))
            yield self.readout(h)
            h = h.detach()


class RecordingLoss:
    """The cross-entropy with the labels; keeps every value."""

    def __init__(self) -> None:
        """Begin with none."""
        self.values: list[Tensor] = []

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        cost = functional.cross_entropy(logits, targets.labels)
        self.values.append(cost.detach())
        return cost


class RecordingFeed(TableFeed):
    """Windows from the table; keeps which songs were asked for."""

    def __init__(self, songs: SongTable) -> None:
        """Read from `songs`."""
        super().__init__(songs, torch.device("cpu"))
        self.batches: list[Ints] = []

    def windows(self, rows: Ints, starts: Ints) -> Tensor:
        """Return one raw window of each song."""
        self.batches.append(rows)
        return super().windows(rows, starts)


@dataclass(frozen=True)
class TrainingBenchmark:
    """What was measured."""

    measured: tuple[TrainingSpeed, ...]
    provenance: Provenance

    def __str__(self) -> str:
        """Return the table as Markdown."""
        rows = [
            (one.threads, one.songs_per_s, one.plain_songs_per_s, one.ratio, one.largest_difference)
            for one in self.measured
        ]
        heads = ("threads", "songs/s", "plain loop, songs/s", "ratio", "largest difference of losses")
        first, made = self.measured[0], self.provenance
        return (
            f"{tabulate(rows, heads, tablefmt='github', floatfmt=('', ',.0f', ',.0f', '.2f', '.0e'))}\n\n"
            f"BN-RNN of {first.state} neurons, batches of {first.batch_songs} songs, parts of "
            f"{first.bptt_steps} steps; medians of {first.rounds} rounds, the two loops in turn; losses of the "
            f"first {first.compared_steps} training steps.\n"
            f"{made.time[:10]}, commit {made.commit}, {made.machine}."
        )


def training(
    threads: tuple[int, ...] = (1, usable_cores()),
    rounds: int = 15,
    results: Path = Path("docs/results/training_speed.json"),
    page: Path = Path("docs/training-speed.md"),
) -> TrainingBenchmark:
    """Measure the training loop beside the plainest one.

    Args:
        threads: Threads that torch computes with; each number is measured.
        rounds: Epochs of each loop, in turn.
        results: The file for the figures.
        page: The page whose table is written anew.
    """
    if not threads:
        raise ConfigError("threads: expected at least one number, found none")
    if min(*threads, rounds) < 1:
        raise ConfigError(f"expected at least 1 thread and 1 round, found {threads} and {rounds}")
    with tempfile.TemporaryDirectory() as folder:
        synth(Path(folder) / "songs.arrow", SONGS)
        songs = SongTable(Path(folder) / "songs.arrow")
        found = TrainingBenchmark(tuple(_measure(songs, number, rounds) for number in threads), provenance())
    with atomic_file(results) as draft:
        draft.write_text(to_json(found) + "\n")
    write_block(page, COMMAND, str(found))
    return found


def _measure(songs: SongTable, threads: int, rounds: int) -> TrainingSpeed:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows, labels = np.arange(len(songs)), torch.from_numpy(songs.labels)
    network = RecurrentNetwork(NETWORK, n_classes=len(songs.classes), standardise=Standardise.of(songs, rows))
    plain = PlainNetwork(network)
    optimiser = Optimiser(LOOP.optimiser, network.parameters(), LOOP.weight_decay)
    plain_optimiser = Adam(plain.parameters(), lr=LOOP.learning_rate)
    feed, loss, plain_losses = RecordingFeed(songs), RecordingLoss(), list[float]()
    lesson = EpochTrainer("speed", rows, songs.lengths, Targets(labels), feed, loss, LOOP)
    steps = lesson.steps(network, optimiser)
    standard = network.standardise(feed.windows(rows, np.zeros_like(rows)))
    moments: list[float] = []
    for epoch in tqdm(range(1, rounds + 2), unit=" rounds", disable=None, file=sys.stderr):
        feed.batches.clear()
        moments.append(time.perf_counter())
        lesson.learn(steps, epoch, tqdm(disable=True))
        moments.append(time.perf_counter())
        plain_losses += _plain_epoch(
            plain, plain_optimiser, [(standard[batch], labels[batch]) for batch in feed.batches]
        )
    taken = [after - before for before, after in pairwise([*moments, time.perf_counter()])]
    ours_s, plain_s = statistics.median(taken[2::2]), statistics.median(taken[3::2])
    differences = np.abs(np.array([value.item() for value in loss.values]) - plain_losses)[:COMPARED_STEPS]
    return TrainingSpeed(
        threads=threads,
        batch_songs=LOOP.batch_songs,
        state=NETWORK.state,
        bptt_steps=NETWORK.bptt_steps,
        rounds=rounds,
        songs_per_s=len(songs) / ours_s,
        plain_songs_per_s=len(songs) / plain_s,
        ratio=plain_s / ours_s,
        largest_difference=float(differences.max()),
        compared_steps=len(differences),
    )


def _plain_epoch(network: PlainNetwork, optimiser: Adam, batches: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Train on every batch of windows (n, 120, 25) and labels (n,), and return the loss of each step."""
    losses = []
    for standard, labels in batches:
        for logits in network.parts(standard):
            cost = functional.cross_entropy(logits, labels)
            optimiser.zero_grad()
            torch.autograd.backward(cost)
            optimiser.step()
            losses.append(cost.item())
    return losses


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    return run(training, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
