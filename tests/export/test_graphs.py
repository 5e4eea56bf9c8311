"""The exported graphs: against a plain float64 reference, against torch, and alone in ONNX Runtime."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.song import FEATURE_NAMES, Floats
from segue.data.synth import draw_genres, draw_songs, genre_name
from segue.errors import ConfigError
from segue.export.graphs.affine import Affine
from segue.export.graphs.build import LOWERINGS, graph_of, lowerings_of
from segue.export.parity import TOLERANCE, edge_windows, network_logits
from segue.serving.bundle.manifest import Lowering
from segue.training.networks.build import Config, EnsembleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.layers import Norm
from segue.training.networks.recurrent import Cell, Readout, RecurrentConfig
from tests.support.bundles import CLASSES, EASY
from tests.support.plain_networks import plain_logits, random_network
from tests.support.random_songs import random_segments

HYBRID = RecurrentConfig(cell="gru", state=6, readout="pooled", convolution=5, kernel=3, summary=True, hidden=(7, 5))
CONVOLUTIONAL = ConvolutionalConfig(channels=(6, 5), kernel=5, hidden=(8,))
CONFIGS: dict[str, Config] = {
    "flat": DenseConfig(look="flat", hidden=(16,)),
    "flat, three layers": DenseConfig(look="flat", hidden=(9, 8, 7)),
    "pooled": DenseConfig(look="pooled", hidden=(16,)),
    "pooled, two layers": DenseConfig(look="pooled", hidden=(9, 8)),
    "convolutional": CONVOLUTIONAL,
    "convolutional, no summary": ConvolutionalConfig(channels=(6,), kernel=7, summary=False, hidden=(8, 4)),
    "convolutional, no hidden layer": ConvolutionalConfig(channels=(6,), kernel=1, hidden=()),
    "hybrid": HYBRID,
    "hybrid, last state": RecurrentConfig(cell="lstm", state=6, convolution=5, summary=True),
    "hidden layer": RecurrentConfig(state=6, hidden=(7,)),
    "ensemble": EnsembleConfig((DenseConfig(hidden=(8,)), HYBRID, CONVOLUTIONAL, RecurrentConfig(state=7))),
    "layer norm, selu": DenseConfig(look="flat", hidden=(9, 8), norm="layer", activation="selu", norm_eps=1e-3),
    "no norm, relu": DenseConfig(look="pooled", hidden=(9, 8), norm="none", activation="relu"),
    "batch norm, elu, its epsilon": DenseConfig(look="flat", hidden=(9, 8), activation="elu", norm_eps=0.1),
    "convolutions, layer norm, elu": ConvolutionalConfig(
        channels=(6, 5), kernel=3, hidden=(7,), norm="layer", activation="relu", filter_activation="elu"
    ),
    "convolutions, no norm, tanh": ConvolutionalConfig(
        channels=(6, 5), kernel=3, hidden=(7,), norm="none", filter_activation="tanh"
    ),
    "layer norm, its epsilon": RecurrentConfig(state=6, norm="layer", norm_eps=0.2),
    "ensemble of one shape": EnsembleConfig((RecurrentConfig(state=7), RecurrentConfig(state=7))),
    "pooled ensemble": EnsembleConfig((DenseConfig(hidden=(8,)), DenseConfig(hidden=(6,)), DenseConfig(hidden=(5, 4)))),
}
shapes = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def random_windows(n_songs: int) -> Floats:
    """Return windows (n_songs, 120, 25), each with a mean and a spread of its own."""
    windows = random_segments(n_songs * 120).reshape(n_songs, 120, 25)
    level, spread = np.random.default_rng(1).uniform(0.2, 2, (2, n_songs, 1, 1)).astype(np.float32)
    windows[..., :12] = windows[..., :12] * spread + 20 * level
    return windows


def session_of(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ort_logits(graph: onnx.ModelProto, windows: Floats) -> Floats:
    logits: Floats = session_of(graph).run(None, {"segments": windows})[0]
    return logits


def assert_exact(config: Config, lowering: Lowering = "scan") -> None:
    """Compare a graph of random weights with the plain reference, on ordinary songs and on edge cases."""
    network, windows = random_network(config), np.concatenate([random_windows(5), edge_windows()])
    expected = plain_logits(config, network, windows)
    found = ort_logits(graph_of(network, CLASSES, lowering), windows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@shapes
def test_a_folded_graph_is_the_plain_reference(config: Config) -> None:
    assert_exact(config)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(
    ("cell", "norm", "readout"),
    [*product(["rnn", "gru", "lstm"], ["batch", "layer", "none"], ["last", "pooled"])],
)
def test_every_recurrence_is_the_plain_reference(cell: Cell, norm: Norm, readout: Readout, lowering: Lowering) -> None:
    if (norm, lowering) != ("layer", "operator"):
        assert_exact(RecurrentConfig(cell=cell, norm=norm, readout=readout, state=6), lowering)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_state_may_be_the_logits(norm: Norm, lowering: Lowering) -> None:
    assert_exact(RecurrentConfig(state=len(CLASSES), norm=norm, readout="none", norm_eps=0.2), lowering)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_a_convolution_in_front_has_every_lowering(lowering: Lowering) -> None:
    assert_exact(HYBRID, lowering)


def test_a_network_has_the_lowerings_that_all_its_recurrences_have() -> None:
    layer_normed = RecurrentConfig(norm="layer", state=6)
    for config, expected in (
        (RecurrentConfig(state=6), ("scan", "unrolled", "operator")),
        (layer_normed, ("scan", "unrolled")),
        (EnsembleConfig((DenseConfig(hidden=(8,)), RecurrentConfig(state=7), layer_normed)), ("scan", "unrolled")),
        (CONVOLUTIONAL, ()),
        (DenseConfig(hidden=(8,)), ()),
    ):
        assert lowerings_of(random_network(config)) == expected


def test_a_layer_norm_has_no_place_in_the_operator() -> None:
    with pytest.raises(ConfigError, match="expected scan or unrolled for a layer-normed recurrence, found operator"):
        graph_of(random_network(RecurrentConfig(norm="layer", state=6)), CLASSES, "operator")


@shapes
def test_a_graph_says_what_torch_says_whatever_the_batch(config: Config) -> None:
    network, windows = random_network(config), random_windows(256)
    expected, session = network_logits(network, windows), session_of(graph_of(network, CLASSES))
    assert expected.std(axis=0).min() > 10 * TOLERANCE  # The songs do make a difference.
    for batch in (1, 7, 256):
        (found,) = session.run(None, {"segments": windows[:batch]})
        assert found.shape == (batch, len(CLASSES))
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=TOLERANCE)


@shapes
def test_a_graph_carries_its_classes_and_features(config: Config) -> None:
    graph = graph_of(random_network(config), ("pop rock", "jazz", "blues", "folk"))
    session = session_of(graph)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["classes"].split("\t") == ["pop rock", "jazz", "blues", "folk"]
    assert metadata["features"].split("\t") == list(FEATURE_NAMES)
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [("segments", [120, 25])]
    assert [(one.name, one.shape[1:]) for one in session.get_outputs()] == [("logits", [4])]
    assert (graph.ir_version, [one.version for one in graph.opset_import]) == (8, [17])


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_bare_onnxruntime_names_the_genre_of_raw_segments(bundle: Path, role: str) -> None:
    genres = draw_genres(len(CLASSES), 0, EASY)
    songs, labels = draw_songs(300, genres, EASY, np.random.default_rng(99))
    session = onnxruntime.InferenceSession(bundle / f"{role}.onnx", providers=["CPUExecutionProvider"])
    classes = session.get_modelmeta().custom_metadata_map["classes"].split("\t")
    (logits,) = session.run(None, {"segments": songs})
    right = [classes[best] == genre_name(label) for best, label in zip(logits.argmax(axis=1), labels, strict=True)]
    assert np.mean(right) > 0.4  # Chance is 0.25, and 300 songs spread by 0.025.


@given(seed=st.integers(0, 2**32 - 1), n_inputs=st.integers(1, 6), n_outputs=st.integers(1, 6))
def test_folding_scales_and_shifts_changes_nothing(seed: int, n_inputs: int, n_outputs: int) -> None:
    rng = np.random.default_rng(seed)
    affine = Affine(rng.normal(size=(n_inputs, n_outputs)), rng.normal(size=n_outputs))
    x = rng.normal(size=(5, n_inputs))
    scale_in, shift_in = rng.normal(size=(2, n_inputs))
    scale_out, shift_out = rng.normal(size=(2, n_outputs))
    folded = affine.after(scale_in, shift_in).then(scale_out, shift_out)
    expected = ((x * scale_in + shift_in) @ affine.weight + affine.bias) * scale_out + shift_out
    np.testing.assert_allclose(x @ folded.weight + folded.bias, expected, atol=1e-12)
