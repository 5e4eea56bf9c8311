"""The form that is shipped: the fastest of those that are right, and the manifest says why not the others."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from segue.data.song import Floats, Ints
from segue.errors import ConfigError
from segue.export.forms import FormsConfig, Job, Shipped, ship
from segue.export.graphs.build import graph_of
from segue.export.parity import ParityError, network_logits
from segue.serving.bundle.manifest import Form, Rounding
from segue.serving.cascade import Model
from segue.training.networks.build import Config
from segue.training.networks.dense import DenseConfig
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from tests.export.test_graphs import random_windows
from tests.support.bundles import CLASSES
from tests.support.plain_networks import random_network

RNN = RecurrentConfig(state=8)
Timed = Callable[..., list[dict[int, float]]]


def job_for(config: Config) -> Job:
    network, windows = random_network(config), random_windows(40)
    labels = network_logits(network, windows).argmax(axis=1)
    return Job("teacher", network, CLASSES, windows[:20], windows, labels)


def timed_as(*speeds: tuple[float, ...]) -> Timed:
    """Return a stopwatch that finds these songs/s, at batches of 1 and 256, in the order the forms are tried."""

    def songs_per_s_in_turn(models: Sequence[Model], windows: Floats, *, budget_s: float) -> list[dict[int, float]]:
        assert len(models) == len(speeds)
        return [{1: one, 256: many} for one, many in speeds]

    return songs_per_s_in_turn


def shipped_with(monkeypatch: pytest.MonkeyPatch, timed: Timed, config: Config, out: Path, **options: Any) -> Shipped:
    monkeypatch.setattr("segue.export.forms.songs_per_s_in_turn", timed)
    shipped = ship(job_for(config), out / "model.onnx", FormsConfig(**options))
    assert [file.name for file in out.iterdir()] == ["model.onnx"]
    return shipped


def names(forms: Sequence[Form]) -> list[tuple[str | None, str]]:
    return [(form.lowering, form.precision) for form in forms]


def test_the_form_with_the_largest_geometric_mean_of_songs_per_s_is_shipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed = timed_as((100, 4000), (300, 2000), (1000, 500))  # Products: 400,000, 600,000 and 500,000.
    found = shipped_with(monkeypatch, timed, RNN, tmp_path, int8="never")
    assert (found.form.lowering, found.form.precision, found.form.why_not) == ("unrolled", "fp32", None)
    assert found.form.songs_per_s == {1: 300, 256: 2000}
    assert names(found.rejected) == [("scan", "fp32"), ("operator", "fp32")]
    assert [form.why_not for form in found.rejected] == ["0.82 times as fast", "0.91 times as fast"]
    assert all(form.parity and form.parity.difference < 1e-4 for form in (found.form, *found.rejected))
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "Split" in kinds
    assert not kinds & {"Scan", "RNN"}


@pytest.mark.parametrize(("lowering", "operator"), [("scan", "Scan"), ("unrolled", "Split"), ("operator", "RNN")])
def test_a_lowering_can_be_forced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lowering: str, operator: str
) -> None:
    found = shipped_with(monkeypatch, timed_as((1, 1)), RNN, tmp_path, lowering=lowering, int8="never")
    assert (found.form.lowering, found.rejected) == (lowering, ())
    assert operator in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_int8_is_shipped_where_it_is_right_and_worth_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = DenseConfig(look="flat", hidden=(64,))
    labels = job_for(config).validation_labels

    def accurate(*_: object) -> Rounding:
        return Rounding(len(labels), 0.99, 0.2, (-1.0, 1.0), 0.0)

    monkeypatch.setattr("segue.export.forms.compare_rounded", accurate)
    found = shipped_with(monkeypatch, timed_as((100, 100), (120, 120), (90, 90)), config, tmp_path)
    assert (found.form.lowering, found.form.precision) == (None, "int8_static")
    assert found.form.rounding == accurate()
    assert names(found.rejected) == [(None, "fp32"), (None, "int8_dynamic")]
    assert [form.why_not for form in found.rejected] == ["0.83 times as fast", "0.75 times as fast"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert session.get_modelmeta().custom_metadata_map["classes"].split("\t") == list(CLASSES)


def test_int8_that_is_hardly_faster_is_not_worth_its_rounding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("segue.export.forms.compare_rounded", lambda *_: Rounding(40, 1.0, 0.0, (-1.0, 1.0), 0.0))
    found = shipped_with(monkeypatch, timed_as((100, 100), (105, 105), (9, 9)), DenseConfig(hidden=(8,)), tmp_path)
    assert found.form.precision == "fp32"
    assert found.rejected[0].why_not == "1.05 times as fast, rounding must give 1.1"


def test_int8_that_costs_accuracy_is_neither_timed_nor_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("segue.export.forms.compare_rounded", lambda *_: Rounding(40, 0.9, 2.5, (-1.0, 6.0), 0.0))
    found = shipped_with(monkeypatch, timed_as((1, 1)), DenseConfig(hidden=(8,)), tmp_path)
    assert found.form.precision == "fp32"
    for form in found.rejected:
        assert form.songs_per_s == {}
        assert str(form.why_not).startswith("costs 2.5 points of accuracy (-1.0 to 6.0) on 40 validation songs")
    cheap, dense = timed_as((1, 1), (2, 2), (3, 3)), DenseConfig(hidden=(8,))
    looser = shipped_with(monkeypatch, cheap, dense, tmp_path, int8_points=3.0, int8_agreement=0.9)
    assert looser.form.precision == "int8_dynamic"


def test_a_form_that_is_wrong_is_left_out_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def graph_with_a_bug(network: Network, classes: tuple[str, ...], lowering: Any, *int8: Any) -> onnx.ModelProto:
        model = graph_of(network, classes, lowering, *int8)
        if lowering == "scan":
            for tensor in model.graph.initializer:
                if tensor.data_type == 1 and tensor.dims:
                    tensor.CopyFrom(
                        numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name)
                    )
        return model

    monkeypatch.setattr("segue.export.forms.graph_of", graph_with_a_bug)
    found = shipped_with(monkeypatch, timed_as((1, 1), (2, 2)), RNN, tmp_path, int8="never")
    assert found.form.lowering == "operator"
    assert names(found.rejected) == [("scan", "fp32"), ("unrolled", "fp32")]
    assert str(found.rejected[0].why_not).startswith("teacher: expected logits within 0.0001")
    assert found.rejected[0].parity is None
    assert "teacher, lowering scan: teacher: expected logits within 0.0001" in caplog.text
    with pytest.raises(ParityError):
        ship(job_for(RNN), tmp_path / "forced.onnx", FormsConfig(lowering="scan"))


def test_without_validation_songs_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("segue.export.forms.songs_per_s_in_turn", timed_as((1, 1)))
    job = job_for(DenseConfig(hidden=(8,)))
    none: Ints = np.zeros(0, dtype=np.int64)
    without = Job(job.role, job.network, job.classes, job.parity_windows, job.validation_windows[:0], none)
    assert ship(without, tmp_path / "model.onnx").rejected == ()


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ({"int8_points": -1}, "int8_points: expected 0 up to 100, found -1"),
        ({"int8_agreement": 98}, "int8_agreement: expected 0 to 1, found 98"),
    ],
)
def test_a_tolerance_that_is_none_is_refused(tolerance: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FormsConfig(**tolerance)  # type: ignore[arg-type]
