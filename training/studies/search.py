"""Searches: settings drawn by a Gaussian process over those tried so far, each trial a cell that is kept.

The sampler is Optuna's (Gaussian process, log expected improvement). The original study had scikit-optimize's lower
confidence bound with kappa 1.9; both trade what looks best against what is least known.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segue.errors import MissingDependencyError
from segue.stages import Stages, key
from segue.training.studies.fits import Objective, objective
from segue.training.studies.study import Bench, Fit, Outcome, Trial, describe, outcome_from

Values = dict[str, float]


@dataclass(frozen=True)
class Range:
    """What a setting is drawn from: an interval, evenly or by the logarithm, or some numbers."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Search:
    """A search for the settings of the best objective, and a longer training with them."""

    space: Mapping[str, Range]
    fit: Callable[[Values, Any], Fit]  # A function of a module, of values and `settings`.
    settings: Any  # What else `fit` needs: all that decides on a trial besides its values.
    calls: int
    starts: int  # Calls at random, before the Gaussian process takes over.
    objective: Objective
    then: Callable[[Values, Any], Fit] | None = None  # The training with the best values.

    def run(self, bench: Bench, seed: int) -> Outcome:
        """Search; trials that were run before are not run again, and lead to the same next ones."""
        name = f"{self.fit.__module__.rpartition('.')[2]}-{key(describe(self))[:8]}-{seed}"
        trials: list[Trial] = []
        stages = Stages(bench.folder / "trials")
        best: Outcome | None = None
        for number in range(self.calls):
            values = suggest(self.space, trials, self.starts, seed)

            def run(values: Values = values) -> Outcome:
                return self.fit(values, self.settings).run(bench, seed)

            made_from = {
                "fit": describe(self.fit(values, self.settings)), "seed": seed, "songs": bench.songs.fingerprint(),
                "rows": [bench.train.tolist(), bench.validation.tolist()],
            }  # fmt: skip
            done = outcome_from(stages.result(f"{name}-{number}", run, settings=made_from))
            found = objective(done.epochs, self.objective) if done.epochs else 0.0
            trials.append(Trial(values, found, done.accuracy))
            if best is None or found >= max(trial.objective for trial in trials):
                best = done
        assert best is not None
        top = max(trials, key=lambda trial: trial.objective)
        figures = {f"best {name}": value for name, value in top.values.items()} | {"objective": top.objective}
        if self.then is None:
            return Outcome(top.objective, best.epochs, figures, trials)
        full = self.then(top.values, self.settings).run(bench, seed)
        return Outcome(full.accuracy, full.epochs, figures | full.figures, trials)


def suggest(space: Mapping[str, Range], trials: list[Trial], starts: int, seed: int) -> Values:
    """Return what to try after `trials`; the same trials and seed lead to the same values."""
    optuna = _optuna()
    distributions = {name: _distribution(optuna, one) for name, one in space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # A sampler of its own for each call, so that a search which goes on draws what it would have drawn.
        sampler = optuna.samplers.GPSampler(seed=1000 * seed + len(trials), n_startup_trials=starts)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for trial in trials:
        params = {name: trial.values[name] for name in space}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.objective))
    return dict(study.ask(distributions).params)


def _distribution(optuna: Any, one: Range) -> Any:
    kinds = optuna.distributions
    if one.choices:
        return kinds.CategoricalDistribution(one.choices)
    if one.whole:
        return kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
    return kinds.FloatDistribution(one.low, one.high, log=one.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError("a search needs Optuna: pip install 'segue-genres[study]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
