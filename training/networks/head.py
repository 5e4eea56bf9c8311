"""The head: from what a network has seen of a window to logits, through any number of hidden layers."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from segue.errors import ConfigError


class Head(nn.Module):
    """Hidden layers of affine map, batch normalisation, tanh and dropout, then an affine readout.

    With hidden layers, what comes in is normalised and dropped out first. Without, the head is the readout alone.
    """

    def __init__(
        self, *, n_inputs: int, hidden: Sequence[int], n_classes: int, input_dropout: float, hidden_dropout: float
    ) -> None:
        """Make an untrained head with a hidden layer for each number of neurons in `hidden`."""
        super().__init__()
        self.input_norm = nn.BatchNorm1d(n_inputs, affine=False) if hidden else nn.Identity()
        self.input_dropout = nn.Dropout(input_dropout)
        sizes = [n_inputs, *hidden]
        self.layers = nn.ModuleList(
            HiddenLayer(n_inputs=before, n_outputs=after, dropout=hidden_dropout) for before, after in pairwise(sizes)
        )
        self.readout = nn.Linear(sizes[-1], n_classes)

    def forward(self, seen: Tensor) -> Tensor:
        """Return logits (n, n_classes) for inputs (n, n_inputs)."""
        values = self.input_dropout(self.input_norm(seen))
        for layer in self.layers:
            values = layer(values)
        logits: Tensor = self.readout(values)
        return logits


class HiddenLayer(nn.Module):
    """Affine map, batch normalisation (Ioffe and Szegedy, ICML 2015), tanh, dropout."""

    def __init__(self, *, n_inputs: int, n_outputs: int, dropout: float) -> None:
        """Make an untrained layer."""
        super().__init__()
        self.affine = nn.Linear(n_inputs, n_outputs)
        self.norm = nn.BatchNorm1d(n_outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """Return (n, n_outputs) for (n, n_inputs)."""
        outputs: Tensor = self.dropout(self.norm(self.affine(values)).tanh())
        return outputs


def check_head(hidden: Sequence[int], **dropouts: float) -> None:
    """Refuse hidden layers without neurons, and dropouts under which nothing is left."""
    if any(neurons < 1 for neurons in hidden):
        raise ConfigError(f"hidden: expected at least 1 neuron a layer, found {' '.join(map(str, hidden))}")
    for name, share in dropouts.items():
        if not 0 <= share < 1:
            raise ConfigError(f"{name}: expected a share from 0 up to 1, found {share}")
