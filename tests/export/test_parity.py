"""Parity: no bundle whose graphs say anything else than the trained networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from segue.data.song import CHROMA, LOUDNESS, Floats, check_segments
from segue.export.export import export
from segue.export.graphs.build import graph_of
from segue.export.parity import ParityError, check_parity, edge_windows, network_logits
from segue.training.networks.dense import DenseNetwork
from segue.training.networks.network import Network
from segue.training.runs import load_run
from tests.support.random_songs import random_segments

Change = Callable[[Floats, Floats], Floats]  # Of windows and their logits.


class Changed:
    """A model that says what `network` says, changed."""

    def __init__(self, network: Network, change: Change) -> None:
        self._network, self._change = network, change

    def logits(self, windows: Floats) -> Floats:
        return self._change(windows, network_logits(self._network, windows).copy())


def unchanged(_: Floats, logits: Floats) -> Floats:
    return logits


def slightly_off(_: Floats, logits: Floats) -> Floats:
    logits[-1, 1] += 5e-5
    return logits


def off_alone(windows: Floats, logits: Floats) -> Floats:
    return logits + 2e-4 if len(windows) == 1 else logits


def off_in_large_batches(windows: Floats, logits: Floats) -> Floats:
    return logits + 2e-4 if len(windows) > 7 else logits


def off_in_silence(windows: Floats, logits: Floats) -> Floats:
    logits[(windows == 0).all(axis=(1, 2))] += 1
    return logits


def not_a_number(_: Floats, logits: Floats) -> Floats:
    logits[0, 0] = np.nan
    return logits


@pytest.fixture(scope="module")
def network(student_run: Path) -> Network:
    return load_run(student_run, "student")[1]


@pytest.fixture(scope="module")
def windows() -> Floats:
    return random_segments(300 * 120).reshape(300, 120, 25)


@pytest.mark.parametrize(("change", "parity"), [(unchanged, 0.0), (slightly_off, 5e-5)])
def test_parity_is_the_largest_difference(network: Network, windows: Floats, change: Change, parity: float) -> None:
    found = check_parity("student", network, Changed(network, change), windows)
    assert found.difference == pytest.approx(parity, abs=2e-6)
    assert (found.agreement, found.songs, found.edge_songs, found.batches) == (1.0, 300, 8, (1, 7, 256))


def test_parity_counts_the_songs_with_the_same_class(windows: Floats) -> None:
    class Undecided(Network):
        def forward(self, segments: Tensor) -> Tensor:
            logits = torch.zeros(len(segments), 3)
            logits[:, 0] = 1e-5
            return logits

    def loud_ones(windows: Floats, logits: Floats) -> Floats:
        logits[windows[:, 0, LOUDNESS] > -30, 1] = 2e-5
        return logits

    network = Undecided()
    found = check_parity("student", network, Changed(network, loud_ones), windows)
    assert found.difference == pytest.approx(2e-5)
    assert found.agreement == pytest.approx((windows[:, 0, LOUDNESS] <= -30).mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (off_alone, "within 0.0001 .* at batch 1, found a difference of 0.0002"),
        (off_in_large_batches, "at batch 256, found a difference of 0.0002"),
        (off_in_silence, "found a difference of 1 in song 1 of 8"),
        (not_a_number, "found a difference of nan in song 0"),
    ],
)
def test_a_difference_is_refused_wherever_it_shows(
    network: Network, windows: Floats, change: Change, message: str
) -> None:
    with pytest.raises(ParityError, match=f"student: expected logits .*{message}"):
        check_parity("student", network, Changed(network, change), windows)


def test_few_songs_fill_large_batches_too(network: Network, windows: Floats) -> None:
    with pytest.raises(ParityError, match=r"at batch 256, found a difference of 0.0002"):
        check_parity("student", network, Changed(network, off_in_large_batches), windows[:20])


def test_edge_songs_are_legal() -> None:
    for number, segments in enumerate(edge_windows()):
        check_segments(segments, f"edge {number}")
    constant = (edge_windows() == edge_windows()[:, :1]).all(axis=(1, 2))
    assert constant.sum() == 5  # Silence, zeros, the loudest, a note held, a far timbre held.
    assert edge_windows()[:, :, LOUDNESS].min() == -60
    assert edge_windows()[:, :, CHROMA].max() == 1


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_damaged_weight_is_refused_and_nothing_is_written(
    student_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, value: float
) -> None:
    def damaged_graph_of(network: Network, classes: tuple[str, ...], *form: Any) -> onnx.ModelProto:
        model = graph_of(network, classes, *form)
        if isinstance(network, DenseNetwork) == (role == "student"):
            readout = [node for node in model.graph.node if node.op_type == "Gemm"][-1].input[1]
            weights = next(one for one in model.graph.initializer if one.name == readout)
            values = numpy_helper.to_array(weights).copy()
            values[0, 0] += value
            weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        return model

    monkeypatch.setattr("segue.export.forms.graph_of", damaged_graph_of)
    with pytest.raises(ParityError, match=f"{role}: expected logits within 0.0001 of the trained network's"):
        export(student_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
