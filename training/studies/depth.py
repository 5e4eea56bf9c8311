"""Depth: three and nine dense layers with and without batch norm, under a cyclic rate, and a search for L2."""

from dataclasses import replace

import numpy as np

from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.layers import Norm
from segue.training.studies.fits import LabelFit
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

# n_s = 5 n / batch, batch 100, two cycles.
LOOP = LoopConfig(
    batch_songs=100, optimiser="sgd", momentum=0.0, schedule="cyclic", learning_rate=1e-1, least_rate=1e-5,
    half_cycle_epochs=5, cycles=2, weight_decay=0.005, decay="weights", clip_norm=float("inf"),
)  # fmt: skip
LAYERS = {"3 layers": (50, 50), "9 layers": (50, 30, 20, 20, 10, 10, 10, 10)}
NAMES: dict[Norm, str] = {"batch": "with BN", "none": "without BN"}
SEARCHED = 20


def network(hidden: tuple[int, ...], norm: Norm) -> DenseConfig:
    """Return a network of ReLU layers after He, without dropout."""
    return DenseConfig(
        look="flat", hidden=hidden, norm=norm, activation="relu", init="he", input_dropout=0.0, hidden_dropout=0.0
    )


def cells(scale: Scale) -> list[Cell]:
    """Return the four networks, and the search for the L2 of one of them: a grid, then random values below 1e-2."""
    loop = scale.loop(LOOP)
    settings = {
        f"{layers}, {name}": LabelFit(network(hidden, norm), loop)
        for layers, hidden in LAYERS.items()
        for norm, name in NAMES.items()
    }
    coarse = np.logspace(-5, -1, SEARCHED)
    fine = 10 ** np.random.default_rng(0).uniform(-5, -2, SEARCHED)
    best = network(LAYERS["3 layers"], "batch")
    decays = [("L2 grid", value) for value in coarse] + [("L2 random", value) for value in fine]
    searched = {
        f"{name} {value:.2e}": LabelFit(best, replace(loop, weight_decay=float(f"{value:.3g}")))
        for name, value in scale.some(decays, 3)
    }
    return [*grid(scale, settings), *grid(replace(scale, seeds=1), searched)]


def words(found: Found) -> list[str]:
    """Tell which L2 was best."""
    searched = {name: np.mean(found.accuracies(name)) for name in found.outcomes if name.startswith("L2")}
    best = max(searched, key=lambda name: searched[name])
    return [f"Best of {len(searched)} values of L2: {best} ({searched[best]:.3f}). The original: 0.00564."]


STUDY = Study(
    title="Depth and batch norm, under a cyclic rate",
    varies="3 and 9 layers with and without batch norm; L2: 20 values on a grid from 1e-5 to 1e-1, then 20 random "
    "below 1e-2",
    fixed="ReLU, He, sgd, cyclic rate from 1e-5 to 1e-1, n_s = 5 n / batch, batch 100, 2 cycles, L2 0.005 on weights",
    original="CIFAR-10: 53.05 and 53.95 % at 3 layers, 45.18 and 51.6 % at 9 (without, with BN); L2 0.00564",
    cells=cells,
    claims=(
        Claim("3 layers, with BN", "3 layers, without BN", "Batch norm helps three layers (+1)"),
        Claim("9 layers, with BN", "9 layers, without BN", "Batch norm helps nine layers more (+5 to 6)"),
    ),
    words=words,
    pictures=("bars", "curves"),
)
