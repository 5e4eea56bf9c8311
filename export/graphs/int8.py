"""Products of 8-bit integers, which a processor does two to four times as fast as those of floats.

Both sides are rounded evenly around zero. A weight has a step for each output, and 7 bits: two of its products with a
byte then fit into the 16 bits in which processors without VNNI add them up, so that every machine says the same. An
input has one step for all: known beforehand (static), or found anew for every batch (dynamic).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from segue.data.song import Floats
from segue.export.graphs.affine import Doubles
from segue.export.graphs.writer import Writer
from segue.training.networks.network import Network

WEIGHT_STEPS = 63
LEAST_STEP = 1e-20
MOST_BIAS_STEPS = 2**30
INPUT_STEPS = 127
WINDOWS_AT_ONCE = 256  # Through the network, which keeps what it computes for all of them.
OUTSIDE = 1e-4  # Share of the inputs beyond the ends of a static range.


@dataclass(frozen=True)
class Int8:
    """How inputs are rounded."""

    ranges: Literal["static", "dynamic"]
    windows: Floats  # Raw windows (n, 120, 25) that static ranges are taken from.

    def product(self, writer: Writer, values: str, weight: Doubles, reach: float, bias: Doubles | None = None) -> str:
        """Return values (n, n_inputs) @ weight (n_inputs, n_outputs) + bias (n_outputs,), weight and values rounded.

        With static ranges, values beyond `reach` count as if they were there.
        """
        steps = np.maximum(np.abs(weight).max(axis=0) / WEIGHT_STEPS, LEAST_STEP)
        if self.ranges == "static":
            return _static(writer, values, weight, steps, reach / INPUT_STEPS, bias)
        product = _dynamic(writer, values, weight, steps)
        return product if bias is None else writer.op("Add", product, writer.tensor(bias))

    def reach(self, network: Network, part: nn.Module) -> float:
        """Return the end of the static range of what a part of a network makes of the windows."""
        read: list[Tensor] = []

        def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            read.append(output)

        hook = part.register_forward_hook(keep)
        with torch.inference_mode():
            for some in torch.split(torch.tensor(self.windows), WINDOWS_AT_ONCE):
                network.eval()(some)
        hook.remove()
        return float(np.quantile(torch.cat(read).abs().numpy(), 1 - OUTSIDE))


def _static(writer: Writer, values: str, weight: Doubles, steps: Doubles, step: float, bias: Doubles | None) -> str:
    """Return the product where the step of the inputs is known.

    What is dequantised and multiplied, ONNX Runtime multiplies as bytes and never dequantises; for that a bias must be
    a whole number of steps, which fits into 32 bits where the steps of a dead output are not too small.
    """
    op, tensor = writer.op, writer.tensor
    if bias is not None:
        steps = np.maximum(steps, np.abs(bias) / (MOST_BIAS_STEPS * step))
    size, zero = tensor(np.array(step)), tensor(np.array(INPUT_STEPS + 1, dtype=np.uint8))
    inputs = op("DequantizeLinear", op("QuantizeLinear", values, size, zero), size, zero)
    zeros = tensor(np.zeros(len(steps), np.int8))
    columns = op("DequantizeLinear", tensor(_rounded(weight, steps)), tensor(steps), zeros, axis=1)
    if bias is None:
        return op("MatMul", inputs, columns)
    whole = tensor(np.round(bias / (steps * step)).astype(np.int32))
    return op("Gemm", inputs, columns, op("DequantizeLinear", whole, tensor(steps * step), axis=0))


def _dynamic(writer: Writer, values: str, weight: Doubles, steps: Doubles) -> str:
    """Return the product where every batch has its own step."""
    op, tensor = writer.op, writer.tensor
    names = [writer.name(part) for part in ("bytes", "step", "zero")]
    bytes_, step, zero = op("DynamicQuantizeLinear", values, outputs=names), *names[1:]
    sums = op("MatMulInteger", bytes_, tensor(_rounded(weight, steps)), zero, tensor(np.zeros((), np.int8)))
    return op("Mul", op("Cast", sums, to=TensorProto.FLOAT), op("Mul", step, tensor(steps)))


def _rounded(weight: Doubles, steps: Doubles) -> NDArray[np.int8]:
    return np.round(weight / steps).astype(np.int8)
