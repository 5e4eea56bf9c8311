"""One and two convolutions in time, with and without dense layers behind."""

from dataclasses import replace

import numpy as np

from segue.training.networks.build import SingleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid


def cells(scale: Scale) -> list[Cell]:
    """Return the convolutions, and a dense network beside them."""
    loop = scale.loop(replace(LOOP, epochs=35, learning_rate=1e-3))
    bare = ConvolutionalConfig(channels=(64,), summary=False, hidden=())
    settings: dict[str, SingleConfig] = {
        "dense": DenseConfig(look="flat", hidden=(128,)),
        "one": bare,
        "one, dense layer behind": replace(bare, hidden=(128,)),
        "two": replace(bare, channels=(64, 64)),
        "two, dense layer behind": replace(bare, channels=(64, 64), hidden=(128,)),
    }
    return grid(scale, {name: LabelFit(scale.network(one), loop) for name, one in settings.items()})


def words(found: Found) -> list[str]:
    """Tell the swing between epochs and the speed of each."""
    return [
        f"{name}: swing {100 * np.mean([one.figures.get('swing', 0) for one in outcomes]):.2f} points, "
        f"{np.mean([epoch.songs_per_s for one in outcomes for epoch in one.epochs]):.0f} songs/s in training."
        for name, outcomes in found.outcomes.items()
    ]


STUDY = Study(
    title="Convolutions in time",
    varies="no, one and two convolutions of 64 filters, with and without a dense layer of 128 behind",
    fixed="kernels of 7 segments, batch norm, Adam 1e-3, batch 50, 35 epochs",
    original="smoother and slower; with no dense layer behind, worse",
    cells=cells,
    claims=(
        Claim("one, dense layer behind", "one", "A dense layer behind one convolution helps"),
        Claim("two, dense layer behind", "two", "A dense layer behind two convolutions helps"),
        Claim("two, dense layer behind", "one, dense layer behind", "Two convolutions are better than one"),
    ),
    words=words,
)
