"""The networks that can be trained, by the shape of their config."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import subcommand

from segue.training.networks.convolutional import ConvolutionalConfig, ConvolutionalNetwork
from segue.training.networks.dense import DenseConfig, DenseNetwork
from segue.training.networks.ensemble import Ensemble
from segue.training.networks.network import Network
from segue.training.networks.recurrent import RecurrentConfig, RecurrentNetwork
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


Config = SingleConfig | EnsembleConfig


def build(config: Config, n_classes: int, standardise: Standardise) -> Network:
    """Return the untrained network of a config; `standardise` carries the mean and deviation of the training songs."""
    if isinstance(config, EnsembleConfig):
        return Ensemble([build(member, n_classes, Standardise()) for member in config.members])
    if isinstance(config, RecurrentConfig):
        return RecurrentNetwork(config, n_classes=n_classes, standardise=standardise)
    if isinstance(config, ConvolutionalConfig):
        return ConvolutionalNetwork(config, n_classes=n_classes, standardise=standardise)
    return DenseNetwork(config, n_classes=n_classes, standardise=standardise)
