"""Trained networks as ONNX graphs: raw `segments` (n, 120, 25) in, `logits` (n, n_classes) out.

Standardisation and batch normalisation are affine at inference, so they fold exactly into the affine maps beside them.
An int8 graph keeps them apart where its inputs are rounded: raw timbre and raw chroma have no step in common. Hidden
layers and the products of recurrences are rounded; statistics, convolutions, input products and readouts are not.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from segue.data.song import FEATURE_NAMES, WINDOW
from segue.export.graphs.affine import Affine, head_of, input_norm_of, standardisation_of
from segue.export.graphs.convolutional import convolved
from segue.export.graphs.int8 import Int8
from segue.export.graphs.recurrent import can_lower, states
from segue.export.graphs.window import Seen, Window
from segue.export.graphs.writer import LOGITS, Writer
from segue.serving.bundle.bundle import FORMAT_VERSION, Lowering
from segue.training.networks.convolutional import ConvolutionalNetwork
from segue.training.networks.dense import DenseNetwork
from segue.training.networks.ensemble import Ensemble
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentNetwork
from segue.training.networks.summary import VARIANCE_FLOOR

Single = DenseNetwork | ConvolutionalNetwork | RecurrentNetwork


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
    logits = _logits(Window(writer), network, len(classes), lowering or "scan", int8)
    writer.op("Identity", logits, outputs=[LOGITS])
    metadata = {
        "classes": "\t".join(classes),
        "features": "\t".join(FEATURE_NAMES),
        "format_version": str(FORMAT_VERSION),
    }
    return writer.model("segue", len(classes), metadata)


def lowerings_of(network: Network) -> tuple[Lowering, ...]:
    """Return the lowerings that all recurrences of a network have; none where nothing in it is recurrent."""
    members = network.networks() if isinstance(network, Ensemble) else [network]
    recurrent = [member for member in members if isinstance(member, RecurrentNetwork)]
    return tuple(one for one in LOWERINGS if recurrent and all(can_lower(member, one) for member in recurrent))


def can_round(network: Network, lowering: Lowering | None) -> bool:
    """Tell whether an int8 graph of a network is another one than the exact graph."""
    if isinstance(network, Ensemble):
        return any(can_round(member, lowering) for member in network.networks())
    assert isinstance(network, Single)
    return len(network.head.layers) > 0 or (isinstance(network, RecurrentNetwork) and lowering != "operator")


def _logits(window: Window, network: Network, n_classes: int, lowering: Lowering, int8: Int8 | None) -> str:
    """Return the logits (n, n_classes) of a network."""
    writer = window.writer
    if isinstance(network, Ensemble):
        members = [_logits(window, member, n_classes, lowering, int8) for member in network.networks()]
        together = [writer.op("Unsqueeze", one, writer.ints(1)) for one in members]
        surprise = writer.op("LogSoftmax", writer.op("Concat", *together, axis=1), axis=2)
        return writer.op("ReduceMean", surprise, axes=[1], keepdims=0)
    assert isinstance(network, Single)
    layers = head_of(network.head)
    seen = _seen(window, network, lowering, int8, n_inputs=len(layers[0].weight)).then(*input_norm_of(network.head))
    if int8 is None or len(layers) == 1:
        return _head(writer, seen.value, [seen.read_by(layers[0]), *layers[1:]])
    return _rounded_head(writer, seen, layers, int8, int8.reach(network, network.head))


def _head(writer: Writer, values: str, layers: Sequence[Affine]) -> str:
    """Return what a head makes of what it reads."""
    for layer in layers[:-1]:
        values = writer.op("Tanh", _affine(writer, values, layer))
    return _affine(writer, values, layers[-1])


def _rounded_head(writer: Writer, seen: Seen, layers: Sequence[Affine], int8: Int8, reach: float) -> str:
    """Return what a head makes of what it reads, where the inputs of hidden layers are rounded."""
    values = writer.op("Add", writer.op("Mul", seen.value, writer.tensor(seen.scale)), writer.tensor(seen.shift))
    for layer in layers[:-1]:
        values, reach = writer.op("Tanh", int8.product(writer, values, layer.weight, reach, layer.bias)), 1.0
    return _affine(writer, values, layers[-1])


def _affine(writer: Writer, values: str, layer: Affine) -> str:
    return writer.op("Gemm", values, writer.tensor(layer.weight), writer.tensor(layer.bias))


def _seen(window: Window, network: Single, lowering: Lowering, int8: Int8 | None, n_inputs: int) -> Seen:
    """Return the `n_inputs` values that the head of a single network reads."""
    writer = window.writer
    if isinstance(network, DenseNetwork):
        if network.look == "pooled":
            return window.statistics(network.standardise)
        scale, shift = standardisation_of(network.standardise)
        return Seen(window.flat, np.tile(scale, WINDOW), np.tile(shift, WINDOW))
    if isinstance(network, ConvolutionalNetwork):
        seen = _mean_and_spread(writer, convolved(window, network.convolutions, network.standardise))
        summary = network.summary
    else:
        seen = states(window, network, lowering, int8)
        summary = network.config.summary
    if not summary:
        return Seen(seen, np.ones(n_inputs), np.zeros(n_inputs))
    statistics = window.statistics(network.standardise)
    n_seen = n_inputs - len(statistics.scale)
    return Seen(
        writer.op("Concat", seen, statistics.value, axis=1),
        np.concatenate([np.ones(n_seen), statistics.scale]),
        np.concatenate([np.zeros(n_seen), statistics.shift]),
    )


def _mean_and_spread(writer: Writer, values: str) -> str:
    """Return mean and spread over time, (n, 2 * channels), of values (n, channels, 120)."""
    op = writer.op
    mean = op("ReduceMean", values, axes=[2], keepdims=1)
    squares = op("ReduceSumSquare", op("Sub", values, mean), axes=[2], keepdims=0)
    variance = op("Mul", squares, writer.tensor(np.array(1 / WINDOW)))
    spread = op("Sqrt", op("Max", variance, writer.tensor(np.array(VARIANCE_FLOOR))))
    return op("Concat", op("Flatten", mean, axis=1), spread, axis=1)
