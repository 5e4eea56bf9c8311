"""Networks in float64 whose every weight and statistic is a random number, and windows for them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.training.networks.build import Config, build
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise

Array = NDArray[np.float64]

CLASSES = 3


def random_network(config: Config) -> Network:
    """Return the network of a config in float64, in eval mode, with everything in it drawn at random."""
    network = build(config, CLASSES, Standardise()).double()
    randomise(network)
    return network.eval()


def randomise(network: nn.Module) -> None:
    """Draw every weight and statistic of a network anew."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            positive = name.endswith(("running_var", "deviation"))
            tensor.copy_(0.5 + drawn.abs() if positive else 0.3 * drawn)


def random_windows(n_songs: int, n_segments: int = 120, seed: int = 1) -> Tensor:
    """Return segments (n_songs, n_segments, 25) whose features have different means, spreads and correlations."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n_songs, n_segments, 25)) @ (0.4 * rng.normal(size=(25, 25)))
    return torch.from_numpy(mixed + rng.normal(size=25))


def arrays(network: nn.Module) -> dict[str, Array]:
    """Return a copy of the weights and statistics of a network."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def standardised(weights: dict[str, Array], segments: Tensor) -> Array:
    """Return what the network behind `weights` makes of raw segments first."""
    scaled: Array = (segments.numpy() - weights["standardise.mean"]) / weights["standardise.deviation"]
    return scaled
