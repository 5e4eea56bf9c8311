"""A search for the keep probabilities of the baseline's input and hidden layers."""

from dataclasses import replace

from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import MLP, MLP_LOOP
from segue.training.studies.search import Range, Search, Values
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

SPACE = {"input keep": Range(0.7, 1.0), "hidden keep": Range(0.4, 1.0)}


def fit_of(values: Values, settings: tuple[DenseConfig, LoopConfig]) -> LabelFit:
    """Return the baseline with the keep probabilities of a trial."""
    network, loop = settings
    dropped, hidden_dropped = 1 - values["input keep"], 1 - values["hidden keep"]
    return LabelFit(replace(network, input_dropout=dropped, hidden_dropout=hidden_dropped), loop)


def cells(scale: Scale) -> list[Cell]:
    """Return the search, and the network without dropout beside it."""
    network, loop = scale.network(MLP), scale.loop(MLP_LOOP)
    assert isinstance(network, DenseConfig)
    calls, starts = (4, 2) if scale.quick else (25, 5)
    search = Search(SPACE, fit_of, (network, loop), calls, starts, "best")
    everything = fit_of({"input keep": 1.0, "hidden keep": 1.0}, (network, loop))
    return grid(scale, {"search": search, "no dropout": everything})


def words(found: Found) -> list[str]:
    """Tell what each search found."""
    told = "; ".join(
        f"input {one.figures['best input keep']:.2f}, hidden {one.figures['best hidden keep']:.2f}"
        for one in found.outcomes["search"]
    )
    return [f"Keep probabilities found, by seed: {told}. The original: 0.7 and 0.84."]


STUDY = Study(
    title="A search for the keep probabilities of the baseline",
    varies="keep probability of the input (0.7 to 1) and of the hidden layers (0.4 to 1), evenly",
    fixed="the baseline; 5 random starts, 25 calls of 35 epochs; objective: best validation accuracy",
    original="0.7 and 0.84; from 48 to 50 %",
    cells=cells,
    claims=(Claim("search", "no dropout", "Dropout by the searched shares helps"),),
    words=words,
    pictures=("convergence", "curves"),
    seeds=1,
)
