"""The training loop beside the plainest one that learns the same, epoch by epoch, for the suites.

The network is the study's: a BN-RNN of 341 neurons, parts of 4 steps. The plain loop is what the formula says, one cell
after the other: the segment and the state concatenated, one affine map, batch normalisation, tanh; torch's Adam as it
comes. Both start from the same weights. Ours is the whole `segue.training.fit.loop`, reading of songs included; the
plain one finds its songs in memory.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam
from tqdm import tqdm

from segue.data.song import N_FEATURES, Ints
from segue.data.table import SongTable
from segue.training.fit.feed import TableFeed
from segue.training.fit.loop import EpochTrainer, LoopConfig
from segue.training.fit.losses import Targets
from segue.training.fit.optimisers import Optimiser
from segue.training.networks.recurrent import EPS, MOMENTUM, RecurrentConfig, RecurrentNetwork
from segue.training.networks.standardise import Standardise

NETWORK = RecurrentConfig(bptt_steps=4)
LOOP = LoopConfig(
    batch_songs=50, optimiser="adam", schedule="constant", learning_rate=1e-4, weight_decay=0.0, clip_norm=float("inf")
)


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


class Lesson:
    """Our loop, over some songs of a table."""

    title = "Segue"

    def __init__(self, songs: SongTable, rows: Ints) -> None:
        """Begin with an untrained network."""
        self.feed, self.loss = RecordingFeed(songs), RecordingLoss()
        network = _network(songs, rows)
        optimiser = Optimiser(LOOP.optimiser, network.parameters(), LOOP.weight_decay)
        targets = Targets(torch.from_numpy(songs.labels))
        self._trainer = EpochTrainer("bench", rows, songs.lengths, targets, self.feed, self.loss, LOOP)
        self._steps = self._trainer.steps(network, optimiser)
        self._epochs = 0

    def epoch(self) -> None:
        """Learn from every song once."""
        self._epochs += 1
        self._trainer.learn(self._steps, self._epochs, tqdm(disable=True))


class PlainLesson:
    """The plain loop, over the same songs in memory."""

    title = "plain loop"

    def __init__(self, songs: SongTable, rows: Ints) -> None:
        """Begin with the same untrained network."""
        network = _network(songs, rows)
        self._network = PlainNetwork(network)
        self._optimiser = Adam(self._network.parameters(), lr=LOOP.learning_rate)
        self._standard = network.standardise(RecordingFeed(songs).windows(rows, np.zeros_like(rows)))
        self._labels = torch.from_numpy(songs.labels[rows])

    def epoch(self, batches: Sequence[Ints] = ()) -> list[float]:
        """Learn from every batch of songs once, by their places among the rows; return the loss of each step.

        Without batches, from all songs in turn.
        """
        losses = []
        for batch in batches or np.split(np.arange(len(self._labels)), len(self._labels) // LOOP.batch_songs):
            for logits in self._network.parts(self._standard[batch]):
                cost = functional.cross_entropy(logits, self._labels[batch])
                self._optimiser.zero_grad()
                torch.autograd.backward(cost)
                self._optimiser.step()
                losses.append(cost.item())
        return losses


def _network(songs: SongTable, rows: Ints) -> RecurrentNetwork:
    torch.manual_seed(0)
    return RecurrentNetwork(NETWORK, n_classes=len(songs.classes), standardise=Standardise.of(songs, rows))
