"""Metrics: against scipy, scikit-learn and plain loops; and a NaN is never accepted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import log_loss

from segue.data.metrics import (
    Probs,
    accuracy,
    agreement,
    cross_entropy_nats,
    ece,
    log_softmax,
    mean_over_windows,
    nll,
    softmax,
)
from segue.data.song import Floats, Ints

RNG = np.random.default_rng(0)
LOGITS: Floats = RNG.normal(0, 3, (500, 7)).astype(np.float32)
LABELS: Ints = np.where(RNG.random(500) < 0.6, LOGITS.argmax(axis=1), RNG.integers(7, size=500))

temperatures = pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])


def plain_ece(probs: Probs, labels: Ints, bins: int) -> float:
    """Guo et al. 2017, equation 3, bin by bin."""
    total = 0.0
    for bin_ in range(bins):
        inside = [
            (row, label)
            for row, label in zip(probs.tolist(), labels.tolist(), strict=True)
            if bin_ / bins <= max(row) < (bin_ + 1) / bins or (bin_ == bins - 1 and max(row) == 1)
        ]
        if inside:
            confidence = sum(max(row) for row, _ in inside) / len(inside)
            right = sum(row.index(max(row)) == label for row, label in inside) / len(inside)
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_log_softmax_is_that_of_scipy(scale: float) -> None:
    logits = (LOGITS * scale).astype(np.float32)
    expected = special.log_softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-12, atol=1e-12)


@temperatures
def test_softmax_is_that_of_scipy(temperature: float) -> None:
    expected = special.softmax(LOGITS.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(softmax(LOGITS, temperature), expected, rtol=2e-6)  # Divided in float32.


@temperatures
def test_nll_is_the_log_loss_of_scikit_learn(temperature: float) -> None:
    probs = softmax(LOGITS, temperature)
    assert nll(probs, LABELS) == pytest.approx(log_loss(LABELS, probs, labels=range(7)), rel=1e-12)


def test_nll_of_a_label_held_impossible_is_large_but_finite() -> None:
    assert 600 < nll(np.array([[1.0, 0.0]]), np.array([1])) < math.inf


@temperatures
@pytest.mark.parametrize("bins", [5, 15])
def test_ece_is_that_of_a_plain_loop(temperature: float, bins: int) -> None:
    probs = softmax(LOGITS, temperature)
    assert ece(probs, LABELS, bins) == pytest.approx(plain_ece(probs, LABELS, bins), abs=1e-12)


def test_ece_of_a_model_that_is_certain_and_right_is_zero_and_of_one_that_is_wrong_one() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert ece(certain, np.array([0, 1])) == 0
    assert ece(certain, np.array([1, 0])) == 1


def test_accuracy_and_agreement_are_shares_of_equal_classes() -> None:
    other = RNG.normal(size=LOGITS.shape)
    chosen, other_chosen = (
        [row.index(max(row)) for row in LOGITS.tolist()],
        [row.index(max(row)) for row in other.tolist()],
    )
    assert accuracy(LOGITS, LABELS) == sum(map(int.__eq__, chosen, LABELS.tolist())) / 500
    assert agreement(LOGITS, other) == sum(map(int.__eq__, chosen, other_chosen)) / 500
    assert agreement(LOGITS, softmax(LOGITS)) == 1


def test_cross_entropy_is_minus_the_log_of_the_largest_probability() -> None:
    plain = [-math.log(max(row)) for row in softmax(LOGITS).tolist()]
    np.testing.assert_allclose(cross_entropy_nats(softmax(LOGITS)), plain, rtol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_cross_entropy_is_zero_when_certain_and_log_of_the_classes_when_clueless(n_classes: int) -> None:
    certain = np.zeros((1, n_classes), dtype=np.float32)
    certain[0, 1] = 1e4
    (nothing,) = cross_entropy_nats(softmax(certain))
    assert nothing == 0
    assert math.copysign(1, nothing) == 1
    clueless = softmax(np.full((1, n_classes), 3.5, dtype=np.float32))
    np.testing.assert_allclose(cross_entropy_nats(clueless), math.log(n_classes), rtol=1e-12)


def test_cross_entropy_tells_apart_what_is_certain_to_all_digits() -> None:
    """Else a threshold of 0 would accept songs, and not all could fall back."""
    leads = np.array([30.0, 40.0, 100.0, 600.0])
    logits = np.stack([leads, np.zeros(4), np.full(4, -1.0)], axis=1)
    plain = (1 + math.exp(-1)) * np.exp(-leads)  # log(1 + x) is x where x is small.
    np.testing.assert_allclose(cross_entropy_nats(softmax(logits)), plain, rtol=1e-9)


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=12), st.floats(0.25, 8))
def test_cross_entropy_is_never_below_zero_nor_above_log_of_the_classes(row: list[float], temperature: float) -> None:
    (found,) = cross_entropy_nats(softmax(np.array([row], dtype=np.float32), temperature))
    assert 0 <= found <= math.log(len(row)) + 1e-12


@pytest.mark.parametrize("bad", [[math.nan, 0.0, 1.0], [math.nan] * 3, [math.inf, 0.0, 1.0], [math.inf, math.inf, 0.0]])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_song_without_a_number_for_an_answer_is_never_accepted(bad: list[float]) -> None:
    found = cross_entropy_nats(softmax(np.array([[5.0, 0.0, 0.0], bad], dtype=np.float32)))
    assert np.isnan(found).tolist() == [False, True]
    for threshold_nats in (0.0, 0.5, 10.0, math.inf):
        assert (~(found <= threshold_nats))[1]


@given(st.lists(st.integers(-30, 30), min_size=2, max_size=12, unique=True), st.floats(0.125, 8))
def test_temperature_does_not_change_the_answer(row: list[int], temperature: float) -> None:
    logits = np.array([row], dtype=np.float32)
    assert softmax(logits, temperature).argmax() == logits.argmax()


def test_a_song_is_the_mean_log_probability_of_its_windows() -> None:
    counts = np.array([1, 9, 3, 1])
    logits = LOGITS[:14]
    rows, plain = iter(logits.astype(np.float64)), []
    for count in counts:
        logs = [row - math.log(sum(math.exp(one) for one in row)) for row in (next(rows) for _ in range(count))]
        plain.append(sum(logs) / count)
    found = mean_over_windows(logits, counts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_one_window_a_song_keeps_the_probabilities() -> None:
    one_each = mean_over_windows(LOGITS, np.ones(500, dtype=np.int64))
    np.testing.assert_allclose(softmax(one_each), softmax(LOGITS), rtol=2e-5, atol=1e-12)
