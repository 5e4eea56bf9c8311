"""Recurrent networks: every cell and norm against plain float64 references, both ways, whole and in parts."""

import itertools
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from segue.errors import ConfigError
from segue.training.networks.layers import Norm
from segue.training.networks.recurrent import Cell, GateNorm, Readout, RecurrentConfig, RecurrentNetwork
from segue.training.networks.summary import summary
from tests.support.random_networks import (
    CLASSES,
    Array,
    arrays,
    random_network,
    random_windows,
    randomise,
    standardised,
)

STATE, SONGS, STEPS = 4, 6, 7
EPS, MOMENTUM, VARIANCE_FLOOR = 1e-3, 0.01, 1e-4
CELLS: tuple[Cell, ...] = ("rnn", "gru", "lstm")
NORMS: tuple[Norm, ...] = ("batch", "layer", "none")
every_cell = pytest.mark.parametrize(("cell", "norm"), list(itertools.product(CELLS, NORMS)))
every_readout = pytest.mark.parametrize("readout", ["last", "pooled"])

Numbers = NDArray[Any]  # float64, or complex128 that carries a derivative in its imaginary part.
Weights = Mapping[str, Numbers]
Sums = dict[str, list[Numbers]]


def network_of(cell: Cell, norm: Norm, readout: Readout = "last", bptt_steps: int = 40) -> RecurrentNetwork:
    config = RecurrentConfig(cell=cell, norm=norm, state=STATE, readout=readout, bptt_steps=bptt_steps)
    network = random_network(config)
    assert isinstance(network, RecurrentNetwork)
    return network


def sigmoid(values: Numbers) -> Numbers:
    result: Numbers = 1 / (1 + np.exp(-values))
    return result


def square_mean(values: Numbers, axis: int) -> Numbers:
    """Return the mean square; `np.var` would take the modulus of complex numbers, which has no derivative."""
    mean: Numbers = (values * values).mean(axis=axis, keepdims=True)
    return mean


class Plain:
    """The formulas of the module under test, one song after the other in nothing but numpy.

    `sums` gathers what goes into each norm at each step.
    """

    def __init__(self, weights: Weights, cell: Cell, norm: Norm, *, training: bool) -> None:
        self.weights, self.cell, self.norm, self.training = weights, cell, norm, training
        self.sums: Sums = {}

    def normed(self, name: str, sums: Numbers, gates: int) -> Numbers:
        """Normalise (n, gates * state)."""
        self.sums.setdefault(name, []).append(sums)
        if self.norm == "none":
            return sums
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        if self.norm == "layer":
            parts = [sums[:, gate * STATE : (gate + 1) * STATE] for gate in range(gates)]
            centred = [part - part.mean(axis=1, keepdims=True) for part in parts]
            return np.hstack([part / np.sqrt(square_mean(part, 1) + EPS) for part in centred]) * scale + shift
        mean, variance = self.weights[f"{name}.running_mean"], self.weights[f"{name}.running_var"]
        if self.training:
            mean = sums.mean(axis=0, keepdims=True)
            variance = square_mean(sums - mean, 0)
        return (sums - mean) / np.sqrt(variance + EPS) * scale + shift

    def states(self, seen: Numbers) -> list[Numbers]:
        """Return the state after each step over (n, steps, features)."""
        into, around = self.weights["input.weight"], self.weights["cell.recurrent.weight"]
        bias = self.weights.get("input.bias", np.zeros(len(into)))
        h: Numbers = np.zeros((len(seen), STATE))
        c: Numbers = h
        found: list[Numbers] = []
        for step in range(seen.shape[1]):
            x, r = seen[:, step] @ into.T + bias, h @ around.T
            if self.cell == "rnn":
                h = np.tanh(self.normed("cell.norm", x + r, 1))
            elif self.cell == "gru":
                gates = sigmoid(self.normed("cell.norm", x[:, : 2 * STATE] + r[:, : 2 * STATE], 2))
                reset, keep = gates[:, :STATE], gates[:, STATE:]
                mixed = x[:, 2 * STATE :] + reset * r[:, 2 * STATE :]
                h = (1 - keep) * np.tanh(self.normed("cell.candidate_norm", mixed, 1)) + keep * h
            else:
                i, f, o, g = np.split(self.normed("cell.norm", x + r, 4), 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            found.append(h)
        return found

    def logits(self, seen: Numbers, readout: Readout) -> Numbers:
        states = np.stack(self.states(seen), axis=1)
        if readout == "last":
            readable = states[:, -1]
        else:
            mean = states.mean(axis=1, keepdims=True)
            variance = square_mean(states - mean, 1)[:, 0]
            spread = np.sqrt(np.where(variance.real > VARIANCE_FLOOR, variance, VARIANCE_FLOOR))
            readable = np.hstack([mean[:, 0], spread])
        logits: Numbers = readable @ self.weights["head.readout.weight"].T + self.weights["head.readout.bias"]
        return logits


@every_cell
@every_readout
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluated"])
def test_a_network_is_the_plain_reference(cell: Cell, norm: Norm, readout: Readout, training: bool) -> None:
    network, segments = network_of(cell, norm, readout).train(training), random_windows(SONGS, STEPS)
    weights = arrays(network)
    expected = Plain(weights, cell, norm, training=training).logits(standardised(weights, segments), readout)
    np.testing.assert_allclose(network(segments).detach(), expected, atol=1e-11, rtol=0)


@every_cell
@every_readout
def test_gradients_are_the_complex_step_derivatives_of_the_plain_reference(
    cell: Cell, norm: Norm, readout: Readout
) -> None:
    network, segments = network_of(cell, norm, readout).train(), random_windows(SONGS, STEPS)
    weights, rng, step = arrays(network), np.random.default_rng(2), 1e-30
    seen, direction = standardised(weights, segments), rng.normal(size=(SONGS, CLASSES))
    (network(segments) * torch.from_numpy(direction)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        places = rng.permutation(list(np.ndindex(*parameter.shape)))[:30]
        expected = []
        for place in map(tuple, places):
            moved = weights[name].astype(complex)
            moved[place] += 1j * step
            logits = Plain(weights | {name: moved}, cell, norm, training=True).logits(seen, readout)
            expected.append((logits * direction).sum().imag / step)
        found = [parameter.grad[tuple(place)] for place in places]
        np.testing.assert_allclose(found, expected, atol=1e-8, rtol=1e-8, err_msg=name)


@every_cell
def test_gradients_pass_gradcheck(cell: Cell, norm: Norm) -> None:
    network, segments = network_of(cell, norm, "pooled").train(), random_windows(SONGS, 4)
    parameters = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}

    def logits(*values: Tensor) -> Tensor:
        found: Tensor = functional_call(network, dict(zip(parameters, values, strict=True)), (segments,))
        return found

    assert torch.autograd.gradcheck(logits, [*parameters.values()], eps=1e-6, atol=1e-6, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize("cell", CELLS)
def test_a_network_without_norm_is_that_of_torch(cell: Cell) -> None:
    network, segments = network_of(cell, "none"), random_windows(SONGS, 120)
    kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
    other = kind(25, STATE, batch_first=True).double()
    gates = {"rnn": [0], "gru": [0, 1, 2], "lstm": [0, 1, 3, 2]}[cell]  # Of torch's LSTM: i, f, g, o.
    rows = torch.cat([torch.arange(gate * STATE, (gate + 1) * STATE) for gate in gates])
    with torch.no_grad():
        other.weight_ih_l0.copy_(network.input.weight[rows])
        other.weight_hh_l0.copy_(network.cell.recurrent.weight[rows])
        other.bias_ih_l0.copy_(network.input.bias[rows])
        other.bias_hh_l0.zero_()
    states, _ = other(network.standardise(segments))
    np.testing.assert_allclose(network.states(segments).detach(), states.detach(), atol=1e-12, rtol=0)
    np.testing.assert_allclose(
        network(segments).detach(), network.head.readout(states[:, -1]).detach(), atol=1e-12, rtol=0
    )


@every_cell
def test_the_state_after_each_segment_is_what_is_read(cell: Cell, norm: Norm) -> None:
    network, segments = network_of(cell, norm), random_windows(SONGS, STEPS)
    states = network.states(segments)
    assert states.shape == (SONGS, STEPS, STATE)
    for step in range(STEPS):
        logits = network.head(states[:, step])
        np.testing.assert_allclose(network(segments[:, : step + 1]).detach(), logits.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("gates", [1, 2, 4])
def test_layer_norm_of_each_gate_is_that_of_torch(gates: int) -> None:
    norm = GateNorm(gates=gates, state=STATE).double()
    randomise(norm)
    sums = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (SONGS, gates * STATE)))
    parts = []
    for gate in range(gates):
        neurons = slice(gate * STATE, (gate + 1) * STATE)
        other = nn.LayerNorm(STATE, eps=EPS).double()
        other.load_state_dict({"weight": norm.weight[neurons], "bias": norm.bias[neurons]})
        parts.append(other(sums[:, neurons]))
    np.testing.assert_allclose(norm(sums).detach(), torch.cat(parts, dim=1).detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_running_statistics_follow_the_exponential_moving_average(cell: Cell) -> None:
    network = network_of(cell, "batch").train()
    expected = arrays(network)
    for seed in range(3):
        segments = random_windows(SONGS, STEPS, seed)
        network(segments)
        plain = Plain(expected, cell, "batch", training=True)
        plain.states(standardised(expected, segments))
        for name, steps in plain.sums.items():
            mean, variance = expected[f"{name}.running_mean"], expected[f"{name}.running_var"]
            for sums in steps:  # The variance that is kept is the unbiased one.
                mean = (1 - MOMENTUM) * mean + MOMENTUM * sums.real.mean(axis=0)
                variance = (1 - MOMENTUM) * variance + MOMENTUM * sums.real.var(axis=0, ddof=1)
            expected |= {f"{name}.running_mean": mean, f"{name}.running_var": variance}
    found = arrays(network)
    for name in plain.sums:
        for statistic in ("running_mean", "running_var"):
            np.testing.assert_allclose(
                found[f"{name}.{statistic}"], expected[f"{name}.{statistic}"], atol=1e-8, rtol=0, err_msg=name
            )


def test_an_affine_map_under_a_norm_has_no_bias() -> None:
    names = {norm: set(arrays(network_of("gru", norm))) for norm in NORMS}
    assert names["none"] - names["layer"] == {"input.bias"}
    assert "input.bias" not in names["batch"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_recurrent_map_of_each_gate_starts_orthogonal(cell: Cell) -> None:
    network = RecurrentNetwork(
        RecurrentConfig(cell=cell, state=16), n_classes=CLASSES, standardise=network_of(cell, "none").standardise
    )
    for gate in network.cell.recurrent.weight.detach().numpy().reshape(-1, 16, 16):
        np.testing.assert_allclose(gate @ gate.T, np.eye(16), atol=1e-5)


def plain_convolution(weights: Weights, seen: Numbers, kernel: int) -> Array:
    """Return (n, steps, channels): at each step the products with the segments around it, zeros beyond the window."""
    filters = weights["front.layers.0.weight"].real  # (channels, 25, kernel)
    n, steps, _ = seen.shape
    sums = np.zeros((n, steps, len(filters)))
    for step, offset in itertools.product(range(steps), range(kernel)):
        place = step + offset - kernel // 2
        if 0 <= place < steps:
            sums[:, step] += seen[:, place].real @ filters[:, :, offset].T
    norm = {name: weights[f"front.norms.0.{name}"].real for name in ("running_mean", "running_var", "weight", "bias")}
    scaled = (sums - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    found: Array = np.maximum(scaled, 0)
    return found


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_convolution_in_front_sees_zeros_beyond_the_window(kernel: int) -> None:
    config = RecurrentConfig(state=STATE, convolution=5, kernel=kernel, bptt_steps=8)
    network, segments = random_network(config), random_windows(SONGS, 120)
    weights = arrays(network)
    seen = plain_convolution(weights, standardised(weights, segments), kernel)
    expected = Plain(weights, "rnn", "batch", training=False).logits(seen, "last")
    np.testing.assert_allclose(network(segments).detach(), expected, atol=1e-11, rtol=0)


def test_a_convolution_longer_than_a_part_still_sees_the_whole_window() -> None:
    config = RecurrentConfig(state=STATE, convolution=5, kernel=15, bptt_steps=3, readout="pooled")
    network, segments = random_network(config), random_windows(SONGS, 120)
    *_, last = network.parts(segments)
    np.testing.assert_allclose(last.detach(), network(segments).detach(), atol=1e-12, rtol=0)


@every_readout
def test_the_summary_of_the_whole_window_stands_beside_the_readout(readout: Readout) -> None:
    config = RecurrentConfig(state=STATE, summary=True, readout=readout, bptt_steps=24)
    network, segments = random_network(config), random_windows(SONGS, 120)
    weights = arrays(network)
    reading, bias = weights["head.readout.weight"], weights["head.readout.bias"]
    states = STATE * (2 if readout == "pooled" else 1)
    statistics = summary(torch.from_numpy(standardised(weights, segments))).numpy()
    beside = statistics @ reading[:, states:].T
    for number, logits in enumerate(network.parts(segments), start=1):
        seen = standardised(weights, segments[:, : 24 * number])
        plain = Plain(weights | {"head.readout.weight": reading[:, :states]}, "rnn", "batch", training=False)
        expected = plain.logits(seen, readout) + beside
        np.testing.assert_allclose(logits.detach(), expected, atol=1e-11, rtol=0)
    assert reading.shape == (CLASSES, states + statistics.shape[1])
    assert bias.shape == (CLASSES,)


def test_hidden_layers_stand_between_the_states_and_the_logits() -> None:
    config = RecurrentConfig(state=STATE, hidden=(6, 5), dropout=0.5)
    network, segments = random_network(config), random_windows(SONGS, STEPS)
    weights = arrays(network)

    def normed(values: Array, layer: str) -> Array:
        scaled: Array = (values - weights[f"{layer}.running_mean"]) / np.sqrt(weights[f"{layer}.running_var"] + 1e-5)
        return scaled

    plain = Plain(weights, "rnn", "batch", training=False)
    values = normed(plain.states(standardised(weights, segments))[-1].real, "head.input_norm")
    for number in range(2):
        layer = f"head.layers.{number}"
        affine = values @ weights[f"{layer}.affine.weight"].T + weights[f"{layer}.affine.bias"]
        values = np.tanh(
            normed(affine, f"{layer}.norm") * weights[f"{layer}.norm.weight"] + weights[f"{layer}.norm.bias"]
        )
    expected = values @ weights["head.readout.weight"].T + weights["head.readout.bias"]
    np.testing.assert_allclose(network(segments).detach(), expected, atol=1e-11, rtol=0)


@every_cell
@every_readout
@pytest.mark.parametrize("bptt_steps", [8, 60, 120])
def test_a_part_answers_for_all_segments_so_far(cell: Cell, norm: Norm, readout: Readout, bptt_steps: int) -> None:
    network, segments = network_of(cell, norm, readout, bptt_steps), random_windows(SONGS, 120)
    parts = list(network.parts(segments))
    assert len(parts) == network.n_parts == 120 // bptt_steps
    for number, logits in enumerate(parts, start=1):
        expected = network(segments[:, : number * bptt_steps])
        np.testing.assert_allclose(logits.detach(), expected.detach(), atol=1e-11, rtol=0)


@every_cell
@every_readout
def test_the_gradient_of_a_part_stays_within_the_part(cell: Cell, norm: Norm, readout: Readout) -> None:
    network, segments = network_of(cell, norm, readout).train(), random_windows(SONGS, 120).requires_grad_()
    direction = random_windows(1, SONGS * CLASSES)[0, :, 0].view(SONGS, CLASSES)
    for number, logits in enumerate(network.parts(segments)):
        (gradient,) = torch.autograd.grad((logits * direction).sum(), segments, retain_graph=True)
        reached = np.flatnonzero(gradient.abs().amax(dim=(0, 2)))
        assert reached.tolist() == list(range(40 * number, 40 * (number + 1)))


def test_a_training_step_may_be_taken_between_two_parts() -> None:
    network, segments = network_of("lstm", "batch", "pooled"), random_windows(SONGS, 120)
    weights = arrays(network)
    parts = network.parts(segments)
    next(parts)
    readout = network.head.readout
    assert isinstance(readout, nn.Linear)
    with torch.no_grad():
        readout.weight.zero_()
    np.testing.assert_allclose(next(parts).detach(), np.tile(weights["head.readout.bias"], (SONGS, 1)), atol=1e-12)


@pytest.mark.parametrize("bptt_steps", [0, 7, 121, -8])
def test_steps_that_do_not_divide_the_window_are_refused(bptt_steps: int) -> None:
    told = rf"bptt_steps: expected a divisor of 120 \(1, 2, .*120\), found {bptt_steps}$"
    with pytest.raises(ConfigError, match=told):
        RecurrentConfig(bptt_steps=bptt_steps)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"state": 0}, "state: expected at least 1 neuron, found 0"),
        ({"convolution": -3}, "channels: expected at least 1 a layer, found -3"),
        ({"convolution": 4, "kernel": 6}, "kernel: expected an odd number of segments, at least 1, found 6"),
        ({"hidden": (8, 0)}, "hidden: expected at least 1 neuron a layer, found 8 0"),
        ({"dropout": 1.0}, r"dropout: expected a share from 0 up to 1, found 1\.0"),
    ],
)
def test_a_recurrence_that_cannot_learn_is_refused(setting: dict[str, int], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RecurrentConfig(**setting)  # type: ignore[arg-type]


@every_readout
def test_steps_done_at_once_are_the_steps_of_the_cell(readout: Readout, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RecurrentConfig(state=STATE, convolution=5, readout=readout)  # What is in front needs a gradient too.
    at_once, one_by_one = random_network(config).train(), random_network(config).train()
    segments = random_windows(SONGS, STEPS)
    found = at_once(segments)
    monkeypatch.setattr("segue.training.networks.recurrent.RnnCell.is_fused", lambda *_: False)
    expected = one_by_one(segments)
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-12, rtol=0)
    for logits in (found, expected):
        logits.square().sum().backward()
    for (name, parameter), other in zip(at_once.named_parameters(), one_by_one.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        np.testing.assert_allclose(parameter.grad, other.grad, atol=1e-10, rtol=1e-10, err_msg=name)
    for name, statistic in at_once.named_buffers():
        np.testing.assert_allclose(statistic, one_by_one.get_buffer(name), atol=1e-12, rtol=0, err_msg=name)


def test_what_the_steps_keep_for_their_gradient_is_freed_with_them() -> None:
    network = network_of("rnn", "batch").train()
    kept = weakref.ref(network(random_windows(SONGS, STEPS)).grad_fn.next_functions[1][0])
    assert kept() is None


@pytest.mark.long
@pytest.mark.parametrize(("cell", "norm"), [("rnn", "batch"), ("lstm", "layer")])
def test_a_compiled_part_learns_what_a_part_learns(cell: Cell, norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced in one piece, but run by torch instead of compiled.
    trace = partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", trace)
    torch.compiler.reset()
    config = RecurrentConfig(cell=cell, norm=norm, state=STATE, readout="pooled", bptt_steps=4)
    eager, compiled = random_network(config).train(), random_network(config).train()
    compiled.compile_parts()
    for expected, found in zip(*(one.parts(random_windows(SONGS, 120)) for one in (eager, compiled)), strict=True):
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-11, rtol=0)
        for logits in (expected, found):
            logits.square().sum().backward()
    for (name, parameter), other in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        np.testing.assert_allclose(other.grad, parameter.grad, atol=1e-9, rtol=1e-9, err_msg=name)
    for name, statistic in eager.named_buffers():
        np.testing.assert_allclose(compiled.get_buffer(name), statistic, atol=1e-12, rtol=0, err_msg=name)
