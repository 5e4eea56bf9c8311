"""Affine maps in float64: what linear layers, normalisation in eval mode and standardisation fold into.

Batch normalisation (Ioffe and Szegedy, ICML 2015) scales and shifts by numbers that are fixed once training is over, so
it is exactly a part of the affine map before or after it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.training.networks.head import Head, HiddenLayer
from segue.training.networks.standardise import Standardise

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """x -> x @ weight + bias, in float64 while it is being folded."""

    weight: Doubles  # (n_inputs, n_outputs)
    bias: Doubles  # (n_outputs,)

    def then(self, scale: Doubles, shift: Doubles) -> "Affine":
        """Fold in an output that is scaled and shifted, each (n_outputs,)."""
        return Affine(self.weight * scale, self.bias * scale + shift)

    def after(self, scale: Doubles, shift: Doubles) -> "Affine":
        """Fold in an input that is scaled and shifted first, each (n_inputs,)."""
        return Affine(self.weight * scale[:, None], self.bias + shift @ self.weight)


def affine_of(linear: nn.Linear) -> Affine:
    """Return the map of a linear layer."""
    weight = doubles(linear.weight).T
    return Affine(weight, np.zeros(weight.shape[1]) if linear.bias is None else doubles(linear.bias))


def batch_norm_of(norm: nn.BatchNorm1d) -> tuple[Doubles, Doubles]:
    """Return the scale and shift, each (n,), that batch normalisation amounts to in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma = np.ones(norm.num_features) if norm.weight is None else doubles(norm.weight)
    beta = np.zeros(norm.num_features) if norm.bias is None else doubles(norm.bias)
    scale = gamma / np.sqrt(doubles(norm.running_var) + norm.eps)
    return scale, beta - doubles(norm.running_mean) * scale


def standardisation_of(standardise: Standardise) -> tuple[Doubles, Doubles]:
    """Return the scale and shift, each (25,), that standardisation amounts to."""
    scale = 1 / doubles(standardise.deviation)
    return scale, -doubles(standardise.mean) * scale


def head_of(head: Head) -> list[Affine]:
    """Return the maps of a head's layers, the readout last; tanh stands between any two of them."""
    hidden = [layer for layer in head.layers if isinstance(layer, HiddenLayer)]
    return [*(affine_of(layer.affine).then(*batch_norm_of(layer.norm)) for layer in hidden), affine_of(head.readout)]


def input_norm_of(head: Head) -> tuple[Doubles, Doubles]:
    """Return the scale and shift, each (n_inputs,), of what a head reads before its first layer."""
    if isinstance(head.input_norm, nn.BatchNorm1d):
        return batch_norm_of(head.input_norm)
    return np.ones(head.readout.in_features), np.zeros(head.readout.in_features)


def doubles(tensor: Tensor) -> Doubles:
    """Return a parameter or statistic of a network in float64."""
    return tensor.detach().cpu().numpy().astype(np.float64)
