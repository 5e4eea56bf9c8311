"""Batch norm in the recurrence at two constant rates: how the accuracy swings, and where it ends."""

from dataclasses import replace

import numpy as np

from segue.training.fit.loop import LoopConfig
from segue.training.networks.layers import Norm
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

LOOP = LoopConfig(epochs=8, optimiser="adam", schedule="constant")
NAMES: dict[Norm, str] = {"batch": "BN-RNN", "none": "RNN"}
RATES = {3e-4: 8, 1e-3: 10}  # Epochs at each rate.


def cells(scale: Scale) -> list[Cell]:
    """Return both networks at both rates."""
    return grid(
        scale,
        {
            f"{name}, rate {rate:g}": LabelFit(
                scale.network(RecurrentConfig(state=128, norm=norm)),
                scale.loop(replace(LOOP, learning_rate=rate, epochs=epochs)),
            )
            for rate, epochs in RATES.items()
            for norm, name in NAMES.items()
        },
    )


def words(found: Found) -> list[str]:
    """Tell the swing between epochs."""
    return [
        f"{name}: swing {100 * np.mean([one.figures.get('swing', 0.0) for one in outcomes]):.2f} points."
        for name, outcomes in found.outcomes.items()
    ]


STUDY = Study(
    title="Batch norm in the recurrence at two rates",
    varies="batch norm or none, at 3e-4 (8 epochs) and 1e-3 (10 epochs)",
    fixed="state 128, n = 8, Adam at a constant rate, batch 256",
    original="earlier here, on 20,000 synthetic songs: smoother with batch norm at 3e-4, rougher at 1e-3, no higher "
    "at either",
    cells=cells,
    claims=(
        Claim("BN-RNN, rate 0.0003", "RNN, rate 0.0003", "Batch norm raises the accuracy at 3e-4"),
        Claim("BN-RNN, rate 0.001", "RNN, rate 0.001", "Batch norm raises the accuracy at 1e-3"),
    ),
    words=words,
    pictures=("curves", "bars"),
    seeds=5,
)
