"""Convolutions in time as a graph, standardisation and batch normalisation folded in."""

import numpy as np
from torch import nn

from segue.data.song import WINDOW
from segue.export.graphs.affine import Doubles, batch_norm_of, doubles, standardisation_of
from segue.export.graphs.window import Window
from segue.export.graphs.writer import Writer
from segue.training.networks.convolutional import Convolutions
from segue.training.networks.layers import Activation
from segue.training.networks.standardise import Standardise

ACTIVATION_OPS: dict[Activation, str] = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu", "selu": "Selu"}


def convolved(window: Window, convolutions: Convolutions, standardise: Standardise) -> str:
    """Return what layers of convolution make of the window, (n, channels, 120)."""
    writer = window.writer
    values = window.by_feature
    into = standardisation_of(standardise)
    for layer, norm in zip(convolutions.layers, convolutions.norms, strict=True):
        assert isinstance(layer, nn.Conv1d)
        kernel = doubles(layer.weight)
        scale, shift = np.ones(len(kernel)), np.zeros(len(kernel))
        if isinstance(norm, nn.BatchNorm1d):
            scale, shift = batch_norm_of(norm)
        elif layer.bias is not None:
            shift = doubles(layer.bias)
        bias = (seen_of_shift(kernel, into[1]) * scale + shift).T
        weight = kernel * into[0][:, None] * scale[:, None, None]
        reach = kernel.shape[2] // 2
        products = writer.op(
            "Conv", values, writer.tensor(weight), pads=[reach, reach], kernel_shape=list(kernel.shape[2:])
        )
        values = writer.op("Add", products, writer.tensor(bias))
        if isinstance(norm, nn.LayerNorm):
            by_step = layer_normed(writer, writer.op("Transpose", values, perm=[0, 2, 1]), norm)
            values = writer.op("Transpose", by_step, perm=[0, 2, 1])
        values = writer.op(ACTIVATION_OPS[convolutions.activation], values)
        into = np.ones(len(kernel)), np.zeros(len(kernel))
    return values


def layer_normed(writer: Writer, values: str, norm: nn.LayerNorm) -> str:
    """Return values (..., n) with layer norm over their last axis."""
    scale, shift = writer.tensor(doubles(norm.weight)), writer.tensor(doubles(norm.bias))
    return writer.op("LayerNormalization", values, scale, shift, axis=-1, epsilon=norm.eps)


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
