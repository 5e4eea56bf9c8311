"""What layers are made of: norms, activations, and the weights that they begin with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segue.errors import ConfigError

Norm = Literal["batch", "layer", "none"]
Activation = Literal["tanh", "relu", "elu", "selu"]
Init = Literal["default", "he", "xavier", "normal"]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "elu": functional.elu,
    "selu": functional.selu,
}


@dataclass(frozen=True)
class LayerConfig:
    """How the layers of a network are made."""

    norm: Norm = "batch"  # Between affine map and activation: over the batch, over the neurons of a song, or nothing.
    norm_eps: float = 1e-5  # Added to a variance before its root is taken; the study has 1e-3.
    norm_momentum: float = 0.1  # How far the newest batch moves the averages of batch norm, which forget exponentially.
    activation: Activation = "tanh"  # Of the hidden layers.
    init: Init = "default"  # Weights begin as torch's do, as He's or Xavier's normal numbers, or as N(0, sigma).
    init_sigma: float = 0.01  # The sigma of --init normal.

    def __post_init__(self) -> None:
        """Refuse numbers that make no norm and no weights."""
        check_norm(self.norm_eps, self.norm_momentum)
        check_init(self.init_sigma)


def check_norm(eps: float, momentum: float) -> None:
    """Refuse a variance that may be 0, and averages that never move or that overshoot."""
    if not 0 < eps < float("inf"):
        raise ConfigError(f"norm_eps: expected a number above 0, found {eps}")
    if not 0 < momentum <= 1:
        raise ConfigError(f"norm_momentum: expected a number above 0, up to 1, found {momentum}")


def check_init(sigma: float) -> None:
    """Refuse weights without a spread."""
    if not 0 < sigma < float("inf"):
        raise ConfigError(f"init_sigma: expected a number above 0, found {sigma}")


def norm_layer(config: LayerConfig, n: int) -> nn.Module:
    """Return the norm of `n` neurons: Ioffe and Szegedy, ICML 2015, or Ba, Kiros and Hinton, 2016."""
    if config.norm == "batch":
        return nn.BatchNorm1d(n, eps=config.norm_eps, momentum=config.norm_momentum)
    return nn.LayerNorm(n, eps=config.norm_eps) if config.norm == "layer" else nn.Identity()


def initialise(network: nn.Module, init: Init, sigma: float) -> None:
    """Draw the weights of all affine maps and convolutions of a network anew, and set their biases to 0.

    He et al., ICCV 2015: variance 2 / inputs. Glorot and Bengio (Xavier), AISTATS 2010: 2 / (inputs + outputs).
    `default` leaves everything as it is.
    """
    if init == "default":
        return
    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            if init == "he":
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            elif init == "xavier":
                nn.init.xavier_normal_(part.weight)
            else:
                nn.init.normal_(part.weight, std=sigma)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
