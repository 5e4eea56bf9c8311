"""Gaussian noise on the segments beside dropout: two ways against overfitting."""

from dataclasses import replace

from segue.training.fit.augmentation import AugmentationConfig
from segue.training.networks.dense import DenseConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import MLP, MLP_LOOP
from segue.training.studies.study import Cell, Claim, Scale, Study, grid


def cells(scale: Scale) -> list[Cell]:
    """Return the baseline without either, with each, and with both."""
    network, loop = scale.network(MLP), scale.loop(MLP_LOOP)
    assert isinstance(network, DenseConfig)
    bare = replace(network, input_dropout=0.0, hidden_dropout=0.0)
    noisy = {size: replace(loop, augmentation=AugmentationConfig(noise=size)) for size in (0.1, 0.3, 1.0)}
    settings = {"neither": LabelFit(bare, loop), "dropout": LabelFit(network, loop)}
    settings |= {f"noise {size:g}": LabelFit(bare, one) for size, one in noisy.items()}
    return grid(scale, settings | {"dropout and noise 0.3": LabelFit(network, noisy[0.3])})


STUDY = Study(
    title="Gaussian noise beside dropout",
    varies="noise on every number of a window (0.1, 0.3, 1 standard deviations), dropout (keep 0.7 and 0.837), both, "
    "neither",
    fixed="the baseline, Adam 1e-4, batch 50, 35 epochs",
    original="left open",
    cells=cells,
    claims=(
        Claim("dropout", "neither", "Dropout helps"),
        Claim("noise 0.3", "neither", "Noise helps"),
        Claim("dropout and noise 0.3", "dropout", "Noise adds to dropout"),
    ),
)
