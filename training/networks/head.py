"""The head: from what a network has seen of a window to logits, through any number of hidden layers."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from segue.errors import ConfigError
from segue.training.networks.layers import ACTIVATIONS, LayerConfig, norm_layer


class Head(nn.Module):
    """Hidden layers of affine map, norm, activation and dropout, then an affine readout.

    With hidden layers under batch norm, what comes in is normalised first, and dropped out. Without hidden layers, the
    head is the readout alone; without a readout too, what comes in is the logits.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        hidden: Sequence[int],
        n_classes: int,
        input_dropout: float,
        hidden_dropout: float,
        layer: LayerConfig = LayerConfig(),
        reads: bool = True,
    ) -> None:
        """Make an untrained head with a hidden layer for each number of neurons in `hidden`."""
        super().__init__()
        normed = bool(hidden) and layer.norm == "batch"
        self.input_norm = (
            nn.BatchNorm1d(n_inputs, affine=False, eps=layer.norm_eps, momentum=layer.norm_momentum)
            if normed
            else nn.Identity()
        )
        self.input_dropout = nn.Dropout(input_dropout)
        self.n_inputs = n_inputs
        sizes = [n_inputs, *hidden]
        self.layers = nn.ModuleList(
            HiddenLayer(n_inputs=before, n_outputs=after, dropout=hidden_dropout, layer=layer)
            for before, after in pairwise(sizes)
        )
        self.readout: nn.Linear | nn.Identity = nn.Linear(sizes[-1], n_classes) if reads else nn.Identity()

    def forward(self, seen: Tensor) -> Tensor:
        """Return logits (n, n_classes) for inputs (n, n_inputs)."""
        values = self.input_dropout(self.input_norm(seen))
        for layer in self.layers:
            values = layer(values)
        logits: Tensor = self.readout(values)
        return logits


class HiddenLayer(nn.Module):
    """Affine map, norm, activation, dropout."""

    def __init__(self, *, n_inputs: int, n_outputs: int, dropout: float, layer: LayerConfig = LayerConfig()) -> None:
        """Make an untrained layer."""
        super().__init__()
        self.affine = nn.Linear(n_inputs, n_outputs)
        self.norm = norm_layer(layer, n_outputs)
        self.activation = layer.activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """Return (n, n_outputs) for (n, n_inputs)."""
        outputs: Tensor = self.dropout(ACTIVATIONS[self.activation](self.norm(self.affine(values))))
        return outputs


def check_head(hidden: Sequence[int], **dropouts: float) -> None:
    """Refuse hidden layers without neurons, and dropouts under which nothing is left."""
    if any(neurons < 1 for neurons in hidden):
        raise ConfigError(f"hidden: expected at least 1 neuron a layer, found {' '.join(map(str, hidden))}")
    for name, share in dropouts.items():
        if not 0 <= share < 1:
            raise ConfigError(f"{name}: expected a share from 0 up to 1, found {share}")
