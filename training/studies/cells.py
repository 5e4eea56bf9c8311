"""Cells of the recurrence: plain, GRU and LSTM."""

from dataclasses import replace

from segue.training.networks.recurrent import Cell as Kind
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP, RNN
from segue.training.studies.study import Cell, Claim, Scale, Study, grid

KINDS: tuple[Kind, ...] = ("rnn", "gru", "lstm")


def cells(scale: Scale) -> list[Cell]:
    """Return a batch-normed recurrence of each kind."""
    network = replace(RNN, norm="batch", bptt_steps=8)
    loop = scale.loop(replace(LOOP, epochs=50))
    return grid(scale, {kind: LabelFit(scale.network(replace(network, cell=kind)), loop) for kind in KINDS})


STUDY = Study(
    title="Cells of the recurrence",
    varies="the cell: rnn, gru, lstm",
    fixed="batch norm, state 341, n = 8, Adam 1e-4, batch 50, 50 epochs",
    original="left open",
    cells=cells,
    claims=(
        Claim("gru", "rnn", "Gates help (GRU)"),
        Claim("lstm", "rnn", "Gates help (LSTM)"),
    ),
)
