"""Dense networks on the whole window (flat) or on its summary statistics (pooled).

With one hidden layer it is the student, flat as in the study or pooled; with three on the flat window, the study's
baseline of 500, 500 and 25 neurons.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor
from tyro.conf import Suppress

from segue.data.song import N_FEATURES, WINDOW
from segue.errors import ConfigError
from segue.training.networks.graph import Graph
from segue.training.networks.head import Head, check_head
from segue.training.networks.layers import LayerConfig, initialise
from segue.training.networks.network import HeadedNetwork, Network
from segue.training.networks.standardise import Standardise
from segue.training.networks.summary import N_STATISTICS, summary

Look = Literal["flat", "pooled"]


@dataclass(frozen=True)
class DenseConfig(LayerConfig):
    """Hidden layers on the window or on its summary statistics."""

    shape: Annotated[Literal["dense"], Suppress] = "dense"
    look: Look = "pooled"  # What it hears: all 120 segments (flat), or their means, spreads and correlations (pooled).
    hidden: tuple[int, ...] = (512,)  # Neurons of each hidden layer; one layer makes a student.
    input_dropout: float = 0.3  # Share of what it hears that training leaves out at random; the study's keep of 0.7.
    hidden_dropout: float = 0.6  # Share of the hidden neurons that training leaves out; 1 minus what the study keeps.

    def __post_init__(self) -> None:
        """Refuse a network that cannot learn."""
        super().__post_init__()
        if not self.hidden:
            raise ConfigError("hidden: expected at least one layer, found none")
        check_head(self.hidden, input_dropout=self.input_dropout, hidden_dropout=self.hidden_dropout)

    def build(self, n_classes: int, standardise: Standardise) -> Network:
        """Return the untrained network."""
        return DenseNetwork(self, n_classes=n_classes, standardise=standardise)


class DenseNetwork(HeadedNetwork):
    """Hidden layers, from raw windows to logits."""

    def __init__(self, config: DenseConfig, *, n_classes: int, standardise: Standardise) -> None:
        """Make an untrained network; `standardise` carries the mean and deviation of the training songs."""
        super().__init__()
        self.standardise = standardise
        self.look = config.look
        self.head = Head(
            n_inputs=WINDOW * N_FEATURES if config.look == "flat" else N_STATISTICS,
            hidden=config.hidden,
            n_classes=n_classes,
            input_dropout=config.input_dropout,
            hidden_dropout=config.hidden_dropout,
            layer=config,
        )
        initialise(self, config.init, config.init_sigma)

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""
        logits: Tensor = self.head(self.read(segments))
        return logits

    def read(self, segments: Tensor) -> Tensor:
        """Return what the head reads of raw windows (n, 120, 25), (n, n_inputs)."""
        standard = self.standardise(segments)
        return standard.flatten(1) if self.look == "flat" else summary(standard)

    def graph(self, graph: Graph) -> str:
        """Write what `forward` computes."""
        return graph.logits(self, (graph.flat if self.look == "flat" else graph.statistics)(self.standardise))
