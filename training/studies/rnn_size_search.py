"""A search for the state and the part length of the recurrence."""

from dataclasses import replace

from segue.training.fit.loop import LoopConfig
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP, PART_LENGTHS, RNN
from segue.training.studies.search import Range, Search, Values
from segue.training.studies.study import Cell, Found, Scale, Study, grid


def fit_of(values: Values, loop: LoopConfig) -> LabelFit:
    """Return the recurrence of a trial."""
    return LabelFit(replace(RNN, state=int(values["state"]), bptt_steps=int(values["n"])), loop, compare="best tenth")


def cells(scale: Scale) -> list[Cell]:
    """Return the search."""
    space = {"state": Range(15, 40 if scale.quick else 500, whole=True), "n": Range(choices=PART_LENGTHS)}
    calls = 3 if scale.quick else 25
    return grid(scale, {"search": Search(space, fit_of, scale.loop(replace(LOOP, epochs=25)), calls, 1, "best tenth")})


def words(found: Found) -> list[str]:
    """Tell what each search found."""
    told = "; ".join(
        f"{one.figures['best state']:.0f} and {one.figures['best n']:.0f}" for one in found.outcomes["search"]
    )
    return [f"State and part length found, by seed: {told}. The original: 341 and 4."]


STUDY = Study(
    title="A search for the size of the recurrence",
    varies="state (15 to 500) and part length (one of the lengths of rnn-steps)",
    fixed="RNN with readout, no norm, Adam 1e-4, batch 50; 1 random start, 25 calls of 25 epochs; objective: mean of "
    "the "
    "best tenth of the epochs",
    original="341 and 4, about 56 %",
    cells=cells,
    words=words,
    pictures=("convergence", "curves"),
    seeds=1,
)
