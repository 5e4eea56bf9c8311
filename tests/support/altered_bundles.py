"""Other versions of a bundle: of the same models, of models that say the opposite, and of models that never end."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.write import write_manifest


def relicense(bundle: Path, licence: str = "of another version") -> str:
    """Make another version of a bundle, of the same models, and return its name."""
    return write_manifest(bundle, replace(load_bundle(bundle).manifest, licence=licence)).version


def negate(bundle: Path, names: Sequence[str] = ("student", "teacher")) -> str:
    """Let models of a bundle say the opposite, and return the new version."""
    return _extend(bundle, names, lambda graph: graph.node.append(helper.make_node("Neg", ["before"], ["logits"])))


def make_endless(bundle: Path, name: str) -> str:
    """Let a model of a bundle turn in a loop for ever before it answers, and return the new version."""

    def loop(graph: onnx.GraphProto) -> None:
        graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [2**60]))
        graph.node.append(helper.make_node("Loop", ["turns", "", "before"], ["logits"], body=_do_nothing()))

    return _extend(bundle, [name], loop)


def _extend(bundle: Path, names: Sequence[str], change: Callable[[onnx.GraphProto], object]) -> str:
    manifest = load_bundle(bundle).manifest
    for name in names:
        model = onnx.load(bundle / f"{name}.onnx")
        for node in model.graph.node:
            node.output[:] = ["before" if one == "logits" else one for one in node.output]
        change(model.graph)
        onnx.save(model, bundle / f"{name}.onnx")
    return write_manifest(bundle, manifest).version


def _do_nothing() -> onnx.GraphProto:
    """Return the body of a loop that hands on what it is given."""
    value = helper.make_tensor_value_info
    inputs = [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("in", 1, None)]
    outputs = [value("go_on", TensorProto.BOOL, []), value("out", 1, None)]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["in"], ["out"])]
    return helper.make_graph(nodes, "do_nothing", inputs, outputs)
