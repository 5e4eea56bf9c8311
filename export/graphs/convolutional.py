"""Convolutions in time as a graph, standardisation and batch normalisation folded in."""

import numpy as np
from torch import nn

from segue.data.song import WINDOW
from segue.export.graphs.affine import Doubles, batch_norm_of, doubles, standardisation_of
from segue.export.graphs.window import Window
from segue.training.networks.convolutional import Convolutions
from segue.training.networks.standardise import Standardise


def convolved(window: Window, convolutions: Convolutions, standardise: Standardise) -> str:
    """Return what layers of convolution make of the window, (n, channels, 120)."""
    writer = window.writer
    values = window.by_feature
    into = standardisation_of(standardise)
    for layer, norm in zip(convolutions.layers, convolutions.norms, strict=True):
        assert isinstance(layer, nn.Conv1d)
        assert isinstance(norm, nn.BatchNorm1d)
        scale, shift = batch_norm_of(norm)
        kernel = doubles(layer.weight)
        bias = (seen_of_shift(kernel, into[1]) * scale + shift).T
        weight = kernel * into[0][:, None] * scale[:, None, None]
        reach = kernel.shape[2] // 2
        products = writer.op(
            "Conv", values, writer.tensor(weight), pads=[reach, reach], kernel_shape=list(kernel.shape[2:])
        )
        values = writer.op("Relu", writer.op("Add", products, writer.tensor(bias)))
        into = np.ones(len(kernel)), np.zeros(len(kernel))
    return values


def seen_of_shift(kernel: Doubles, shift: Doubles) -> Doubles:
    """Return what a convolution makes of inputs that are `shift` (n_inputs,) at every step, (120, n_outputs).

    Beyond the ends of the window are zeros, as in training: the first and last steps see less of the shift.
    """
    reach = kernel.shape[2] // 2
    by_tap = np.einsum("oik,i->ko", kernel, shift)
    inside = (np.arange(WINDOW)[:, None] + np.arange(-reach, reach + 1) >= 0) & (
        np.arange(WINDOW)[:, None] + np.arange(-reach, reach + 1) < WINDOW
    )
    result: Doubles = inside.astype(np.float64) @ by_tap
    return result
