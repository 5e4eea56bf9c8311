"""Verdicts: what the cells of a study say about a claim, with an interval, in words."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from segue.training.studies.study import Claim, Found


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval around it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(values: list[float]) -> Interval:
    """Return mean and 95 % interval of values from several seeds, by Student's t; of one value, that value alone."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, mean, mean)
    half = float(student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def verdict(found: Found, claim: Claim) -> str:
    """Return what two settings say about a claim.

    Their differences are taken seed by seed. Of a single seed, the songs' own sampling error stands in.
    """
    if not {claim.ahead, claim.behind} <= set(found.outcomes):
        return f"{claim.says}: not run at this scale."
    pairs = zip(found.accuracies(claim.ahead), found.accuracies(claim.behind), strict=True)
    differences = [100 * (ahead - behind) for ahead, behind in pairs]
    one = interval(differences)
    seeds = f"{len(differences)} seed{'s' * (len(differences) > 1)}"
    if len(differences) < 2:
        share = np.mean([*found.accuracies(claim.ahead), *found.accuracies(claim.behind)])
        half = 100 * 1.96 * float(np.sqrt(2 * share * (1 - share) / found.n_validation))
        one = Interval(one.mean, one.mean - half, one.mean + half)
        seeds = f"one seed, the interval is that of {found.n_validation} songs"
    if one.low > 0:
        word = "holds here"
    elif one.high < 0:
        word = "does not hold here: it is the other way round"
    else:
        word = "cannot be told here"
    return (
        f"{claim.says}: {word}. {claim.ahead} is {one.mean:+.1f} points from {claim.behind} "
        f"(95 %: {one.low:+.1f} to {one.high:+.1f}; {seeds})."
    )
