"""The recurrence over ten folds: how much its accuracy differs from one to the next."""

from dataclasses import replace

import numpy as np

from segue.training.studies.fits import FoldFit
from segue.training.studies.protocol import LOOP, RNN
from segue.training.studies.study import Cell, Found, Scale, Study

FOLDS = 10


def cells(scale: Scale) -> list[Cell]:
    """Return a training for each fold; its logits are kept for students."""
    folds = 3 if scale.quick else FOLDS
    network, loop = scale.network(RNN), scale.loop(replace(LOOP, epochs=30))
    return [
        Cell(f"fold {fold + 1}", seed, FoldFit(network, loop, fold, folds))
        for fold in range(folds)
        for seed in range(scale.seeds)
    ]


def words(found: Found) -> list[str]:
    """Tell mean and range over the folds."""
    values = [outcome.accuracy for _, outcome in found.each()]
    return [
        f"Best accuracy by fold: {min(values):.3f} to {max(values):.3f}, mean {np.mean(values):.4f}, over "
        f"{len(values)} "
        "trainings. The original: 0.549 to 0.574, mean 0.5613."
    ]


STUDY = Study(
    title="The recurrence over ten folds",
    varies="the fold that is held out: stratified, artists kept together, shuffled",
    fixed="RNN 341, n = 4, no norm, Adam 1e-4, batch 50, 30 epochs; the accuracy is that of the best epoch",
    original="54.9 to 57.4 % by fold, mean 56.13 %",
    cells=cells,
    words=words,
    pictures=("boxes", "curves"),
    seeds=1,
)
