"""Write an ONNX graph operator by operator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segue.data.song import N_FEATURES, WINDOW

# The lowest opset with a layer norm, and the IR version that came with it: ONNX Runtime reads both since 1.12, and the
# oldest one that Segue supports, 1.19, reads up to opset 21 and IR version 10.
OPSET, IR_VERSION = 17, 8
SEGMENTS, LOGITS = "segments", "logits"


class Writer:
    """A graph that grows; its values go by the names that `op` and `tensor` return."""

    def __init__(self, outer: "Writer | None" = None) -> None:
        """Start an empty graph, or the body of a loop in the graph `outer`, whose values it sees."""
        self.nodes: list[onnx.NodeProto] = []
        self._outer = outer
        self._tensors: dict[bytes, onnx.TensorProto] = {}
        self._names = 0
        self._shapes: list[onnx.ValueInfoProto] = []

    def op(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Append an operator and return the name of its output, or of the first of `outputs`."""
        names = list(outputs) or [self.name(kind)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def shaped(self, value: str, *shape: str | int) -> str:
        """State the shape of a real value that cannot be inferred, "n" for the number of songs; return the value.

        ONNX Runtime shares memory between values of known shapes only. Where all of an unrolled recurrence's are
        unknown, planning their memory takes it seconds.
        """
        self._shapes.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
        return value

    def split(self, value: str, n: int, *, axis: int) -> list[str]:
        """Return `n` equal parts of a value along an axis."""
        names = [self.name("Part") for _ in range(n)]
        self.op("Split", value, outputs=names, axis=axis)
        return names

    def tensor(self, values: NDArray[np.generic]) -> str:
        """Return the name of a constant: real numbers become float32, whole ones stay; equal ones are kept once."""
        if self._outer is not None:
            return self._outer.tensor(values)
        kind = np.float32 if values.dtype.kind == "f" else values.dtype
        made = numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind).reshape(values.shape))
        key = made.SerializeToString()
        if key not in self._tensors:
            made.name = self.name("tensor")
            self._tensors[key] = made
        return self._tensors[key].name

    def ints(self, *values: int) -> str:
        """Return the name of a constant of whole numbers, (n,)."""
        return self.tensor(np.array(values, dtype=np.int64))

    def body(self) -> "Writer":
        """Return a writer for the body of a loop in this graph."""
        return Writer(self)

    def name(self, kind: str) -> str:
        """Return a name that no other value of this graph has."""
        if self._outer is not None:
            return self._outer.name(kind)
        self._names += 1
        return f"{kind.lower()}_{self._names}"

    def model(self, name: str, n_classes: int, metadata: dict[str, str]) -> onnx.ModelProto:
        """Return the finished, checked model from raw `segments` (n, 120, 25) to `logits` (n, n_classes)."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(SEGMENTS, TensorProto.FLOAT, ["n", WINDOW, N_FEATURES])],
            [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", n_classes])],
            list(self._tensors.values()),
            value_info=self._shapes,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="segue"
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model
