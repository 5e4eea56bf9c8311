"""Promises: p-values that are small no more often than they say, and song counts that are enough and no more."""

from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from segue.export.calibration.promise import p_value_of_errors, p_value_of_losses, songs_for_accuracy, songs_for_losses

Array = NDArray[np.float64]

MONTE_CARLO_SIGMAS = 3
ALPHA = 0.05


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
        stake = min(sqrt(2 * log(1 / (1 - confidence)) / (len(losses) * variance)), 0.75 / (1 - bound))
        capital *= 1 + stake * (bound - value)
        richest = max(richest, capital)
        seen.append(value)
        squares += (value - (0.5 + sum(seen)) / (len(seen) + 1)) ** 2
        variance = squares / (len(seen) + 1)
    return 1 / richest


@given(losses=st.lists(st.sampled_from([-1.0, 0.0, 0.3, 1.0]), min_size=1, max_size=60), margin=st.floats(0.001, 0.9))
def test_a_p_value_is_one_over_the_largest_capital_of_a_plain_loop_of_bets(losses: list[float], margin: float) -> None:
    found = p_value_of_losses(np.array(losses), margin, 1 - ALPHA)
    assert found == pytest.approx(plain_p_value(np.array(losses), margin, 1 - ALPHA), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "worse", "better"), [(50, 0.05, 0.04), (300, 0.01, 0.0), (300, 0.3, 0.29), (3000, 0.03, 0.02)]
)
def test_a_p_value_is_small_no_more_often_than_it_says(n: int, worse: float, better: float) -> None:
    rng, sets = np.random.default_rng(0), 2000
    margin = worse - better  # The edge of the hypothesis, where it is easiest to reject by mistake.
    values = np.array([p_value_of_losses(drawn_losses(rng, n, worse, better), margin, 1 - ALPHA) for _ in range(sets)])
    for level in (ALPHA, 0.2):
        most = level + MONTE_CARLO_SIGMAS * sqrt(level * (1 - level) / sets)
        assert (values <= level).mean() <= most


@pytest.mark.parametrize(
    ("n", "worse", "better", "margin"),
    [(105, 0.0, 0.0, 0.05), (300, 0.0, 0.0, 0.03), (2000, 0.02, 0.02, 0.02), (2000, 0.1, 0.1, 0.05)],
)
def test_a_p_value_is_small_where_the_loss_is_clearly_below_the_margin(
    n: int, worse: float, better: float, margin: float
) -> None:
    rng, sets = np.random.default_rng(0), 200
    values = np.array([p_value_of_losses(drawn_losses(rng, n, worse, better), margin, 1 - ALPHA) for _ in range(sets)])
    assert (values <= ALPHA).mean() > 0.9


@given(seed=st.integers(0, 1000), worse=st.floats(0, 0.5), better=st.floats(0, 0.5), margin=st.floats(0.001, 0.9))
def test_a_p_value_is_a_probability_and_falls_with_the_margin(
    seed: int, worse: float, better: float, margin: float
) -> None:
    losses = drawn_losses(np.random.default_rng(seed), 100, worse, better)
    value = p_value_of_losses(losses, margin, 1 - ALPHA)
    assert 0 <= p_value_of_losses(losses, margin + 0.05, 1 - ALPHA) <= value <= 1


@given(songs=st.integers(1, 60), share=st.floats(0, 1), rate=st.floats(0.01, 0.99))
def test_the_binomial_p_value_is_the_sum_over_all_smaller_counts(songs: int, share: float, rate: float) -> None:
    errors = round(share * songs)
    chances = [comb(songs, k) * rate**k * (1 - rate) ** (songs - k) for k in range(errors + 1)]
    assert p_value_of_errors(errors, songs, rate) == pytest.approx(sum(chances), rel=1e-9)


@pytest.mark.parametrize(("errors", "songs"), [(0, 50), (10, 100), (173, 900)])
def test_the_binomial_test_inverts_the_clopper_pearson_bound(errors: int, songs: int) -> None:
    upper = beta.ppf(1 - ALPHA, errors + 1, songs - errors)
    assert p_value_of_errors(errors, songs, upper) == pytest.approx(ALPHA)


def share_supported(n: int, worse: float, better: float, margin: float, sets: int = 300) -> float:
    rng = np.random.default_rng(1)
    values = [p_value_of_losses(drawn_losses(rng, n, worse, better), margin, 1 - ALPHA) for _ in range(sets)]
    return float((np.array(values) <= ALPHA).mean())


@pytest.mark.parametrize(
    ("worse", "better", "margin"),
    [(0.0, 0.0, 0.01), (0.03, 0.03, 0.01), (0.05, 0.02, 0.05), (0.1, 0.15, 0.02), (0.02, 0.01, 0.015)],
)
def test_so_many_songs_support_a_promise_four_times_in_five(worse: float, better: float, margin: float) -> None:
    seen = np.repeat([1.0, -1.0, 0.0], [round(1000 * worse), round(1000 * better), round(1000 * (1 - worse - better))])
    needed = songs_for_losses(seen, margin, 1 - ALPHA)
    assert needed is not None
    assert share_supported(needed, worse, better, margin) >= 0.7
    assert share_supported(round(0.6 * needed), worse, better, margin) <= 0.7


def test_the_count_from_few_songs_is_near_the_count_from_many() -> None:
    rng = np.random.default_rng(0)
    true = songs_for_losses(drawn_losses(rng, 1_000_000, 0.04, 0.05), 0.02, 1 - ALPHA)
    found = [songs_for_losses(drawn_losses(rng, 2000, 0.04, 0.05), 0.02, 1 - ALPHA) for _ in range(50)]
    assert true is not None
    assert np.median([one or np.inf for one in found]) == pytest.approx(true, rel=0.25)


def test_no_number_of_songs_supports_what_is_not_so() -> None:
    assert songs_for_losses(np.array([1.0, 0.0, 0.0, 0.0]), 0.25, 1 - ALPHA) is None
    assert songs_for_losses(np.array([1.0, 0.0]), 0.1, 1 - ALPHA) is None
    assert songs_for_accuracy(0.8, 0.8, 1 - ALPHA) is None


@pytest.mark.parametrize(("accuracy", "asked"), [(0.85, 0.8), (0.6, 0.55), (0.99, 0.9)])
def test_so_many_songs_support_an_accuracy_four_times_in_five(accuracy: float, asked: float) -> None:
    needed = songs_for_accuracy(accuracy, asked, 1 - ALPHA)
    assert needed is not None
    rng = np.random.default_rng(0)
    for songs, least, most in ((needed, 0.75, 1.0), (round(0.6 * needed), 0.0, 0.7)):
        errors = rng.binomial(songs, 1 - accuracy, size=2000)
        supported = np.mean([p_value_of_errors(int(one), songs, 1 - asked) <= ALPHA for one in errors])
        assert least <= supported <= most
