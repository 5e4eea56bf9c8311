"""How flat student, pooled student and BN-RNN fare over the number of training songs."""

from segue.training.fit.loop import LoopConfig
from segue.training.networks.build import SingleConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.study import Cell, Claim, Scale, Study, grid

STUDENT_LOOP = LoopConfig(epochs=15, learning_rate=2e-3)
MODELS: dict[str, tuple[SingleConfig, LoopConfig]] = {
    "pooled student": (DenseConfig(), STUDENT_LOOP),
    "BN-RNN": (RecurrentConfig(), LoopConfig(epochs=15)),
    "flat student": (DenseConfig(look="flat", hidden=(828,), input_dropout=0.5, hidden_dropout=0.5), STUDENT_LOOP),
}


def cells(scale: Scale) -> list[Cell]:
    """Return every model on all training songs, on half of them, a quarter, and so on."""
    settings = {
        f"{name}, 1/{part} of the songs": LabelFit(scale.network(config), scale.loop(loop), songs=scale.n_train // part)
        for name, (config, loop) in MODELS.items()
        for part in scale.some((1, 2, 4, 8, 16), 2)
        if scale.n_train // part >= 20
    }
    return grid(scale, settings)


STUDY = Study(
    title="How many songs to learn from",
    varies="training songs: all, a half, a quarter, an eighth, a sixteenth; pooled and flat student, BN-RNN",
    fixed="15 epochs of one cycle, from labels alone",
    original="earlier here, on up to 16,000 synthetic songs: the flat student soon stops gaining, the BN-RNN goes on",
    cells=cells,
    claims=(
        Claim(
            "BN-RNN, 1/1 of the songs",
            "flat student, 1/1 of the songs",
            "With all songs, the BN-RNN is ahead of the flat student",
        ),
    ),
    pictures=("bars", "curves"),
)
