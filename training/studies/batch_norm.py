"""Batch normalisation in the recurrence, at two lengths of parts and over 50 and 100 epochs."""

from dataclasses import replace

import numpy as np

from segue.training.networks.layers import Norm
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP, RNN
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

NAMES: dict[Norm, str] = {"none": "RNN", "batch": "BN-RNN"}


def cells(scale: Scale) -> list[Cell]:
    """Return both networks at both lengths; 50 epochs are the first half of 100, since the rate is constant."""
    loop = scale.loop(replace(LOOP, epochs=100))
    return grid(
        scale,
        {
            f"{name}, n = {n}": LabelFit(scale.network(replace(RNN, norm=norm, bptt_steps=n)), loop)
            for norm, name in NAMES.items()
            for n in (4, 8)
        },
    )


def words(found: Found) -> list[str]:
    """Tell the accuracy after half of the epochs and the swing between epochs."""
    told = []
    for setting, outcomes in found.outcomes.items():
        half, swing = (
            np.mean([one.figures.get(name, 0.0) for one in outcomes]) for name in ("half of the epochs", "swing")
        )
        full = np.mean([one.accuracy for one in outcomes])
        told.append(f"{setting}: {half:.3f} after half, {full:.3f} after all; swing {100 * swing:.2f} points.")
    return told


STUDY = Study(
    title="Batch normalisation in the recurrence",
    varies="batch norm between affine map and tanh, or none; parts of 4 and 8 segments; after 50 and after 100 epochs",
    fixed="state 341, Adam 1e-4, batch 50; norm parameters and moving averages shared by all steps, epsilon 1e-3",
    original="57.44 % (n = 4, 50 epochs, no norm, strong oscillation), over 58 (50 epochs), 61.17 (100), over 62 % "
    "(n = 8, 100)",
    cells=cells,
    claims=(
        Claim("BN-RNN, n = 4", "RNN, n = 4", "Batch norm raises the accuracy at 4 segments"),
        Claim("BN-RNN, n = 8", "RNN, n = 8", "Batch norm raises the accuracy at 8 segments"),
        Claim("BN-RNN, n = 8", "BN-RNN, n = 4", "With batch norm, 8 segments are better than 4"),
    ),
    words=words,
)
