"""Calibration and promises: what setting the dial takes, beside scipy's own routines where there are any."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import hypergeom

from segue.bench.suites.conftest import Measure
from segue.data.song import Floats, Ints
from segue.export.calibration.promise import p_value_of_losses
from segue.export.calibration.temperature import fit_temperature
from segue.serving.batch.agreement import agreed_threshold, most_disagreements
from segue.serving.predictions import Predictions
from segue.serving.tradeoff import tradeoff

SONGS = 5_000
CATALOGUE, SAMPLED, ALLOWED = 1_000_000, 5_000, 20_000


@pytest.fixture(scope="module")
def labels() -> Ints:
    """The classes of some songs."""
    return np.random.default_rng(0).integers(0, 10, SONGS)


@pytest.fixture(scope="module")
def logits(labels: Ints) -> Floats:
    """What a model says of them, right more often than not, and too sure of itself."""
    drawn = np.random.default_rng(1).normal(size=(SONGS, 10)).astype(np.float32)
    drawn[np.arange(SONGS), labels] += 1.5
    return 3 * drawn


def test_temperature(measure: Measure, logits: Floats, labels: Ints) -> None:
    """A temperature, by L-BFGS with the slope."""
    measure("temperature", lambda: fit_temperature(logits, labels), SONGS, by="Segue")


def test_temperature_by_scipy(measure: Measure, logits: Floats, labels: Ints) -> None:
    """The baseline: scipy's bounded search."""
    right = (np.arange(SONGS), labels)

    def nll(log_temperature: float) -> float:
        return float(-log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)[right].mean())

    measure(
        "temperature", lambda: minimize_scalar(nll, bounds=(-3, 3), method="bounded"), SONGS, by="scipy, bounded search"
    )


def test_most_disagreements(measure: Measure) -> None:
    """The most disagreements of a sample that still promise agreement."""
    found = measure(
        "promise of agreement", lambda: most_disagreements(CATALOGUE, SAMPLED, ALLOWED, 0.95), 1, "tests/s",
        by="Segue, bisection",
    )  # fmt: skip
    assert found == _largest()


def test_most_disagreements_by_scipy(measure: Measure) -> None:
    """The baseline: the exact test at every number at once."""
    measure("promise of agreement", _largest, 1, "tests/s", by="scipy, every number")


def _largest() -> int:
    x = np.arange(SAMPLED + 1)
    passes = hypergeom.cdf(x, CATALOGUE, ALLOWED + 1 + x, SAMPLED) <= 0.05
    return int(np.flatnonzero(passes)[-1])


def test_agreed_threshold(measure: Measure) -> None:
    """The threshold of such a promise."""
    rng = np.random.default_rng(2)
    doubts = rng.exponential(size=SAMPLED)
    disagree = rng.random(SAMPLED) < 0.3 * doubts / doubts.max()
    measure(
        "threshold",
        lambda: agreed_threshold(doubts, disagree, songs=CATALOGUE, agree=0.98, confidence=0.95),
        SAMPLED, by="agreement, no labels",
    )  # fmt: skip


def test_losses(measure: Measure) -> None:
    """The test behind "at most a point below the teacher", at one threshold."""
    losses = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], SONGS, p=[0.02, 0.96, 0.02])
    measure("threshold", lambda: p_value_of_losses(losses, 0.01, 0.95), SONGS, by="points below the teacher, one test")


def test_tradeoff(measure: Measure, logits: Floats, labels: Ints) -> None:
    """The trade-off table: 41 thresholds."""
    one = np.ones(SONGS, np.int64)
    student, teacher = (Predictions.of(logits, temperature, one) for temperature in (2.0, 1.0))
    measure(
        "threshold",
        lambda: tradeoff(student, teacher, labels, student_us_per_window=10.0, teacher_us_per_window=100.0),
        SONGS, by="trade-off table, 41 thresholds",
    )  # fmt: skip
