"""Calibration: temperatures, and a threshold with a promise, from songs that neither model trained on."""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from data.errors import ConfigError
from data.metrics import nll, softmax
from data.song import Floats, Ints
from serving.bundle import Guarantee
from serving.cascade import Opinion
from serving.tradeoff import answers

TEMPERATURES = (0.05, 20.0)
THRESHOLDS = 101  # Grid points from 0 to log(n_classes), fixed before any song is seen.


@dataclass(frozen=True)
class CalibrationConfig:
    """What the default threshold promises."""

    points: float = 1.0  # The cascade's accuracy is at most so many points (0.01) below the teacher's ...
    confidence: float = 0.95  # ... with this confidence over the draw of the calibration songs.

    def __post_init__(self) -> None:
        """Refuse promises that mean nothing."""
        if not 0 < self.points < 100 or not 0.5 <= self.confidence < 1:
            raise ConfigError(f"expected points between 0 and 100 and confidence from 0.5 up to 1; found {self}")


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """Return the temperature in 0.05..20 with the smallest nll of logits (n, n_classes) on labels (n,).

    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda t: nll(softmax(logits, float(np.exp(t))), labels), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def choose_threshold(
    student: Opinion, teacher: Opinion, labels: Ints, config: CalibrationConfig, seed: int = 0
) -> tuple[float, Guarantee]:
    """Return the largest, so cheapest, threshold in nats whose promise the calibration songs support, and the promise.

    Fixed-sequence testing (Angelopoulos et al., *Learn then Test*, 2021): thresholds on a fixed grid are tested from
    the safe end, where every song falls back, towards the cheap end, each at level 1 - confidence, up to the first that
    fails. So the promise holds for the threshold that is chosen, although it was searched for. Where not even the first
    passes, nothing is promised: the threshold is then the cheapest that is, on these very songs, within the margin of
    the best threshold.
    """
    grid = np.linspace(0.0, np.log(student.probs.shape[1]), THRESHOLDS)
    margin = config.points / 100
    order = np.random.default_rng(seed).permutation(len(labels))
    teacher_right = (teacher.probs.argmax(axis=1) == labels).astype(float)
    losses = [(teacher_right - (answers(student, teacher, one).choice == labels))[order] for one in grid]
    passed = list(takewhile(lambda one: p_value(one, margin, config.confidence) <= 1 - config.confidence, losses))
    if passed:
        chosen = len(passed) - 1
    else:
        means = np.array([one.mean() for one in losses])
        chosen = int(np.flatnonzero(means <= means.min() + margin)[-1])
    return float(grid[chosen]), Guarantee(config.points, config.confidence, len(labels), kept=bool(passed))


def p_value(losses: NDArray[np.float64], margin: float, confidence: float) -> float:
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
    stakes = np.minimum(np.sqrt(2 * np.log(1 / (1 - confidence)) / (len(values) * before)), 0.5 / (1 - mean))
    capital = np.cumsum(np.log1p(stakes * (mean - values)))
    return float(np.exp(-max(0.0, capital.max())))
