"""What calibration songs can promise: p-values that hold at any number of songs, and how many songs a promise takes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

Doubles = NDArray[np.float64]

# Of the stake that a single loss could ruin. Where songs are few and losses rare, a half makes less than half as many
# promises, and more than this costs at a loss what it gains between losses; with many songs it hardly matters.
LARGEST_STAKE = 0.75
POWER = 0.8  # Songs are enough for a promise when so large a share of calibration sets of that size supports it.
MOST_SONGS = 10**9
STEADY = 10_000  # Songs after which stakes hardly change.


def p_value_of_losses(losses: Doubles, margin: float, confidence: float) -> float:
    """Return a p-value, valid at any sample size, for "the mean loss is above `margin`"; losses (n,) lie in -1..1.

    A bet against the hypothesis that grows whenever a loss is below the margin: under the hypothesis the capital is a
    non-negative supermartingale, so it exceeds 1 / p with probability p at most (Ville). The stakes are the predictable
    plug-in of Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, JRSS B 2024; they are
    set for the level 1 - `confidence`, but the value is valid at every level.
    """
    values = (losses + 1) / 2
    mean = (margin + 1) / 2
    counts = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (counts + 1)
    variances = (0.25 + np.cumsum(np.square(values - means))) / (counts + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    capital = np.cumsum(np.log1p(_stakes(before, len(values), mean, confidence) * (mean - values)))
    return float(np.exp(-max(0.0, capital.max())))


def p_value_of_errors(errors: int, songs: int, rate: float) -> float:
    """Return the exact binomial p-value for "the error rate is at least `rate`", from so many errors on so many songs.

    What Clopper and Pearson's one-sided interval inverts: *The use of confidence or fiducial limits*, Biometrika 1934.
    """
    return float(binom.cdf(errors, songs, rate))


def songs_for_losses(losses: Doubles, margin: float, confidence: float) -> int | None:
    """Return about how many songs with losses like these promise a mean loss of at most `margin`; None if none do.

    With so many songs, drawn from the songs seen, four calibration sets in five support the promise: the logarithm of
    the capital of `p_value_of_losses` is a sum of independent terms, taken as normal. The answer is as uncertain as the
    mean of the losses is.
    """
    if losses.mean() >= margin:
        return None
    kinds, counts = np.unique((losses + 1) / 2, return_counts=True)
    shares, mean = counts / len(losses), (margin + 1) / 2
    variance = float(shares @ np.square(kinds - shares @ kinds))

    def enough(songs: int) -> bool:
        seen = np.arange(min(songs, STEADY))
        stakes = _stakes((0.25 + seen * variance) / (seen + 1), songs, mean, confidence)
        growth = np.log1p(np.outer(stakes, mean - kinds))
        each = growth @ shares
        spread = np.square(growth) @ shares - np.square(each)
        rest = songs - len(seen)
        expected = each.sum() + rest * each[-1]
        deviation = np.sqrt(spread.sum() + rest * spread[-1])
        return bool(expected - norm.ppf(POWER) * deviation >= np.log(1 / (1 - confidence)))

    return _fewest(enough)


def songs_for_accuracy(accuracy: float, asked: float, confidence: float) -> int | None:
    """Return about how many songs promise an accuracy of at least `asked` where the true one is `accuracy`, or None.

    With so many songs, four calibration sets in five pass the exact binomial test.
    """
    if accuracy <= asked:
        return None

    def enough(songs: int) -> bool:
        most_errors = binom.ppf(1 - confidence, songs, 1 - asked) - 1
        return bool(binom.cdf(most_errors, songs, 1 - accuracy) >= POWER)

    return _fewest(enough)


def _stakes(variances: Doubles, songs: int, mean: float, confidence: float) -> Doubles:
    """Return the share of the capital that is staked on each of so many songs, given the variance before it."""
    wanted = np.sqrt(2 * np.log(1 / (1 - confidence)) / (songs * variances))
    stakes: Doubles = np.minimum(wanted, LARGEST_STAKE / (1 - mean))
    return stakes


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of songs that is enough, to two digits or so; None beyond a billion."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_SONGS:
            return None
    low = high // 2
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
