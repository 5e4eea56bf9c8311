"""Whole songs: central, random and many windows, and long songs split into parts that become songs of their own."""

from dataclasses import replace

from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP, RNN
from segue.training.studies.study import Cell, Claim, Scale, Study, grid

MANY = 9


def cells(scale: Scale) -> list[Cell]:
    """Return one network under each use of the songs."""
    network = scale.network(replace(RNN, norm="batch", bptt_steps=8))
    loop = scale.loop(replace(LOOP, epochs=50))
    return grid(
        scale,
        {
            "central window": LabelFit(network, loop),
            "random windows, two heard": LabelFit(network, replace(loop, windows=2)),
            f"random windows, {MANY} heard": LabelFit(network, replace(loop, windows=MANY)),
            "split into parts": LabelFit(network, loop, parts=True),
            f"split into parts, {MANY} heard": LabelFit(network, replace(loop, windows=MANY), parts=True),
        },
    )


STUDY = Study(
    title="More of a song than its middle",
    varies="the central window alone; random windows in training and the mean of several when validated; every 120 "
    "segments "
    "as a song of their own (parts of a song stay on one side)",
    fixed="BN-RNN 341, n = 8, Adam 1e-4, batch 50, 50 epochs. Two rows differ in what is validated too: 9 windows in "
    "place of 1",
    original="left open",
    cells=cells,
    claims=(
        Claim(f"random windows, {MANY} heard", "central window", "Random and many windows help"),
        Claim("split into parts", "central window", "Parts as songs of their own help"),
    ),
    least_segments=240,
)
