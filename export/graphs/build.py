"""Trained networks as ONNX graphs: raw `segments` (n, 120, 25) in, `logits` (n, n_classes) out.

Standardisation and batch normalisation are affine at inference, so they fold exactly into the affine maps beside them.
An int8 graph keeps them apart where its inputs are rounded: raw timbre and raw chroma have no step in common. Hidden
layers and the products of recurrences are rounded; statistics, convolutions, input products and readouts are not.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from segue.data.song import FEATURE_NAMES, WINDOW
from segue.export.graphs.affine import Affine, Layer, affine_of, input_norm_of, layers_of, standardisation_of
from segue.export.graphs.convolutional import ACTIVATION_OPS, convolved, layer_normed
from segue.export.graphs.int8 import Int8
from segue.export.graphs.recurrent import can_lower, states
from segue.export.graphs.window import Window
from segue.export.graphs.writer import LOGITS, SEGMENTS, Writer
from segue.serving.bundle.manifest import FORMAT_VERSION, Lowering
from segue.training.networks.convolutional import Convolutions
from segue.training.networks.graph import Seen
from segue.training.networks.head import Head
from segue.training.networks.network import HeadedNetwork, Network
from segue.training.networks.recurrent import RecurrentNetwork
from segue.training.networks.standardise import Standardise
from segue.training.networks.summary import VARIANCE_FLOOR

LOWERINGS: tuple[Lowering, ...] = ("scan", "unrolled", "operator")


def graph_of(
    network: Network, classes: tuple[str, ...], lowering: Lowering | None = "scan", int8: Int8 | None = None
) -> onnx.ModelProto:
    """Return the graph of a trained network, with the class and feature names inside, so that it can be used alone.

    Args:
        network: the network.
        classes: the names of its logits.
        lowering: how its recurrences are written; see `lowerings_of`.
        int8: how the inputs of large products are rounded. Default: everything is exact.
    """
    writer = Writer()
    logits = network.graph(OnnxGraph(writer, lowering or "scan", int8))
    writer.op("Identity", logits, outputs=[LOGITS])
    metadata = {
        "classes": "\t".join(classes),
        "features": "\t".join(FEATURE_NAMES),
        "format_version": str(FORMAT_VERSION),
    }
    return writer.model("segue", len(classes), metadata)


def lowerings_of(network: Network) -> tuple[Lowering, ...]:
    """Return the lowerings that all recurrences of a network have; none where nothing in it is recurrent."""
    recurrent = [part for part in network.modules() if isinstance(part, RecurrentNetwork)]
    return tuple(one for one in LOWERINGS if recurrent and all(can_lower(part, one) for part in recurrent))


def can_round(network: Network, lowering: Lowering | None) -> bool:
    """Tell whether an int8 graph of a network is another one than the exact graph."""
    return any(
        (isinstance(part, Head) and len(part.layers) > 0)
        or (isinstance(part, RecurrentNetwork) and lowering != "operator")
        for part in network.modules()
    )


class OnnxGraph:
    """The parts of networks, written as ONNX; each part of a window once, however many networks read it."""

    segments = SEGMENTS

    def __init__(self, writer: Writer, lowering: Lowering, int8: Int8 | None) -> None:
        """Write with `writer`, recurrences by `lowering`, the inputs of large products rounded by `int8`."""
        self._writer = writer
        self._window = Window(writer)
        self._lowering = lowering
        self._int8 = int8

    def flat(self, standardise: Standardise) -> Seen:
        """Return the standardised window in one row."""
        scale, shift = standardisation_of(standardise)
        return Seen(self._window.flat, np.tile(scale, WINDOW), np.tile(shift, WINDOW))

    def statistics(self, standardise: Standardise) -> Seen:
        """Return the summary statistics of the standardised window."""
        return self._window.statistics(standardise)

    def convolved(self, convolutions: Convolutions, standardise: Standardise) -> Seen:
        """Return mean and spread over time of what convolutions make of the standardised window."""
        op = self._writer.op
        values = convolved(self._window, convolutions, standardise)
        mean = op("ReduceMean", values, axes=[2], keepdims=1)
        squares = op("ReduceSumSquare", op("Sub", values, mean), axes=[2], keepdims=0)
        variance = op("Mul", squares, self.tensor(np.array(1 / WINDOW)))
        spread = op("Sqrt", op("Max", variance, self.tensor(np.array(VARIANCE_FLOOR))))
        return Seen.plain(op("Concat", op("Flatten", mean, axis=1), spread, axis=1), 2 * convolutions.n_channels)

    def states(self, network: RecurrentNetwork) -> Seen:
        """Return what is read of the states of a recurrence."""
        return Seen.plain(states(self._window, network, self._lowering, self._int8), network.n_read)

    def beside(self, *parts: Seen) -> Seen:
        """Return parts beside each other, as one."""
        value = self._writer.op("Concat", *(part.value for part in parts), axis=1)
        scale, shift = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scale", "shift"))
        return Seen(value, scale, shift)

    def logits(self, network: HeadedNetwork, seen: Seen) -> str:
        """Return the logits that the head of a network makes of what it reads."""
        head = network.head
        if not isinstance(head.readout, nn.Linear):
            return seen.value
        seen = seen.then(*input_norm_of(head))
        layers, readout = layers_of(head), affine_of(head.readout)
        if self._int8 is not None and layers:
            return self._affine(self._rounded(network, seen, layers, self._int8), readout)
        if not layers:
            return self._affine(seen.value, readout.after(seen.scale, seen.shift))
        layers[0] = replace(layers[0], affine=layers[0].affine.after(seen.scale, seen.shift))
        values = seen.value
        for layer in layers:
            values = self._activated(self._affine(values, layer.affine), layer)
        return self._affine(values, readout)

    def joined(self, logits: Sequence[str]) -> str:
        """Return the mean log-probability of several logits."""
        op = self._writer.op
        together = [op("Unsqueeze", one, self._writer.ints(1)) for one in logits]
        surprise = op("LogSoftmax", op("Concat", *together, axis=1), axis=2)
        return op("ReduceMean", surprise, axes=[1], keepdims=0)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append an ONNX operator and return the name of its output."""
        return self._writer.op(kind, *inputs, **attributes)

    def tensor(self, values: NDArray[np.generic]) -> str:
        """Return the name of a constant."""
        return self._writer.tensor(values)

    def _rounded(self, network: HeadedNetwork, seen: Seen, layers: Sequence[Layer], int8: Int8) -> str:
        """Return what the hidden layers of a head make of what it reads, where their inputs are rounded."""
        head = network.head
        values = self.op("Add", self.op("Mul", seen.value, self.tensor(seen.scale)), self.tensor(seen.shift))
        reach = int8.reach(network, head.input_norm)
        for layer, module in zip(layers, head.layers, strict=True):
            product = int8.product(self._writer, values, layer.affine.weight, reach, layer.affine.bias)
            values = self._activated(product, layer)
            if module is not head.layers[-1]:
                reach = 1.0 if layer.activation == "tanh" else int8.reach(network, module)
        return values

    def _activated(self, values: str, layer: Layer) -> str:
        if layer.norm is not None:
            values = layer_normed(self._writer, values, layer.norm)
        return self.op(ACTIVATION_OPS[layer.activation], values)

    def _affine(self, values: str, layer: Affine) -> str:
        return self.op("Gemm", values, self.tensor(layer.weight), self.tensor(layer.bias))
