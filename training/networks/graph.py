"""What a network needs to say how it is written as a graph: the parts that its forward pass is made of.

A network says in `forward` what it computes, and in `graph` the same once more, part by part. `segue.export.graphs`
writes the parts as ONNX; whatever the parts have no name for is written with `op`, operator by operator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segue.training.networks.standardise import Standardise

if TYPE_CHECKING:
    from segue.training.networks.convolutional import Convolutions
    from segue.training.networks.network import HeadedNetwork
    from segue.training.networks.recurrent import RecurrentNetwork

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Values (n, n_inputs) of a graph, which a head reads scaled and shifted; its first layer can fold in both."""

    value: str
    scale: Doubles  # (n_inputs,)
    shift: Doubles  # (n_inputs,)

    @classmethod
    def plain(cls, value: str, n_inputs: int) -> "Seen":
        """Return `n_inputs` values that are read as they are."""
        return cls(value, np.ones(n_inputs), np.zeros(n_inputs))

    def then(self, scale: Doubles, shift: Doubles) -> "Seen":
        """Scale and shift once more, each (n_inputs,)."""
        return Seen(self.value, self.scale * scale, self.shift * scale + shift)


class Graph(Protocol):
    """The graph that is being written; every value in it goes by a name."""

    @property
    def segments(self) -> str:
        """The raw window (n, 120, 25)."""

    def flat(self, standardise: Standardise) -> Seen:
        """Return the standardised window in one row, 3000 values."""

    def statistics(self, standardise: Standardise) -> Seen:
        """Return the summary statistics of the standardised window; see `segue.training.networks.summary`."""

    def convolved(self, convolutions: "Convolutions", standardise: Standardise) -> Seen:
        """Return mean and spread over time of what convolutions make of the standardised window."""

    def states(self, network: "RecurrentNetwork") -> Seen:
        """Return what is read of the states of a recurrence: the last, or mean and spread of all."""

    def beside(self, *parts: Seen) -> Seen:
        """Return parts beside each other, as one."""

    def logits(self, network: "HeadedNetwork", seen: Seen) -> str:
        """Return the logits (n, n_classes) that the head of a network makes of what it reads."""

    def joined(self, logits: Sequence[str]) -> str:
        """Return the mean log-probability of several logits, (n, n_classes) each."""

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append an ONNX operator and return the name of its output."""

    def tensor(self, values: NDArray[np.generic]) -> str:
        """Return the name of a constant."""
