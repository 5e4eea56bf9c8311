"""The exported graphs: against a plain float64 reference, against torch, and alone in ONNX Runtime."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from training.standardise import Standardise
from training.student import StudentConfig
from training.teacher import TeacherConfig

from data.song import FEATURE_NAMES, Floats
from data.synth import draw_genres, draw_songs, genre_name
from export.graph import Affine, graph_of
from export.parity import network_logits
from tests.bundles import CLASSES, EASY
from tests.random_songs import random_segments
from training.networks import Config, Network, build

Array = NDArray[np.float64]
Weights = dict[str, Array]

CONFIGS: dict[str, Config] = {
    "teacher": TeacherConfig(state=16),
    "flat": StudentConfig(look="flat", hidden=32),
    "pooled": StudentConfig(look="pooled", hidden=32),
}
TEACHER_EPS, STUDENT_EPS = 1e-3, 1e-5  # Ours, and torch's default.
kinds = pytest.mark.parametrize("kind", CONFIGS)


def random_network(kind: str) -> Network:
    """Return a network in eval mode whose every weight, statistic and parameter is a random number."""
    network = build(CONFIGS[kind], len(CLASSES), Standardise())
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator)
            matrix = tensor.ndim == 2
            positive = name.endswith(("running_var", "deviation"))
            # Small enough a recurrence that rounding errors fade instead of growing over 120 steps.
            tensor.copy_(0.5 + drawn.abs() if positive else drawn * 0.5 / tensor.shape[1] ** 0.5 if matrix else drawn)
    network.standardise.deviation *= 30
    return network.eval()


def random_windows(n_songs: int) -> Floats:
    """Return windows (n_songs, 120, 25), each with a mean and a spread of its own."""
    windows = random_segments(n_songs * 120).reshape(n_songs, 120, 25)
    level, spread = np.random.default_rng(1).uniform(0.2, 2, (2, n_songs, 1, 1)).astype(np.float32)
    windows[..., :12] = windows[..., :12] * spread + 20 * level
    return windows


def normed(x: Array, weights: Weights, name: str, eps: float) -> Array:
    scaled = (x - weights[f"{name}.running_mean"]) / np.sqrt(weights[f"{name}.running_var"] + eps)
    return scaled * weights.get(f"{name}.weight", 1.0) + weights.get(f"{name}.bias", 0.0)


def pooled(song: Array) -> Array:
    covariance = np.cov(song, rowvar=False, bias=True)
    change = np.mean([np.abs(later - earlier) for earlier, later in pairwise(song)], axis=0)
    pairs = [covariance[i, j] for i in range(25) for j in range(i + 1, 25)]
    return np.concatenate([song.mean(axis=0), song.std(axis=0), change, pairs])


def plain_logits(kind: str, weights: Weights, windows: Floats) -> Array:
    """Return the logits of a network by the formulas of the study, nothing folded."""
    songs = (windows.astype(np.float64) - weights["standardise.mean"]) / weights["standardise.deviation"]
    if kind == "teacher":
        hidden = np.zeros((len(songs), len(weights["cell.recurrent.weight"])))
        for step in range(120):
            affine = songs[:, step] @ weights["input.weight"].T + hidden @ weights["cell.recurrent.weight"].T
            hidden = np.tanh(normed(affine, weights, "cell.norm", TEACHER_EPS))
    else:
        seen = songs.reshape(-1, 3000) if kind == "flat" else np.array([pooled(song) for song in songs])
        affine = normed(seen, weights, "input_norm", STUDENT_EPS) @ weights["hidden.weight"].T + weights["hidden.bias"]
        hidden = np.tanh(normed(affine, weights, "hidden_norm", STUDENT_EPS))
    logits: Array = hidden @ weights["readout.weight"].T + weights["readout.bias"]
    return logits


def session_of(graph: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def ort_logits(graph: onnx.ModelProto, windows: Floats) -> Floats:
    logits: Floats = session_of(graph.SerializeToString()).run(None, {"segments": windows})[0]
    return logits


@kinds
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_a_folded_graph_is_the_plain_reference(kind: str, batch: int) -> None:
    network, windows = random_network(kind), random_windows(batch)
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in network.state_dict().items()}
    expected = plain_logits(kind, weights, windows)
    found = ort_logits(graph_of(network, CLASSES), windows)
    assert found.dtype == np.float32
    assert found.shape == (batch, len(CLASSES))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@kinds
def test_a_graph_says_what_torch_says_of_a_thousand_songs(kind: str) -> None:
    network, windows = random_network(kind), random_windows(1000)
    found = ort_logits(graph_of(network, CLASSES), windows)
    np.testing.assert_allclose(found, network_logits(network, windows), rtol=0, atol=1e-4)
    assert found.std(axis=0).min() > 100 * 1e-4  # The songs do make a difference.


@kinds
def test_a_graph_carries_its_classes_and_features(kind: str) -> None:
    session = session_of(graph_of(random_network(kind), ("pop rock", "jazz", "blues", "folk")).SerializeToString())
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["classes"].split("\t") == ["pop rock", "jazz", "blues", "folk"]
    assert metadata["features"].split("\t") == list(FEATURE_NAMES)
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [("segments", [120, 25])]
    assert [one.name for one in session.get_outputs()] == ["logits"]


def test_a_graph_needs_no_newer_runtime_than_it_says() -> None:
    for kind in CONFIGS:
        graph = graph_of(random_network(kind), CLASSES)
        assert (graph.ir_version, [one.version for one in graph.opset_import]) == (8, [17])


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_bare_onnxruntime_names_the_genre_of_raw_segments(bundle: Path, kind: str) -> None:
    genres = draw_genres(len(CLASSES), 0, EASY)
    songs, labels = draw_songs(300, genres, EASY, np.random.default_rng(99))
    session = onnxruntime.InferenceSession(bundle / f"{kind}.onnx", providers=["CPUExecutionProvider"])
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
