"""The study's baseline: a dense network of three hidden layers, with and without stacked autoencoders first."""

from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import MLP, MLP_LOOP
from segue.training.studies.study import Cell, Claim, Scale, Study, grid

PRETRAIN_EPOCHS = 10


def cells(scale: Scale) -> list[Cell]:
    """Return both networks, from each seed."""
    network, loop = scale.network(MLP), scale.loop(MLP_LOOP)
    assert network.shape == "dense"
    epochs = min(PRETRAIN_EPOCHS, loop.epochs)
    return grid(
        scale,
        {
            "without pretraining": LabelFit(network, loop),
            "pretrained by autoencoders": LabelFit(network, loop, pretrain_epochs=epochs),
        },
    )


STUDY = Study(
    title="The baseline: a dense network, with and without autoencoders first",
    varies="whether each hidden layer is pretrained as a non-linear autoencoder (10 epochs a layer)",
    fixed="3000-500-500-25-10, tanh, batch norm, keep 0.7 and 0.837, L2 1e-2, Adam 1e-4, batch 50, 35 epochs",
    original="about 50 %, pretrained; without pretraining not told",
    cells=cells,
    claims=(Claim("pretrained by autoencoders", "without pretraining", "Pretraining helps"),),
)
