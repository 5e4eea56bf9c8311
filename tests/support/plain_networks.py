"""Every network once more, by its formulas: plain numpy in float64, nothing folded, one song after the other."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from segue.data.song import Floats
from segue.training.networks.build import Config, EnsembleConfig, SingleConfig, build
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise

Array = NDArray[np.float64]
Weights = dict[str, Array]
OTHER_EPS = 1e-5  # Torch's default.
LAGS = (1, 2, 3, 4, 6, 8, 12, 16)


def random_network(config: Config, n_classes: int = 4) -> Network:
    """Return a network in eval mode whose every weight, statistic and parameter is a random number."""
    network = build(config, n_classes, Standardise())
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator)
            positive = name.endswith(("running_var", "deviation"))
            # Small enough a recurrence that rounding errors fade instead of growing over 120 steps.
            size = 0.5 if "recurrent" in name else 1.5
            weight = drawn * size / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else drawn
            tensor.copy_(0.5 + drawn.abs() if positive else weight)
    for one in network.modules():
        if isinstance(one, Standardise):
            one.deviation *= torch.tensor([30.0] * 12 + [0.3] * 12 + [10.0])
    return network.eval()


def plain_logits(config: Config, network: Network, windows: Floats) -> Array:
    """Return the logits (n, n_classes) of raw windows (n, 120, 25)."""
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    return np.array([_logits(config, weights, window.astype(np.float64)) for window in windows])


def _logits(config: Config, weights: Weights, window: Array) -> Array:
    if isinstance(config, EnsembleConfig):
        answers = [
            _logits(member, _inside(weights, f"members.{at}."), window) for at, member in enumerate(config.members)
        ]
        mean: Array = np.mean([one - np.log(np.exp(one).sum()) for one in answers], axis=0)
        return mean
    standard = (window - weights["standardise.mean"]) / weights["standardise.deviation"]
    if isinstance(config, DenseConfig):
        seen = [standard.ravel() if config.look == "flat" else _summary(standard)]
    elif isinstance(config, ConvolutionalConfig):
        seen = [_mean_and_spread(_convolved(config, _inside(weights, "convolutions."), standard))]
    else:
        seen = [_states(config, weights, standard)]
    if not isinstance(config, DenseConfig) and config.summary:
        seen.append(_summary(standard))
    return _head(config, _inside(weights, "head."), np.concatenate(seen))


def _inside(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): values for name, values in weights.items() if name.startswith(prefix)}


def _head(config: SingleConfig, weights: Weights, values: Array) -> Array:
    if "input_norm.running_mean" in weights:
        eps = OTHER_EPS if isinstance(config, RecurrentConfig) else config.norm_eps
        values = _batch_normed(values, weights, "input_norm", eps)
    depth = 0
    while f"layers.{depth}.affine.weight" in weights:
        values = weights[f"layers.{depth}.affine.weight"] @ values + weights[f"layers.{depth}.affine.bias"]
        values = _activated(config, _normed_layer(config, values, weights, f"layers.{depth}.norm"))
        depth += 1
    if "readout.weight" not in weights:
        return values
    logits: Array = weights["readout.weight"] @ values + weights["readout.bias"]
    return logits


def _normed_layer(config: SingleConfig, values: Array, weights: Weights, name: str) -> Array:
    """Return what the norm of a layer makes of the numbers (n,) of one song or segment."""
    normed: Array
    norm, eps = ("batch", OTHER_EPS) if isinstance(config, RecurrentConfig) else (config.norm, config.norm_eps)
    if norm == "none":
        return values
    if norm == "batch":
        return _batch_normed(values, weights, name, eps)
    normed = (values - values.mean()) / np.sqrt(values.var() + eps)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _activated(config: SingleConfig, values: Array) -> Array:
    activated: Array = ACTIVATIONS["tanh" if isinstance(config, RecurrentConfig) else config.activation](values)
    return activated


# Clevert et al., ICLR 2016; the two numbers of selu are those of Klambauer et al., NIPS 2017.
ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "selu": lambda x: SCALE * np.where(x > 0, x, ALPHA * (np.exp(np.minimum(x, 0)) - 1)),
}


def _batch_normed(values: Array, weights: Weights, name: str, eps: float) -> Array:
    normed = (values - weights[f"{name}.running_mean"]) / np.sqrt(weights[f"{name}.running_var"] + eps)
    return normed * weights.get(f"{name}.weight", 1.0) + weights.get(f"{name}.bias", 0.0)


def _layer_normed(values: Array, weights: Weights, name: str, n_gates: int, eps: float) -> Array:
    gates = [(gate - gate.mean()) / np.sqrt(gate.var() + eps) for gate in np.split(values, n_gates)]
    return np.concatenate(gates) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _convolved(config: SingleConfig, weights: Weights, standard: Array) -> Array:
    values, layer = standard, 0
    while f"layers.{layer}.weight" in weights:
        kernel = weights[f"layers.{layer}.weight"]
        reach = kernel.shape[2] // 2
        padded = np.pad(values, ((reach, reach), (0, 0)))
        sums = np.array(
            [np.tensordot(padded[step : step + 2 * reach + 1], kernel, ((0, 1), (2, 1))) for step in range(120)]
        )
        sums = sums + weights.get(f"layers.{layer}.bias", 0.0)
        activation = config.filter_activation if isinstance(config, ConvolutionalConfig) else "relu"
        normed = np.array([_normed_layer(config, step, weights, f"norms.{layer}") for step in sums])
        values = ACTIVATIONS[activation](normed)
        layer += 1
    return values


def _mean_and_spread(values: Array) -> Array:
    return np.concatenate([values.mean(axis=0), np.sqrt(np.maximum(values.var(axis=0), 1e-4))])


def _summary(standard: Array) -> Array:
    centred = standard - standard.mean(axis=0)
    deviation = np.sqrt(np.maximum(standard.var(axis=0), 1e-4))
    unit = centred / deviation
    changes = np.mean([np.abs(later - earlier) for earlier, later in pairwise(standard)], axis=0)
    correlation = np.cov(standard, rowvar=False, bias=True) / np.outer(deviation, deviation)
    return np.concatenate(
        [
            standard.mean(axis=0),
            np.log(deviation),
            np.log(changes + 1e-2),
            *[np.mean(unit[lag:] * unit[:-lag], axis=0) for lag in LAGS],
            [correlation[i, j] for i in range(25) for j in range(i + 1, 25)],
        ]
    )


def _states(config: RecurrentConfig, weights: Weights, standard: Array) -> Array:
    inputs = _convolved(config, _inside(weights, "front."), standard) if config.convolution else standard
    h, c, states = np.zeros(config.state), np.zeros(config.state), []
    for x in inputs:
        driven = weights["input.weight"] @ x + weights.get("input.bias", 0.0)
        product = weights["cell.recurrent.weight"] @ h
        h, c = CELLS[config.cell](config, weights, driven, product, h, c)
        states.append(h)
    return h if config.readout in ("last", "none") else _mean_and_spread(np.array(states))


def _normed(config: RecurrentConfig, weights: Weights, name: str, values: Array) -> Array:
    if config.norm == "batch":
        return _batch_normed(values, weights, name, config.norm_eps)
    return (
        _layer_normed(values, weights, name, len(values) // config.state, config.norm_eps)
        if config.norm == "layer"
        else values
    )


def _rnn(
    config: RecurrentConfig, weights: Weights, driven: Array, product: Array, h: Array, c: Array
) -> tuple[Array, Array]:
    return np.tanh(_normed(config, weights, "cell.norm", driven + product)), c


def _gru(
    config: RecurrentConfig, weights: Weights, driven: Array, product: Array, h: Array, c: Array
) -> tuple[Array, Array]:
    n = config.state
    reset, keep = np.split(_sigmoid(_normed(config, weights, "cell.norm", driven[: 2 * n] + product[: 2 * n])), 2)
    sums = driven[2 * n :] + reset * product[2 * n :]
    return (1 - keep) * np.tanh(_normed(config, weights, "cell.candidate_norm", sums)) + keep * h, c


def _lstm(
    config: RecurrentConfig, weights: Weights, driven: Array, product: Array, h: Array, c: Array
) -> tuple[Array, Array]:
    entry, forget, output, content = np.split(_normed(config, weights, "cell.norm", driven + product), 4)
    c = _sigmoid(forget) * c + _sigmoid(entry) * np.tanh(content)
    return _sigmoid(output) * np.tanh(c), c


Cell = Callable[[RecurrentConfig, Weights, Array, Array, Array, Array], tuple[Array, Array]]
CELLS: dict[str, Cell] = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))
