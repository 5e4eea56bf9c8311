"""Update rules, activations and rates of a dense network."""

from dataclasses import replace

import numpy as np

from segue.training.fit.optimisers import OptimiserName
from segue.training.networks.dense import DenseConfig
from segue.training.networks.layers import Activation
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

NETWORK = DenseConfig(
    look="flat", hidden=(128, 64, 32), norm="none", activation="elu", init="he", input_dropout=0.0, hidden_dropout=0.0
)
OPTIMISERS: dict[str, tuple[OptimiserName, float]] = {
    "sgd": ("sgd", 0.0), "momentum": ("sgd", 0.9), "rmsprop": ("rmsprop", 0.0), "adam": ("adam", 0.0),
}  # fmt: skip
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "relu", "elu", "selu")
RATES = (1e-4, 2e-3, 4e-2)


def cells(scale: Scale) -> list[Cell]:
    """Return all rules at all rates, then all activations at one."""
    loop = scale.loop(replace(LOOP, epochs=20))
    rules = {
        f"{name} {rate:g}": LabelFit(
            scale.network(NETWORK), replace(loop, optimiser=optimiser, momentum=momentum, learning_rate=rate)
        )
        for name, (optimiser, momentum) in OPTIMISERS.items()
        for rate in RATES
    }
    shapes = {
        f"{one}, adam 0.002": LabelFit(
            scale.network(replace(NETWORK, activation=one)), replace(loop, optimiser="adam", learning_rate=2e-3)
        )
        for one in ACTIVATIONS
    }
    return grid(scale, rules | shapes)


def words(found: Found) -> list[str]:
    """Compare what the rate decides with what rule and activation decide."""
    mean = {name: float(np.mean(found.accuracies(name))) for name in found.outcomes}
    by_rule = {rule: [mean[f"{rule} {rate:g}"] for rate in RATES] for rule in OPTIMISERS}
    over_rates = np.mean([max(values) - min(values) for values in by_rule.values()])
    over_rules = np.ptp([max(values) for values in by_rule.values()])
    over_shapes = np.ptp([mean[f"{one}, adam 0.002"] for one in ACTIVATIONS])
    return [
        f"Between the best and the worst rate of a rule: {100 * over_rates:.1f} points. Between rules, each at its "
        "best "
        f"rate: {100 * over_rules:.1f}. Between activations: {100 * over_shapes:.1f}. "
        + (
            "The rate matters most here too."
            if over_rates > max(over_rules, over_shapes)
            else "The rate is not what matters most here."
        )
    ]


STUDY = Study(
    title="Update rules, activations and rates",
    varies="sgd, momentum 0.9, rmsprop, adam at rates 1e-4, 2e-3, 4e-2; tanh, relu, elu, selu",
    fixed="three hidden layers of 128, 64 and 32, He, no norm, batch 50, 20 epochs",
    original="EMNIST: about 85 % (ELU, rate 0.002); RMSProp, Adam and batch norm no better; the rate matters most",
    cells=cells,
    claims=(Claim("momentum 0.002", "sgd 0.002", "Momentum helps at 0.002"),),
    words=words,
    pictures=("bars", "curves"),
)
