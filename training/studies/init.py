"""Weights that begin too small: N(0, sigma) at three sigmas, with and without batch norm."""

from dataclasses import replace

from segue.training.studies import depth
from segue.training.studies.fits import LabelFit
from segue.training.studies.study import Cell, Claim, Scale, Study, grid

SIGMAS = (1e-1, 1e-3, 1e-4)


def cells(scale: Scale) -> list[Cell]:
    """Return the network of three layers at each sigma, with and without."""
    loop, hidden = scale.loop(depth.LOOP), depth.LAYERS["3 layers"]
    return grid(
        scale,
        {
            f"sigma {sigma:g}, {name}": LabelFit(
                replace(depth.network(hidden, norm), init="normal", init_sigma=sigma), loop
            )
            for sigma in SIGMAS
            for norm, name in depth.NAMES.items()
        },
    )


STUDY = Study(
    title="Weights that begin too small",
    varies="sigma of the first weights, N(0, sigma): 0.1, 0.001, 0.0001; with and without batch norm",
    fixed="3 layers [50 50], ReLU, the cyclic rate of depth",
    original="CIFAR-10, without and with BN: 53.24 and 53.49 % at 0.1, 50.29 and 53.88 at 0.001, 10 and 53.44 at "
    "0.0001",
    cells=cells,
    claims=(
        Claim("sigma 0.0001, with BN", "sigma 0.0001, without BN", "Without batch norm, tiny weights learn nothing"),
        Claim("sigma 0.1, without BN", "sigma 0.0001, without BN", "Without batch norm, the first weights matter"),
    ),
    pictures=("bars", "curves"),
)
