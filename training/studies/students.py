"""Students: searches for their size, dropout and L2 at two rates, then a full training with what was found."""

from dataclasses import replace
from typing import NamedTuple

from segue.training.fit.loop import LoopConfig
from segue.training.studies.fits import FoldFit, StudentFit
from segue.training.studies.protocol import LOOP, RNN, student
from segue.training.studies.search import Range, Search, Values
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid

FOLDS, FULL_EPOCHS = 10, 100


class Setting(NamedTuple):
    """What the students of a search have in common."""

    loop: LoopConfig
    teachers: tuple[FoldFit, ...]
    full_epochs: int


def fit_of(values: Values, setting: Setting) -> StudentFit:
    """Return the student of a trial."""
    network = student(int(values["hidden"]), values["input keep"], values["hidden keep"])
    return StudentFit(network, replace(setting.loop, weight_decay=values["L2"]), setting.teachers)


def full_fit_of(values: Values, setting: Setting) -> StudentFit:
    """Return the student of the best trial, to be trained in full."""
    return fit_of(values, setting._replace(loop=replace(setting.loop, epochs=setting.full_epochs)))


def cells(scale: Scale) -> list[Cell]:
    """Return the fold teachers, then the searches."""
    folds = 2 if scale.quick else FOLDS
    network, loop = scale.network(RNN), scale.loop(replace(LOOP, epochs=30))
    teachers = tuple(FoldFit(network, loop, fold, folds) for fold in range(folds))
    most = 40 if scale.quick else 2000
    space = {
        "input keep": Range(0.5, 1.0), "hidden keep": Range(0.5, 1.0), "hidden": Range(20, most, whole=True),
        "L2": Range(1e-3, 10.0, log=True),
    }  # fmt: skip
    searches = {}
    for rate, calls, epochs in ((1e-5, 50, 40), (1e-4, 25, 20)):
        of_trial = scale.loop(replace(LOOP, epochs=epochs, learning_rate=rate, decay="weights"))
        setting = Setting(of_trial, teachers, scale.loop(replace(LOOP, epochs=FULL_EPOCHS)).epochs)
        count, starts = (2, 1) if scale.quick else (calls, 5)
        searches[f"rate {rate:g}"] = Search(space, fit_of, setting, count, starts, "best tenth", full_fit_of)
    fold_cells = [Cell(f"teacher, fold {one.fold + 1}", 0, one) for one in teachers]
    return [*fold_cells, *grid(scale, searches, wave=1)]


def words(found: Found) -> list[str]:
    """Tell what each search found."""
    return [
        f"{name}: keep {one.figures['best input keep']:.2f} and {one.figures['best hidden keep']:.2f}, hidden "
        f"{one.figures['best hidden']:.0f}, L2 {one.figures['best L2']:.2g}; {one.figures['objective']:.3f} in the "
        "search, "
        f"{one.accuracy:.3f} in full."
        for name, one in found.each()
        if one.trials
    ]


STUDY = Study(
    title="Students: size, dropout and L2 at two learning rates",
    varies="keep probabilities (0.5 to 1), hidden neurons (20 to 2000), L2 (1e-3 to 10, by its logarithm), at 1e-5 "
    "and 1e-4",
    fixed="one hidden layer, tanh, batch norm, squared error to the logits of ten fold teachers (RNN 341, n = 4, 30 "
    "epochs); "
    "50 calls of 40 epochs and 25 of 20; then 100 epochs; objective: mean of the best tenth of the epochs",
    original="1e-5: keep 0.605 and 0.684, hidden 828, L2 0.062, about 46 %; 1e-4: 0.5 and 1.0, 1784, 0.001, 48 %, in "
    "full 50 %",
    cells=cells,
    claims=(Claim("rate 0.0001", "rate 1e-05", "The larger rate gives the better student"),),
    words=words,
    pictures=("convergence", "curves"),
    seeds=1,
)
