"""Recurrences as graphs, in three lowerings.

- `operator`: ONNX's RNN, GRU and LSTM; a layer norm has no place in them
- `scan`: a `Scan` over the steps
- `unrolled`: the same steps written out one after the other

The input product of a step is done in the step: all of them at once would fill and read again an array as large as all
states together, which costs more than one large product gains.

Batch normalisation and standardisation fold into both products: a batch-normed RNN leaves as a plain tanh RNN.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper
from torch import nn

from segue.data.song import WINDOW
from segue.errors import ConfigError
from segue.export.graphs.affine import Affine, Doubles, affine_of, batch_norm_of, doubles, standardisation_of
from segue.export.graphs.convolutional import convolved
from segue.export.graphs.int8 import Int8
from segue.export.graphs.window import Window
from segue.export.graphs.writer import Writer
from segue.serving.bundle.manifest import Lowering
from segue.training.networks.recurrent import Cell, GateNorm, GruCell, RecurrentNetwork
from segue.training.networks.summary import VARIANCE_FLOOR

Step = Callable[[Writer, str, Sequence[str]], list[str]]  # Of a writer, the input and the carry; the next carry.

OPERATORS: dict[Cell, str] = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
# The order of the gates in our cells, and in ONNX's operators.
ORDERS: dict[Cell, tuple[str, str]] = {"rnn": ("h", "h"), "gru": ("rzh", "zrh"), "lstm": ("ifoc", "iofc")}


@dataclass(frozen=True)
class Folded:
    """A recurrence with its batch norms folded in."""

    cell: Cell
    input: Affine  # (n_inputs, gates * state)
    recurrent: Doubles  # (state, gates * state)
    layer_norms: tuple[tuple[Doubles, Doubles], ...]  # Scale and shift of each gate's layer norm; none without.
    norm_eps: float
    int8: Int8 | None  # How the inputs of the recurrent product are rounded, if they are.

    @property
    def state(self) -> int:
        """Neurons of the state."""
        return len(self.recurrent)

    @property
    def gates(self) -> int:
        """Gates of the cell."""
        return int(self.recurrent.shape[1]) // len(self.recurrent)

    def by_gate(self, values: Doubles) -> list[Doubles]:
        """Return the part of each gate of values (..., gates * state), in the order of ONNX's operators."""
        ours, theirs = ORDERS[self.cell]
        parts = np.split(values, self.gates, axis=-1)
        return [parts[ours.index(gate)] for gate in theirs]


def fold(network: RecurrentNetwork, int8: Int8 | None = None) -> Folded:
    """Fold what can be folded into the two products of a recurrence."""
    cell = network.cell
    recurrent = affine_of(cell.recurrent).weight
    norms = [cell.norm, cell.candidate_norm] if isinstance(cell, GruCell) else [cell.norm]
    driven = affine_of(network.input)
    if network.front is None:
        driven = driven.after(*standardisation_of(network.standardise))
    layer_norms: list[tuple[Doubles, Doubles]] = []
    if all(isinstance(norm, nn.BatchNorm1d) for norm in norms):
        folds = [batch_norm_of(norm) for norm in norms if isinstance(norm, nn.BatchNorm1d)]
        scale, shift = (np.concatenate(parts) for parts in zip(*folds, strict=True))
        driven, recurrent = driven.then(scale, shift), recurrent * scale
    for norm in norms:
        if isinstance(norm, GateNorm):
            scales, shifts = (np.split(doubles(one), norm.gates) for one in (norm.weight, norm.bias))
            layer_norms += zip(scales, shifts, strict=True)
    return Folded(network.config.cell, driven, recurrent, tuple(layer_norms), network.config.norm_eps, int8)


def can_lower(network: RecurrentNetwork, lowering: Lowering) -> bool:
    """Say whether a recurrence has this lowering."""
    return lowering != "operator" or network.config.norm != "layer"


def states(window: Window, network: RecurrentNetwork, lowering: Lowering, int8: Int8 | None) -> str:
    """Return what the head reads of the states: the last one, (n, state), or mean and spread of all, (n, 2 * state)."""
    if not can_lower(network, lowering):
        raise ConfigError("lowering: expected scan or unrolled for a layer-normed recurrence, found operator")
    writer = window.writer
    if network.front is None:
        inputs = window.by_step
    else:
        inputs = writer.op("Transpose", convolved(window, network.front, network.standardise), perm=[2, 0, 1])
    folded, pooled = fold(network, int8), network.config.readout == "pooled"
    if lowering == "operator":
        return _by_operator(writer, inputs, folded, pooled=pooled)
    step = _step(folded, pooled=pooled)
    size = writer.op("Shape", inputs, start=1, end=2)
    zeros = writer.op("ConstantOfShape", writer.op("Concat", size, writer.ints(folded.state), axis=0))
    zeros = writer.shaped(zeros, "n", folded.state)
    carry = [zeros] * ((2 if folded.cell == "lstm" else 1) + 2 * pooled)
    run = _scan if lowering == "scan" else _unroll
    final = run(writer, inputs, carry, step)
    return _mean_and_spread(writer, *final[-2:]) if pooled else final[0]


def _step(folded: Folded, *, pooled: bool) -> Step:
    """Return what a step does; where the states are pooled, the carry ends with their sum and that of their squares."""

    def step(writer: Writer, one: str, carry: Sequence[str]) -> list[str]:
        weight, bias = writer.tensor(folded.input.weight), writer.tensor(folded.input.bias)
        following = CELL_STEPS[folded.cell](writer, folded, writer.op("Gemm", one, weight, bias), carry)
        if pooled:
            state, (total, squares) = following[0], carry[-2:]
            square = writer.op("Mul", state, state)
            following += [writer.op("Add", total, state), writer.op("Add", squares, square)]
        return following

    return step


def _rnn_step(writer: Writer, folded: Folded, driven: str, carry: Sequence[str]) -> list[str]:
    """H' = tanh(norm(W_x x + W_h h))."""
    return [writer.op("Tanh", _norm(writer, folded, 0, _sums(writer, folded, driven, carry[0])))]


def _gru_step(writer: Writer, folded: Folded, driven: str, carry: Sequence[str]) -> list[str]:
    """H' = n + z * (h - n), where the reset gate scales the product."""
    op = writer.op
    products = writer.split(_product(writer, folded, carry[0]), 3, axis=1)
    inputs = writer.split(driven, 3, axis=1)
    reset, keep = (
        op("Sigmoid", _norm(writer, folded, gate, op("Add", inputs[gate], products[gate]))) for gate in (0, 1)
    )
    sums = op("Add", inputs[2], op("Mul", reset, products[2]))
    candidate = op("Tanh", _norm(writer, folded, 2, sums))
    return [op("Add", candidate, op("Mul", keep, op("Sub", carry[0], candidate)))]


def _lstm_step(writer: Writer, folded: Folded, driven: str, carry: Sequence[str]) -> list[str]:
    """C' = f * c + i * tanh(g), h' = o * tanh(c')."""
    op = writer.op
    sums = _sums(writer, folded, driven, carry[0])
    gates = [_norm(writer, folded, gate, part) for gate, part in enumerate(writer.split(sums, 4, axis=1))]
    entry, forget, output = (op("Sigmoid", gates[gate]) for gate in (0, 1, 2))
    cell = op("Add", op("Mul", forget, carry[1]), op("Mul", entry, op("Tanh", gates[3])))
    return [op("Mul", output, op("Tanh", cell)), cell]


CELL_STEPS: dict[Cell, Callable[[Writer, Folded, str, Sequence[str]], list[str]]] = {
    "rnn": _rnn_step,
    "gru": _gru_step,
    "lstm": _lstm_step,
}


def _sums(writer: Writer, folded: Folded, driven: str, state: str) -> str:
    """Return W_x x + W_h h."""
    if folded.int8:
        # Not `Add`, which ONNX Runtime makes one Gemm with the product of, and that one it would do in float32.
        return writer.op("Sum", _product(writer, folded, state), driven)
    return writer.op("Gemm", state, writer.tensor(folded.recurrent), driven)


def _product(writer: Writer, folded: Folded, state: str) -> str:
    """Return W_h h; states lie between -1 and 1."""
    if folded.int8:
        return folded.int8.product(writer, state, folded.recurrent, reach=1.0)
    return writer.op("MatMul", state, writer.tensor(folded.recurrent))


def _norm(writer: Writer, folded: Folded, gate: int, sums: str) -> str:
    if not folded.layer_norms:
        return sums
    scale, shift = folded.layer_norms[gate]
    return writer.op(
        "LayerNormalization", sums, writer.tensor(scale), writer.tensor(shift), axis=-1, epsilon=folded.norm_eps
    )


def _scan(writer: Writer, inputs: str, carry: Sequence[str], step: Step) -> list[str]:
    """Return the final carry of a `Scan` over inputs (120, n, n_inputs)."""
    body = writer.body()
    before, one = [writer.name("carry") for _ in carry], writer.name("input")
    after = step(body, one, before)
    graph = helper.make_graph(
        body.nodes,
        writer.name("step"),
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in [*before, one]],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in after],
    )
    final = [writer.name("final") for _ in carry]
    writer.op("Scan", *carry, inputs, outputs=final, num_scan_inputs=1, body=graph)
    return final


def _unroll(writer: Writer, inputs: str, carry: Sequence[str], step: Step) -> list[str]:
    """Return the final carry of steps written out one after the other."""
    values = list(carry)
    for one in writer.split(inputs, WINDOW, axis=0):
        values = step(writer, writer.op("Squeeze", one, writer.ints(0)), values)
    return values


def _by_operator(writer: Writer, inputs: str, folded: Folded, *, pooled: bool) -> str:
    """Return what ONNX's own operator makes of inputs (120, n, n_inputs)."""
    weight, recurrent = (
        np.concatenate(folded.by_gate(one), axis=-1).T[None] for one in (folded.input.weight, folded.recurrent)
    )
    bias = np.concatenate([*folded.by_gate(folded.input.bias), np.zeros(folded.gates * folded.state)])[None]
    settings = {"linear_before_reset": 1} if folded.cell == "gru" else {}
    all_states, last = writer.name("states"), writer.name("last")
    writer.op(
        OPERATORS[folded.cell],
        inputs,
        *(writer.tensor(one) for one in (weight, recurrent, bias)),
        outputs=[all_states, last],
        hidden_size=folded.state,
        **settings,
    )
    if not pooled:
        return writer.op("Squeeze", last, writer.ints(0))
    by_step = writer.op("Squeeze", all_states, writer.ints(1))
    total = writer.op("ReduceSum", by_step, writer.ints(0), keepdims=0)
    return _mean_and_spread(writer, total, writer.op("ReduceSumSquare", by_step, axes=[0], keepdims=0))


def _mean_and_spread(writer: Writer, total: str, squares: str) -> str:
    """Return mean and spread (n, 2 * state) of states by their sums and those of their squares."""
    op, share = writer.op, writer.tensor(np.array(1 / WINDOW))
    mean = op("Mul", total, share)
    variance = op("Sub", op("Mul", squares, share), op("Mul", mean, mean))
    spread = op("Sqrt", op("Max", variance, writer.tensor(np.array(VARIANCE_FLOOR))))
    return op("Concat", mean, spread, axis=1)
