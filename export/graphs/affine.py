"""Affine maps in float64: what linear layers, normalisation in eval mode and standardisation fold into.

Batch normalisation (Ioffe and Szegedy, ICML 2015) scales and shifts by numbers that are fixed once training is over, so
it is exactly a part of the affine map before or after it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.training.networks.head import Head, HiddenLayer
from segue.training.networks.layers import Activation
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


@dataclass(frozen=True)
class Layer:
    """A hidden layer: affine map, layer norm if it has one, activation."""

    affine: Affine
    norm: nn.LayerNorm | None
    activation: Activation


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


def layers_of(head: Head) -> list[Layer]:
    """Return the hidden layers of a head, batch norms folded in."""
    return [_layer_of(layer) for layer in head.layers if isinstance(layer, HiddenLayer)]


def _layer_of(layer: HiddenLayer) -> Layer:
    affine = affine_of(layer.affine)
    if isinstance(layer.norm, nn.BatchNorm1d):
        affine = affine.then(*batch_norm_of(layer.norm))
    return Layer(affine, layer.norm if isinstance(layer.norm, nn.LayerNorm) else None, layer.activation)


def input_norm_of(head: Head) -> tuple[Doubles, Doubles]:
    """Return the scale and shift, each (n_inputs,), of what a head reads before its first layer."""
    if isinstance(head.input_norm, nn.BatchNorm1d):
        return batch_norm_of(head.input_norm)
    return np.ones(head.n_inputs), np.zeros(head.n_inputs)


def doubles(tensor: Tensor) -> Doubles:
    """Return a parameter or statistic of a network in float64."""
    return tensor.detach().cpu().numpy().astype(np.float64)
