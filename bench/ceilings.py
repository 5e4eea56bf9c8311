"""What the machine can do at most, beside which a model's speed is set: products of matrices, and copies of memory.

A model of F operations and B bytes a call can take no less than the longer of F over the rate of products and B over
the rate of copies. An int8 model may be faster than that, for bytes multiply faster; so may one whose weights stay in
the processor's cache.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from segue.data.song import N_FEATURES, WINDOW
from segue.serving.runtime import onnxruntime

SIDE = 1024  # Rows and columns of the matrices.
PRODUCT_FLOP = 2 * SIDE**3
COPY_BYTES = 64 * 2**20  # More than a cache holds.
WINDOW_BYTES = WINDOW * N_FEATURES * 4
PROFILED_WINDOWS = 8


def matrix_product(threads: int) -> Callable[[], None]:
    """Return a call that multiplies two float32 matrices with so many threads: `PRODUCT_FLOP` operations."""
    left, right = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), dtype=np.float32)
    out = np.empty_like(left)

    def product() -> None:
        with threadpool_limits(threads, "blas"):
            np.matmul(left, right, out=out)

    return product


def memory_copy() -> Callable[[], None]:
    """Return a call that copies `COPY_BYTES` with one thread."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def flop_per_window(model: bytes) -> float | None:
    """Return the operations of all matrix products that an ONNX model makes for a window of 120 segments.

    ONNX Runtime's profiler tells the shapes of the products it ran, fused and rounded ones too, inside a `Scan` too.
    None where a convolution was among the operators, whose weights the profiler does not tell.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 3
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {"segments": np.zeros((PROFILED_WINDOWS, WINDOW, N_FEATURES), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    flop = 0
    for event in events:
        arguments = event.get("args", {})
        if "input_type_shape" not in arguments or not event["name"].endswith("_kernel_time"):
            continue
        if "Conv" in arguments["op_name"]:
            return None
        flop += _flop(arguments["op_name"], *(map(_shapes, _in_and_out(arguments))))
    return flop / PROFILED_WINDOWS


def _in_and_out(arguments: dict[str, Any]) -> tuple[list[dict[str, list[int]]], list[dict[str, list[int]]]]:
    return arguments["input_type_shape"], arguments["output_type_shape"]


def _shapes(described: list[dict[str, list[int]]]) -> list[list[int]]:
    return [shape for one in described for shape in one.values()]


def _flop(operator: str, inputs: list[list[int]], outputs: list[list[int]]) -> int:
    if "MatMul" in operator or "Gemm" in operator:
        (*outer, _, columns), factor = outputs[0], inputs[0]
        return 2 * prod(outer) * prod(factor[-2:]) * columns
    if operator in ("RNN", "GRU", "LSTM"):
        (steps, songs, _), weights, recurrent = inputs[:3]
        return 2 * steps * songs * (prod(weights) + prod(recurrent))
    return 0
