"""Trained networks as ONNX graphs: raw `segments` (n, 120, 25) in, `logits` (n, n_classes) out.

Standardisation and batch normalisation are affine at inference, so they fold exactly into the affine maps beside them:
a batch-normed RNN leaves as a plain tanh RNN. The recurrence is lowered to `Scan` with the input product of all steps
done before it, as one product; that is 3 to 4 times faster than ONNX Runtime's RNN operator, and leaves the steps free.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from torch import Tensor, nn
from training.standardise import Standardise
from training.student import VARIANCE_FLOOR, PooledLook, Student
from training.teacher import Teacher

from data.song import FEATURE_NAMES, N_FEATURES, WINDOW
from training.networks import Network

# IR 8 and opset 17 are what the oldest ONNX Runtime we support reads.
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
SIGNATURE = f"(float[n,{WINDOW},{N_FEATURES}] segments) => (float[n,n_classes] logits)"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """x -> x @ weight + bias, in float64 while it is being folded."""

    weight: Doubles  # (n_inputs, n_outputs)
    bias: Doubles  # (n_outputs,)

    def then(self, scale: Doubles, shift: Doubles) -> "Affine":
        """Fold in an output that is scaled and shifted, each (n_outputs,)."""
        return Affine(self.weight * scale, self.bias * scale + shift)

    def after(self, scale: Doubles, shift: Doubles) -> "Affine":
        """Fold in an input that is scaled and shifted first, each (n_inputs,)."""
        return Affine(self.weight * scale[:, None], self.bias + shift @ self.weight)


def affine_of(linear: nn.Linear) -> Affine:
    """Return the map of a linear layer."""
    weight = _doubles(linear.weight).T
    return Affine(weight, np.zeros(weight.shape[1]) if linear.bias is None else _doubles(linear.bias))


def batch_norm_of(norm: nn.BatchNorm1d) -> tuple[Doubles, Doubles]:
    """Return the scale and shift, each (n,), that batch normalisation amounts to in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma = np.ones(norm.num_features) if norm.weight is None else _doubles(norm.weight)
    beta = np.zeros(norm.num_features) if norm.bias is None else _doubles(norm.bias)
    scale = gamma / np.sqrt(_doubles(norm.running_var) + norm.eps)
    return scale, beta - _doubles(norm.running_mean) * scale


def standardisation_of(standardise: Standardise) -> tuple[Doubles, Doubles]:
    """Return the scale and shift, each (25,), that standardisation amounts to."""
    scale = 1 / _doubles(standardise.deviation)
    return scale, -_doubles(standardise.mean) * scale


def graph_of(network: Network, classes: tuple[str, ...]) -> onnx.ModelProto:
    """Return the graph of a trained network, with the class and feature names inside, so that it can be used alone."""
    model = teacher_graph(network) if isinstance(network, Teacher) else student_graph(network)
    onnx.helper.set_model_props(model, {"classes": "\t".join(classes), "features": "\t".join(FEATURE_NAMES)})
    model.producer_name = "segue"
    return model


def teacher_graph(teacher: Teacher) -> onnx.ModelProto:
    """Return the graph of a trained teacher: one product for all inputs, then a scan of tanh(W h + driven)."""
    scale, shift = batch_norm_of(teacher.cell.norm)
    driven = affine_of(teacher.input).after(*standardisation_of(teacher.standardise)).then(scale, shift)
    recurrent = affine_of(teacher.cell.recurrent).weight * scale
    readout = affine_of(teacher.readout)
    return _model(
        f"""{HEADER} teacher {SIGNATURE} {{
            by_step = Transpose <perm = [1, 0, 2]> (segments)
            products = MatMul (by_step, input_weight)
            driven = Add (products, input_bias)
            n_songs = Shape <start = 0, end = 1> (segments)
            state_size = Constant <value_ints = [{len(recurrent)}]> ()
            state_shape = Concat <axis = 0> (n_songs, state_size)
            start = ConstantOfShape (state_shape)
            final = Scan <num_scan_inputs = 1, body = step (float[n,s] h, float[n,s] a) => (float[n,s] next) {{
                recurrent = MatMul (h, recurrent_weight)
                sum = Add (recurrent, a)
                next = Tanh (sum)
            }}> (start, driven)
            logits = Gemm (final, readout_weight, readout_bias)
        }}""",
        input_weight=driven.weight,
        input_bias=driven.bias,
        recurrent_weight=recurrent,
        readout_weight=readout.weight,
        readout_bias=readout.bias,
    )


def student_graph(student: Student) -> onnx.ModelProto:
    """Return the graph of a trained student, flat or pooled."""
    hidden = (
        affine_of(student.hidden).after(*batch_norm_of(student.input_norm)).then(*batch_norm_of(student.hidden_norm))
    )
    readout = affine_of(student.readout)
    scale, shift = standardisation_of(student.standardise)
    if isinstance(student.look, PooledLook):
        return _pooled_graph(hidden, readout, scale, shift)
    hidden = hidden.after(np.tile(scale, WINDOW), np.tile(shift, WINDOW))
    return _model(
        f"""{HEADER} flat_student {SIGNATURE} {{
            seen = Flatten <axis = 1> (segments)
            sum = Gemm (seen, hidden_weight, hidden_bias)
            hidden = Tanh (sum)
            logits = Gemm (hidden, readout_weight, readout_bias)
        }}""",
        hidden_weight=hidden.weight,
        hidden_bias=hidden.bias,
        readout_weight=readout.weight,
        readout_bias=readout.bias,
    )


def _pooled_graph(hidden: Affine, readout: Affine, scale: Doubles, shift: Doubles) -> onnx.ModelProto:
    rows, columns = np.triu_indices(N_FEATURES, k=1)
    return _model(
        f"""{HEADER} pooled_student {SIGNATURE} {{
            scaled = Mul (segments, scale)
            standard = Add (scaled, shift)
            mean = ReduceMean <axes = [1], keepdims = 1> (standard)
            centred = Sub (standard, mean)
            turned = Transpose <perm = [0, 2, 1]> (centred)
            products = MatMul (turned, centred)
            covariance = Mul (products, one_over_steps)
            by_pair = Flatten <axis = 1> (covariance)
            variance = Gather <axis = 1> (by_pair, diagonal)
            floored = Max (variance, variance_floor)
            deviation = Sqrt (floored)
            covariances = Gather <axis = 1> (by_pair, above_diagonal)
            later = Slice (standard, one, after_last, one)
            earlier = Slice (standard, zero, last, one)
            difference = Sub (later, earlier)
            distance = Abs (difference)
            change = ReduceMean <axes = [1], keepdims = 0> (distance)
            flat_mean = Flatten <axis = 1> (mean)
            seen = Concat <axis = 1> (flat_mean, deviation, change, covariances)
            sum = Gemm (seen, hidden_weight, hidden_bias)
            hidden = Tanh (sum)
            logits = Gemm (hidden, readout_weight, readout_bias)
        }}""",
        scale=scale,
        shift=shift,
        one_over_steps=np.array(1 / WINDOW),
        variance_floor=np.array(VARIANCE_FLOOR),
        diagonal=np.arange(N_FEATURES) * (N_FEATURES + 1),
        above_diagonal=rows * N_FEATURES + columns,
        zero=np.array([0]),
        one=np.array([1]),
        last=np.array([WINDOW - 1]),
        after_last=np.array([WINDOW]),
        hidden_weight=hidden.weight,
        hidden_bias=hidden.bias,
        readout_weight=readout.weight,
        readout_bias=readout.bias,
    )


def _model(text: str, **tensors: NDArray[np.generic]) -> onnx.ModelProto:
    """Return a checked model from its text and its tensors; real ones become float32, whole ones int64."""
    model = parser.parse_model(text)
    for name, values in tensors.items():
        kind = np.int64 if values.dtype.kind == "i" else np.float32
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def _doubles(tensor: Tensor) -> Doubles:
    return tensor.detach().numpy().astype(np.float64)
