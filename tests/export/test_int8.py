"""Int8 graphs: products are what the rounding says, and answers stay close and do not depend on the batch."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from segue.data.song import Floats
from segue.export.graphs.build import can_round, graph_of
from segue.export.graphs.int8 import Int8
from segue.export.graphs.writer import Writer
from segue.export.parity import edge_windows, network_logits
from segue.serving.bundle.manifest import Lowering
from segue.training.networks.build import Config, EnsembleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from tests.export.test_graphs import CONVOLUTIONAL, HYBRID, random_windows, session_of
from tests.support.bundles import CLASSES
from tests.support.plain_networks import random_network

Array = NDArray[np.float64]
Ranges = Literal["static", "dynamic"]

CONFIGS: dict[str, Config] = {
    "flat": DenseConfig(look="flat", hidden=(64,)),
    "pooled, two layers": DenseConfig(look="pooled", hidden=(48, 16)),
    "convolutional": CONVOLUTIONAL,
    "rnn": RecurrentConfig(state=24),
    "gru, layer norm": RecurrentConfig(cell="gru", norm="layer", state=24),
    "lstm, pooled": RecurrentConfig(cell="lstm", readout="pooled", state=24),
    "hybrid": HYBRID,
    "ensemble": EnsembleConfig((DenseConfig(hidden=(8,)), RecurrentConfig(state=7))),
}


def product_in_onnx(ranges: Ranges, values: Floats, weight: Array, bias: Array | None, reach: float) -> Floats:
    """Multiply the first columns of the segments by a weight as an int8 graph does."""
    writer = Writer()
    first = writer.op(
        "Slice", writer.op("Flatten", "segments", axis=1), writer.ints(0), writer.ints(len(weight)), writer.ints(1)
    )
    made = Int8(ranges, edge_windows()).product(writer, first, weight, reach, bias)
    writer.op("Identity", made, outputs=["logits"])
    segments = np.zeros((len(values), 120, 25), dtype=np.float32)
    segments.reshape(len(values), -1)[:, : len(weight)] = values
    product: Floats = session_of(writer.model("product", weight.shape[1], {})).run(None, {"segments": segments})[0]
    return product


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("ranges", ["static", "dynamic"])
def test_a_product_is_that_of_the_rounded_numbers(ranges: Ranges, with_bias: bool) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(40, 9)) * rng.uniform(0.1, 10, 9), rng.normal(size=9) if with_bias else None
    weight[:, 3] = 0  # A dead output.
    values = rng.normal(size=(50, 40)).astype(np.float32)
    steps = np.maximum(np.abs(weight).max(axis=0), 1e-30) / 63
    if ranges == "static":
        step, reach = 2.0 / 127, 2.0
        rounded = np.clip(np.rint(values / np.float32(step)), -128, 127)
        assert (np.abs(values) > reach).any()  # Some are clipped.
    else:
        step, reach = (float(values.max()) - float(values.min())) / 255, np.inf
        zero = np.rint(-values.min() / step)
        rounded = np.clip(np.rint(values / np.float32(step)) + zero, 0, 255) - zero
    shift = 0.0 if bias is None else bias
    expected = rounded @ np.rint(weight / steps) * (steps * step) + shift
    found = product_in_onnx(ranges, values, weight, bias, reach)
    # A value halfway between two steps may go either way.
    off = np.abs(found - expected) > 1e-4 * np.abs(expected).max()
    assert off.any(axis=1).mean() < 0.1
    np.testing.assert_allclose(found, expected, atol=1.01 * step * np.abs(weight).max())
    exact = values @ weight + (0 if bias is None else bias)
    if ranges == "dynamic":
        assert np.corrcoef(found[:, 0], exact[:, 0])[0, 1] > 0.999


def test_two_products_of_bytes_fit_into_16_bits() -> None:
    graph = graph_of(random_network(CONFIGS["flat"]), CLASSES, None, Int8("static", random_windows(20)))
    (weight,) = (one for one in graph.graph.initializer if one.data_type == 3 and len(one.dims) == 2)  # int8
    largest = np.abs(np.frombuffer(weight.raw_data, dtype=np.int8).astype(int)).max()
    assert 255 * 2 * largest < 2**15


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_static_rounding_changes_little_and_no_other_song(config: Config) -> None:
    network, windows = random_network(config), random_windows(120)
    exact = network_logits(network, windows)
    session = session_of(graph_of(network, CLASSES, "scan", Int8("static", windows)))
    (found,) = session.run(None, {"segments": windows})
    error = np.abs(found - exact)
    assert error.max() > 0
    assert error.std() < 0.05 * exact.std()
    (together,) = session.run(None, {"segments": np.concatenate([edge_windows(), windows[:5]])})
    alone = np.concatenate([session.run(None, {"segments": window[None]})[0] for window in windows[:5]])
    np.testing.assert_allclose(together[-5:], alone, atol=0.01)


@pytest.mark.parametrize("lowering", ["scan", "unrolled"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_onnxruntime_multiplies_bytes_and_dequantises_nothing(
    config: Config, lowering: Lowering, tmp_path: Path
) -> None:
    """A pattern that it does not know it would dequantise, and be slower than in float32."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    graph = graph_of(random_network(config), CLASSES, lowering, Int8("static", random_windows(3)))
    onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = list(onnx.load(tmp_path / "optimised.onnx").graph.node)
    nodes += [inner for node in nodes for attribute in node.attribute for inner in attribute.g.node]
    kinds = {node.op_type for node in nodes}
    assert kinds & {"MatMulIntegerToFloat", "QGemm"}
    assert "DequantizeLinear" not in kinds


def test_raw_features_of_all_sizes_survive_rounding() -> None:
    """Raw timbre spans hundreds and raw chroma 1: rounded as they come, chroma would be lost."""
    network, windows = random_network(CONFIGS["flat"]), random_windows(60)
    session = session_of(graph_of(network, CLASSES, None, Int8("static", windows)))
    shuffled = windows.copy()
    shuffled[..., 12:24] = windows[::-1, :, 12:24]
    expected = network_logits(network, shuffled) - network_logits(network, windows)
    found = session.run(None, {"segments": shuffled})[0] - session.run(None, {"segments": windows})[0]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_what_has_no_large_product_is_not_rounded() -> None:
    for config, lowering, expected in (
        (ConvolutionalConfig(channels=(6,), hidden=()), None, False),
        (CONVOLUTIONAL, None, True),
        (RecurrentConfig(state=6), "operator", False),
        (RecurrentConfig(state=6), "scan", True),
        (RecurrentConfig(state=6, hidden=(5,)), "operator", True),
        (EnsembleConfig((DenseConfig(hidden=(8,)), ConvolutionalConfig(channels=(6,), hidden=()))), None, True),
    ):
        assert can_round(random_network(config), lowering) == expected  # type: ignore[arg-type]
