"""Convolutions in time: a network of its own, and what may stand in front of a recurrence."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from segue.data.song import N_FEATURES
from segue.errors import ConfigError
from segue.training.networks.graph import Graph
from segue.training.networks.head import Head, check_head
from segue.training.networks.layers import ACTIVATIONS, Activation, LayerConfig, initialise, norm_layer
from segue.training.networks.network import HeadedNetwork, Network
from segue.training.networks.standardise import Standardise
from segue.training.networks.summary import N_STATISTICS, mean_and_spread, summary


@dataclass(frozen=True)
class ConvolutionalConfig(LayerConfig):
    """Convolutions in time, read by the mean and spread of their channels over the window."""

    shape: Annotated[Literal["convolutional"], Suppress] = "convolutional"
    channels: tuple[int, ...] = (128,)  # Filters of each layer over time; the study's reference has one or two layers.
    kernel: int = 7  # Neighbouring segments that a filter hears; odd.
    summary: bool = True  # Read means, spreads and correlations of the whole window beside the filters.
    hidden: tuple[int, ...] = (256,)  # Neurons of each layer between the filters and the genres; none: read directly.
    input_dropout: float = 0.3  # Share of what is read that training leaves out; 1 minus what the study keeps.
    hidden_dropout: float = 0.5  # Share of the hidden neurons that training leaves out at random.
    filter_activation: Activation = "relu"  # Of the convolutions; --activation is that of the hidden layers.

    def __post_init__(self) -> None:
        """Refuse layers that see nothing."""
        super().__post_init__()
        check_convolutions(self.channels, self.kernel)
        if not self.channels:
            raise ConfigError("channels: expected at least one layer, found none")
        check_head(self.hidden, input_dropout=self.input_dropout, hidden_dropout=self.hidden_dropout)

    def build(self, n_classes: int, standardise: Standardise) -> Network:
        """Return the untrained network."""
        return ConvolutionalNetwork(self, n_classes=n_classes, standardise=standardise)


def check_convolutions(channels: Sequence[int], kernel: int) -> None:
    """Refuse layers without channels, and kernels without a middle."""
    if any(layer < 1 for layer in channels):
        raise ConfigError(f"channels: expected at least 1 a layer, found {' '.join(map(str, channels))}")
    if kernel < 1 or kernel % 2 == 0:
        raise ConfigError(f"kernel: expected an odd number of segments, at least 1, found {kernel}")


class Convolutions(nn.Module):
    """Layers of convolution in time, norm, activation; beyond the ends of a window are zeros."""

    def __init__(
        self,
        *,
        channels: Sequence[int],
        kernel: int,
        layer: LayerConfig = LayerConfig(),
        activation: Activation = "relu",
    ) -> None:
        """Make untrained layers that look at `kernel` segments each."""
        super().__init__()
        sizes = [N_FEATURES, *channels]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, kernel, padding=kernel // 2, bias=layer.norm == "none")
            for before, after in pairwise(sizes)
        )
        self.norms = nn.ModuleList(norm_layer(layer, after) for after in channels)
        self.activation = activation
        self.n_channels = sizes[-1]  # Of the last layer.

    def forward(self, standard: Tensor) -> Tensor:
        """Return (n, segments, channels) of standardised segments (n, segments, 25)."""
        values = standard.transpose(1, 2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            values = layer(values)
            # Layer norm wants what it normalises last, batch norm second.
            values = norm(values.transpose(1, 2)).transpose(1, 2) if isinstance(norm, nn.LayerNorm) else norm(values)
            values = ACTIVATIONS[self.activation](values)
        return values.transpose(1, 2)


class ConvolutionalNetwork(HeadedNetwork):
    """Convolutions in time, from raw windows to logits."""

    def __init__(self, config: ConvolutionalConfig, *, n_classes: int, standardise: Standardise) -> None:
        """Make an untrained network; `standardise` carries the mean and deviation of the training songs."""
        super().__init__()
        self.standardise = standardise
        self.convolutions = Convolutions(
            channels=config.channels, kernel=config.kernel, layer=config, activation=config.filter_activation
        )
        self.summary = config.summary
        self.head = Head(
            n_inputs=2 * config.channels[-1] + config.summary * N_STATISTICS,
            hidden=config.hidden,
            n_classes=n_classes,
            input_dropout=config.input_dropout,
            hidden_dropout=config.hidden_dropout,
            layer=config,
        )
        initialise(self, config.init, config.init_sigma)

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""
        standard = self.standardise(segments)
        seen = mean_and_spread(self.convolutions(standard))
        if self.summary:
            seen = torch.cat([seen, summary(standard)], dim=1)
        logits: Tensor = self.head(seen)
        return logits

    def graph(self, graph: Graph) -> str:
        """Write what `forward` computes."""
        seen = graph.convolved(self.convolutions, self.standardise)
        return graph.logits(self, graph.beside(seen, graph.statistics(self.standardise)) if self.summary else seen)
