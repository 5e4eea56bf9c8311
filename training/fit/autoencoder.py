"""Stacked autoencoders: each hidden layer of a dense network first learns to keep what the layer before it says.

Layer by layer, an affine decoder is put behind the layer and both learn to give back the layer's own input (mean
squared error), in the training loop of all networks. The layers below stand still. Bengio et al., *Greedy Layer-Wise
Training of Deep Networks*, NIPS 2006; with tanh, as the study's, they are not linear.
"""

import sys

import torch
from torch import Tensor, nn
from tqdm import tqdm

from segue.data.song import Ints
from segue.data.table import SongTable
from segue.training.fit.feed import TableFeed
from segue.training.fit.loop import EpochTrainer, LoopConfig
from segue.training.fit.losses import Targets
from segue.training.fit.optimisers import Optimiser
from segue.training.networks.dense import DenseNetwork
from segue.training.networks.network import Network


class Autoencoder(Network):
    """A hidden layer and a decoder: from raw windows (n, 120, 25) to what the layer's input lacks, (n, n_inputs)."""

    def __init__(self, network: DenseNetwork, depth: int) -> None:
        """Put a decoder behind the hidden layer at `depth` of a network, counted from 0."""
        super().__init__()
        self.standardise = network.standardise
        self.layer = network.head.layers[depth]
        affine = self.layer.affine
        assert isinstance(affine, nn.Linear)
        self.decoder = nn.Linear(affine.out_features, affine.in_features)
        self._below = (network, depth)  # In a tuple, so that it is no part of what is trained.

    def forward(self, segments: Tensor) -> Tensor:
        """Return the reconstruction minus the input of the layer."""
        network, depth = self._below
        with torch.no_grad():
            values = network.head.input_norm(network.read(segments))
            for layer in network.head.layers[:depth]:
                values = layer(values)
        found: Tensor = self.decoder(self.layer(values)) - values
        return found

    def train(self, mode: bool = True) -> "Autoencoder":
        """Train the layer and its decoder alone: what is below stays in eval mode, but for statistics of the input."""
        network, depth = self._below
        network.eval()
        network.head.input_norm.train(mode and depth == 0)
        super().train(mode)
        return self


def squared_error(logits: Tensor, targets: Targets) -> Tensor:
    """Return the mean square of what a reconstruction lacks, (n, n_inputs), which is what an autoencoder answers."""
    return logits.square().mean()


def pretrain(network: DenseNetwork, songs: SongTable, rows: Ints, config: LoopConfig) -> list[float]:
    """Pretrain the hidden layers of `network` in place, from the first to the last, and return the last error of each.

    Args:
        network: the network; its readout is left as it is.
        songs: the table that the rows count in.
        rows: (n,) training songs; no label is needed.
        config: the training settings of each autoencoder; all epochs are used.
    """
    feed = TableFeed(songs, torch.device("cpu"))
    targets = Targets(torch.from_numpy(songs.labels[rows]))
    errors = []
    for depth in range(len(network.head.layers)):
        autoencoder = Autoencoder(network, depth)
        optimiser = Optimiser(
            config.optimiser, autoencoder.parameters(), config.weight_decay, momentum=config.momentum,
            decay=config.decay,
        )  # fmt: skip
        trainer = EpochTrainer(
            f"autoencoder {depth + 1}", rows, songs.lengths[rows], targets, feed, squared_error, config
        )
        steps, error = trainer.steps(autoencoder, optimiser), float("nan")
        with tqdm(total=config.n_epochs * len(rows), disable=None, unit=" songs", file=sys.stderr) as progress:
            for epoch in range(1, config.n_epochs + 1):
                error = trainer.learn(steps, epoch, progress).loss
        errors.append(error)
    return errors
