"""Normalisers: batch, layer and none, over batch sizes, scales of the first weights, and L2 beside dropout."""

from dataclasses import replace

import numpy as np

from segue.training.networks.dense import DenseConfig
from segue.training.networks.layers import Norm
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

NETWORK = DenseConfig(
    look="flat",
    hidden=(100, 50),
    activation="relu",
    init="normal",
    init_sigma=1e-2,
    input_dropout=0.0,
    hidden_dropout=0.0,
)
NORMS: tuple[Norm, ...] = ("batch", "layer", "none")
BATCHES = (5, 10, 50, 256)
SCALES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def cells(scale: Scale) -> list[Cell]:
    """Return every norm at every batch size, every scale, and under L2, dropout, neither."""
    loop = scale.loop(replace(LOOP, epochs=20, learning_rate=1e-3))
    settings: dict[str, LabelFit] = {}
    for norm in NORMS:
        network = replace(NETWORK, norm=norm)
        for batch in scale.some(BATCHES, 2):
            settings[f"{norm}, batch {batch}"] = LabelFit(network, replace(loop, batch_songs=batch))
        for sigma in scale.some(SCALES, 2):
            settings[f"{norm}, scale {sigma:g}"] = LabelFit(replace(network, init_sigma=sigma), loop)
        settings[f"{norm}, L2"] = LabelFit(network, replace(loop, weight_decay=1e-2, decay="weights"))
        settings[f"{norm}, dropout"] = LabelFit(replace(network, hidden_dropout=0.5), loop)
        settings[f"{norm}, longer"] = LabelFit(network, replace(loop, epochs=loop.epochs * 2))
    return grid(scale, settings)


def words(found: Found) -> list[str]:
    """Tell how far the scale of the first weights moves each norm."""
    told = []
    for norm in NORMS:
        means = [float(np.mean(found.accuracies(name))) for name in found.outcomes if name.startswith(f"{norm}, scale")]
        told.append(f"{norm}: {min(means):.3f} to {max(means):.3f} over the scales of the first weights.")
    return told


STUDY = Study(
    title="Normalisers",
    varies="batch, layer and no norm; batches of 5, 10, 50, 256; first weights N(0, 1e-4 to 1); L2 1e-2, dropout "
    "0.5; twice as long",
    fixed="two hidden layers of 100 and 50, ReLU, Adam 1e-3, batch 50, 20 epochs, where not varied",
    original="validation 33.1 to 35.4 % with BN; BN evens out bad weight scales; larger batches help up to a point; "
    "left open: "
    "norms beside regularisation, and more than 10 epochs",
    cells=cells,
    claims=(
        Claim("batch, scale 0.0001", "none, scale 0.0001", "Batch norm evens out weights that begin too small"),
        Claim("batch, scale 1", "none, scale 1", "Batch norm evens out weights that begin too large"),
        Claim("batch, batch 256", "batch, batch 5", "Larger batches help batch norm"),
    ),
    words=words,
    pictures=("bars",),
    seeds=2,
)
