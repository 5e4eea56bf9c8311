"""Trained networks as ONNX graphs: raw `segments` (n, 120, 25) in, `logits` (n, n_classes) out.

Standardisation and batch normalisation are affine at inference, so they fold exactly into the affine maps beside them.
"""

import numpy as np
import onnx

from data.song import FEATURE_NAMES, WINDOW
from export.graphs.affine import Affine, head_of, standardisation_of
from export.graphs.convolutional import convolved
from export.graphs.recurrent import Lowering, states
from export.graphs.window import Seen, Window
from export.graphs.writer import LOGITS, Writer
from serving.bundle import FORMAT_VERSION
from training.networks.convolutional import ConvolutionalNetwork
from training.networks.dense import DenseNetwork
from training.networks.ensemble import Ensemble
from training.networks.network import Network
from training.networks.recurrent import RecurrentNetwork
from training.networks.summary import VARIANCE_FLOOR

Single = DenseNetwork | ConvolutionalNetwork | RecurrentNetwork


def graph_of(network: Network, classes: tuple[str, ...], lowering: Lowering = "scan") -> onnx.ModelProto:
    """Return the graph of a trained network, with the class and feature names inside, so that it can be used alone."""
    writer = Writer()
    logits = _logits(Window(writer), network, len(classes), lowering)
    writer.op("Identity", logits, outputs=[LOGITS])
    metadata = {
        "classes": "\t".join(classes),
        "features": "\t".join(FEATURE_NAMES),
        "format_version": str(FORMAT_VERSION),
        "lowering": lowering,
    }
    return writer.model("segue", len(classes), metadata)


def _logits(window: Window, network: Network, n_classes: int, lowering: Lowering) -> str:
    """Return the logits (n, n_classes) of a network."""
    writer = window.writer
    if isinstance(network, Ensemble):
        members = [_logits(window, member, n_classes, lowering) for member in network.networks()]
        together = [writer.op("Unsqueeze", one, writer.ints(1)) for one in members]
        surprise = writer.op("LogSoftmax", writer.op("Concat", *together, axis=1), axis=2)
        return writer.op("ReduceMean", surprise, axes=[1], keepdims=0)
    assert isinstance(network, Single)
    first, *others = head_of(network.head)
    seen = _seen(window, network, lowering, n_inputs=len(first.weight))
    layers = [seen.read_by(first), *others]
    values = seen.value
    for layer in layers[:-1]:
        values = writer.op("Tanh", _affine(writer, values, layer))
    return _affine(writer, values, layers[-1])


def _affine(writer: Writer, values: str, layer: Affine) -> str:
    return writer.op("Gemm", values, writer.tensor(layer.weight), writer.tensor(layer.bias))


def _seen(window: Window, network: Single, lowering: Lowering, n_inputs: int) -> Seen:
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
        seen = states(window, network, lowering)
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
