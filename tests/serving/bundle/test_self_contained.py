"""Models that keep weights in other files: found wherever in the graph, and refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segue.errors import BundleError
from segue.serving.bundle.self_contained import check_self_contained
from segue.serving.runtime import OnnxModel

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def inside(name: str = "weights") -> onnx.TensorProto:
    return numpy_helper.from_array(WEIGHTS, name)


def elsewhere(name: str = "weights") -> onnx.TensorProto:
    """Return a tensor whose values are in another file, as `onnx.save_model(save_as_external_data=True)` writes it."""
    tensor = inside(name)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return tensor


def marked_only(name: str = "weights") -> onnx.TensorProto:
    """Return a tensor that is marked as external and says no place."""
    tensor = inside(name)
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def placed_only(name: str = "weights") -> onnx.TensorProto:
    """Return a tensor that has a place and no mark."""
    tensor = elsewhere(name)
    tensor.ClearField("data_location")
    return tensor


def in_memory(name: str = "weights") -> onnx.TensorProto:
    """Return a tensor that names an address in the memory of whoever loads it, as ONNX Runtime marks its own."""
    tensor = inside(name)
    onnx.external_data_helper.set_external_data(tensor, "*/_ORT_MEM_ADDR_/*", offset=4096, length=48)
    tensor.ClearField("raw_data")
    return tensor


def graph(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "graph", [], [], list(tensors))


def as_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph(tensors=(inside("first"), tensor)))


def as_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph(helper.make_node("Constant", [], ["c"], value=tensor)))


def in_a_list_of_tensors(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph(helper.make_node("Many", [], ["c"], values=[inside(), tensor])))


def in_a_branch_of_a_loop(tensor: onnx.TensorProto) -> onnx.ModelProto:
    branch = helper.make_node("If", ["yes"], ["c"], then_branch=graph(), else_branch=graph(tensors=(tensor,)))
    return helper.make_model(graph(helper.make_node("Loop", ["n", ""], ["x"], body=graph(branch))))


def in_a_list_of_graphs(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph(helper.make_node("Many", [], ["c"], bodies=[graph(), graph(tensors=(tensor,))])))


def as_sparse_values(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = helper.make_model(graph())
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, inside("indices"), [100]))
    return model


def as_sparse_indices_of_a_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    sparse = helper.make_sparse_tensor(inside("values"), tensor, [100])
    return helper.make_model(graph(helper.make_node("Constant", [], ["c"], sparse_value=sparse)))


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    function = helper.make_function("own", "Own", [], ["c"], [node], [helper.make_opsetid("", 20)])
    return helper.make_model(graph(), functions=[function])


def as_default_of_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    default = helper.make_attribute("value", tensor)
    function = helper.make_function(
        "own", "Own", [], ["c"], [], [helper.make_opsetid("", 20)], attribute_protos=[default]
    )
    return helper.make_model(graph(), functions=[function])


def in_training_information(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = helper.make_model(graph())
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


PLACES = (
    as_initializer, as_constant, in_a_list_of_tensors, in_a_branch_of_a_loop, in_a_list_of_graphs, as_sparse_values,
    as_sparse_indices_of_a_constant, in_a_function, as_default_of_a_function, in_training_information,
)  # fmt: skip


@pytest.mark.parametrize("tensor", [elsewhere, marked_only, placed_only, in_memory])
@pytest.mark.parametrize("place", PLACES)
def test_weights_in_another_file_are_found_wherever_they_are(
    place: Callable[[onnx.TensorProto], onnx.ModelProto], tensor: Callable[..., onnx.TensorProto]
) -> None:
    check_self_contained(place(inside()).SerializeToString(), "model.onnx")
    message = r"model\.onnx: expected all weights inside the file, found those of 'weights' in another one"
    with pytest.raises(BundleError, match=message):
        check_self_contained(place(tensor()).SerializeToString(), "model.onnx")


def test_a_model_saved_with_external_data_is_not_opened(bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(bundle / "teacher.onnx")
    onnx.save_model(model, tmp_path / "teacher.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(BundleError, match=r"teacher\.onnx: expected all weights inside the file"):
        OnnxModel((tmp_path / "teacher.onnx").read_bytes(), "teacher.onnx")


def test_the_models_of_a_bundle_are_self_contained(bundle: Path) -> None:
    for file in bundle.glob("*.onnx"):
        check_self_contained(file.read_bytes(), file.name)


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\x05\x00",  # A graph of 5 bytes, of which 1 is there.
        b"\x3a",  # A field and no length.
        b"\xff" * 11,  # A number without an end.
        b"\x0b",  # A group, which ONNX has none of.
        b"ORTM" * 8,
    ],
)
def test_bytes_that_are_not_onnx_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: expected an ONNX model, found other bytes, or one cut off"):
        check_self_contained(content, "model.onnx")
