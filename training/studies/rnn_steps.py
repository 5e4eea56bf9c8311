"""How many segments a part of truncated backpropagation has, in a recurrence whose state is the logits."""

from dataclasses import replace

import numpy as np

from segue.training.networks.recurrent import RecurrentConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP, PART_LENGTHS
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid


def cells(scale: Scale) -> list[Cell]:
    """Return a recurrence for each length of parts; the state has a neuron for each class and is the logits."""
    network = RecurrentConfig(norm="none", state=scale.n_classes, readout="none")
    lengths = scale.some(PART_LENGTHS, 5)
    return grid(scale, {f"n = {n}": LabelFit(replace(network, bptt_steps=n), scale.loop(LOOP)) for n in lengths})


def words(found: Found) -> list[str]:
    """Compare the lengths that were flat in the original with those beyond."""
    mean = {int(name.rpartition(" ")[2]): float(np.mean(found.accuracies(name))) for name in found.outcomes}
    flat = [value for n, value in mean.items() if 4 <= n <= 15]
    beyond = [value for n, value in mean.items() if n > 15]
    best = ", ".join(str(n) for n in sorted(mean, key=lambda n: -mean[n])[:7])
    told = [f"Best lengths here: {best}. The original's: 8, 10, 15, 4, 6, 3, 5."]
    if flat and beyond:
        told.append(
            f"Mean accuracy from 4 to 15 segments: {np.mean(flat):.3f}, from {min(flat):.3f} to {max(flat):.3f}; "
            "beyond: "
            f"{np.mean(beyond):.3f}."
        )
    return told


STUDY = Study(
    title="Segments between two corrections of a recurrence",
    varies=f"the length n of parts: {' '.join(map(str, PART_LENGTHS))}",
    fixed="state = classes with softmax straight on the state, tanh, no norm, Adam 1e-4, batch 50, 35 epochs",
    original="flat at about 37 % from 4 to 15, less beyond; best seven: 8 10 15 4 6 3 5",
    cells=cells,
    claims=(
        Claim("n = 8", "n = 60", "8 segments are better than 60"),
        Claim("n = 4", "n = 30", "4 segments are better than 30"),
    ),
    words=words,
    pictures=("bars", "curves"),
)
