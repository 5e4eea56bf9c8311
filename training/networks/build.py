"""The registry of networks: `SingleConfig` has a line for each, and everything else follows from it.

Verbs offer a network by the name in its line, recipes and run records by the `shape` of its config. A config builds its
network, which says in `forward` what it computes and in `graph` how that is written as a graph. How to add one:
docs/contributing/networks.md.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from tyro.conf import subcommand

from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.ensemble import Ensemble
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise

Role = Literal["teacher", "student"]
SingleConfig = (
    Annotated[RecurrentConfig, subcommand("recurrent")]
    | Annotated[ConvolutionalConfig, subcommand("convolutional")]
    | Annotated[DenseConfig, subcommand("dense")]
)


@dataclass(frozen=True)
class EnsembleConfig:
    """Several networks that answer as one."""

    members: tuple[SingleConfig, ...]
    shape: Literal["ensemble"] = "ensemble"

    def build(self, n_classes: int, standardise: Standardise) -> Network:
        """Return the untrained members as one; each carries a standardisation of its own."""
        return Ensemble([member.build(n_classes, Standardise()) for member in self.members])


Config = SingleConfig | EnsembleConfig


def shapes() -> dict[str, type[SingleConfig]]:
    """Return the configs of all networks by their shapes."""
    configs = [get_args(one)[0] for one in get_args(SingleConfig)]
    return {config.shape: config for config in configs}


def build(config: Config, n_classes: int, standardise: Standardise) -> Network:
    """Return the untrained network of a config; `standardise` carries the mean and deviation of the training songs."""
    return config.build(n_classes, standardise)
