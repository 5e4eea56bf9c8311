"""Calibration: temperatures at their optimum, and a promise that holds as often as it says."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.errors import ConfigError
from data.song import Floats, Ints
from export.calibration import TEMPERATURES, CalibrationConfig, choose_threshold, fit_temperature, p_value
from serving.cascade import Opinion

Array = NDArray[np.float64]

MONTE_CARLO_SIGMAS = 3
ALPHA = 0.05


def drawn_logits(n: int, scale: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Return logits (n, 5) and labels drawn from softmax(logits / scale): the best temperature is near `scale`."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(0, 2, (n, 5))).astype(np.float32)
    gumbels = rng.gumbel(size=logits.shape)
    return logits, (logits / scale + gumbels).argmax(axis=1)


def best_on_a_fine_grid(logits: Floats, labels: Ints) -> float:
    """Return the temperature of the smallest nll among 3,000 that are 0.2 % apart."""
    grid = np.exp(np.linspace(log(0.05), log(20), 3000))
    tempered = logits[:, :, None].astype(np.float64) / grid
    losses = np.log(np.exp(tempered).sum(axis=1)) - tempered[np.arange(len(labels)), labels]
    return float(grid[losses.mean(axis=0).argmin()])


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_best_of_a_fine_grid(scale: float) -> None:
    logits, labels = drawn_logits(1000, scale)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(best_on_a_fine_grid(logits, labels), rel=2e-3)
    assert found == pytest.approx(scale, rel=0.15)


def test_a_temperature_stays_in_its_range() -> None:
    logits, labels = drawn_logits(500, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1)) == pytest.approx(TEMPERATURES[0], rel=0.01)
    assert fit_temperature(logits, (logits.argmax(axis=1) + 1) % 5) == pytest.approx(TEMPERATURES[1], rel=0.01)
    assert TEMPERATURES[0] < fit_temperature(logits, labels) < TEMPERATURES[1]


def drawn_losses(rng: np.random.Generator, n: int, worse: float, better: float) -> Array:
    """Return losses of n songs: 1 where only the teacher is right, -1 where only the cascade is, else 0."""
    return rng.choice([1.0, -1.0, 0.0], size=n, p=[worse, better, 1 - worse - better])


def plain_p_value(losses: Array, margin: float, confidence: float) -> float:
    """Return the p-value by a bet after a bet: every stake is set before its loss is seen."""
    capital = richest = 1.0
    seen: list[float] = []
    squares, variance = 0.25, 0.25
    for loss in losses:
        value, bound = (loss + 1) / 2, (margin + 1) / 2
        stake = min(sqrt(2 * log(1 / (1 - confidence)) / (len(losses) * variance)), 0.5 / (1 - bound))
        capital *= 1 + stake * (bound - value)
        richest = max(richest, capital)
        seen.append(value)
        squares += (value - (0.5 + sum(seen)) / (len(seen) + 1)) ** 2
        variance = squares / (len(seen) + 1)
    return 1 / richest


@given(losses=st.lists(st.sampled_from([-1.0, 0.0, 0.3, 1.0]), min_size=1, max_size=60), margin=st.floats(0.001, 0.9))
def test_a_p_value_is_one_over_the_largest_capital_of_a_plain_loop_of_bets(losses: list[float], margin: float) -> None:
    found = p_value(np.array(losses), margin, 1 - ALPHA)
    assert found == pytest.approx(plain_p_value(np.array(losses), margin, 1 - ALPHA), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "worse", "better"), [(50, 0.05, 0.04), (300, 0.01, 0.0), (300, 0.3, 0.29), (3000, 0.03, 0.02)]
)
def test_a_p_value_is_small_no_more_often_than_it_says(n: int, worse: float, better: float) -> None:
    rng, sets = np.random.default_rng(0), 2000
    margin = worse - better  # The edge of the hypothesis, where it is easiest to reject by mistake.
    values = np.array([p_value(drawn_losses(rng, n, worse, better), margin, 1 - ALPHA) for _ in range(sets)])
    for level in (ALPHA, 0.2):
        most = level + MONTE_CARLO_SIGMAS * sqrt(level * (1 - level) / sets)
        assert (values <= level).mean() <= most


@pytest.mark.parametrize(
    ("n", "worse", "better", "margin"), [(300, 0.0, 0.0, 0.03), (2000, 0.02, 0.02, 0.02), (2000, 0.1, 0.1, 0.05)]
)
def test_a_p_value_is_small_where_the_loss_is_clearly_below_the_margin(
    n: int, worse: float, better: float, margin: float
) -> None:
    rng, sets = np.random.default_rng(0), 200
    values = np.array([p_value(drawn_losses(rng, n, worse, better), margin, 1 - ALPHA) for _ in range(sets)])
    assert (values <= ALPHA).mean() > 0.9


@given(seed=st.integers(0, 1000), worse=st.floats(0, 0.5), better=st.floats(0, 0.5), margin=st.floats(0.001, 0.9))
def test_a_p_value_is_a_probability_and_falls_with_the_margin(
    seed: int, worse: float, better: float, margin: float
) -> None:
    losses = drawn_losses(np.random.default_rng(seed), 100, worse, better)
    value = p_value(losses, margin, 1 - ALPHA)
    assert 0 <= p_value(losses, margin + 0.05, 1 - ALPHA) <= value <= 1


def opinion_of(logits: Array) -> Opinion:
    return Opinion.of(logits.astype(np.float32), 1.0, np.ones(len(logits), dtype=np.int64))


def world(n: int, seed: int = 0) -> tuple[Opinion, Opinion, Ints]:
    """Return a student's and a teacher's opinion of n songs of 4 classes, and the labels; the teacher sees more."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    truth, hard = np.eye(4)[labels], rng.random((n, 1)) < 0.4
    student = np.where(hard, 0.7, 4.0) * truth + rng.normal(size=(n, 4))
    teacher = np.where(hard, 2.5, 4.0) * truth + rng.normal(size=(n, 4))
    return opinion_of(student), opinion_of(teacher), labels


def cascade_right(student: Opinion, teacher: Opinion, labels: Ints, threshold_nats: float) -> Array:
    accepted = student.cross_entropy_nats <= threshold_nats
    own = accepted | (student.cross_entropy_nats <= teacher.cross_entropy_nats)
    right: Array = np.where(own[:, None], student.probs, teacher.probs).argmax(axis=1) == labels
    return right


def test_the_promise_is_broken_no_more_often_than_it_says() -> None:
    student, teacher, labels = world(100_000)
    config = CalibrationConfig(points=5, confidence=1 - ALPHA)
    teacher_accuracy = (teacher.probs.argmax(axis=1) == labels).mean()
    rng, sets = np.random.default_rng(0), 300
    thresholds, broken, kept = [], 0, 0
    for _ in range(sets):
        rows = rng.integers(len(labels), size=800)
        threshold, guarantee = choose_threshold(student.take(rows), teacher.take(rows), labels[rows], config)
        kept += guarantee.kept
        thresholds.append(threshold)
        below = teacher_accuracy - cascade_right(student, teacher, labels, threshold).mean()
        broken += guarantee.kept and below > 0.05
    assert broken / sets <= ALPHA + MONTE_CARLO_SIGMAS * sqrt(ALPHA * (1 - ALPHA) / sets)
    # Neither empty nor too easy: a promise is made, it saves work, and the student alone would not keep it.
    assert kept > 0.9 * sets
    assert 0.3 < np.median(thresholds) < log(4)
    assert teacher_accuracy - cascade_right(student, teacher, labels, log(4)).mean() > 0.05


def test_few_songs_support_no_promise() -> None:
    student, teacher, labels = world(30)
    threshold, guarantee = choose_threshold(student, teacher, labels, CalibrationConfig(points=1))
    assert not guarantee.kept
    assert guarantee.calibration_songs == 30
    assert str(guarantee) == "measured, not promised: 30 calibration songs cannot support 1 points at 95% confidence"
    grid = np.linspace(0, log(4), 101)
    right = np.array([cascade_right(student, teacher, labels, one).mean() for one in grid])
    assert threshold == pytest.approx(grid[right >= right.max() - 0.01].max())


def test_a_kept_promise_says_so() -> None:
    student, teacher, labels = world(5000)
    _, guarantee = choose_threshold(student, teacher, labels, CalibrationConfig(points=2.5, confidence=0.9))
    assert guarantee.kept
    assert str(guarantee) == "at most 2.5 points below the teacher, with 90% confidence"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), points=st.floats(1, 10), more=st.floats(0, 5))
def test_a_larger_margin_never_gives_a_smaller_threshold(seed: int, points: float, more: float) -> None:
    student, teacher, labels = world(1500, seed)
    small, guarantee = choose_threshold(student, teacher, labels, CalibrationConfig(points))
    large, larger = choose_threshold(student, teacher, labels, CalibrationConfig(points + more))
    assert larger.kept >= guarantee.kept
    assert large >= small or not guarantee.kept


@pytest.mark.parametrize(
    ("points", "confidence"), [(0, 0.95), (100, 0.95), (-1, 0.95), (np.nan, 0.95), (1, 0.4), (1, 1.0), (1, np.nan)]
)
def test_a_promise_that_means_nothing_is_refused(points: float, confidence: float) -> None:
    with pytest.raises(ConfigError, match="expected points between 0 and 100 and confidence"):
        CalibrationConfig(points, confidence)
