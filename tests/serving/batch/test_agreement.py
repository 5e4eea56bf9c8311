"""The promise about a catalogue: exact, kept, and cheap."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from segue.errors import ConfigError
from segue.serving.batch.agreement import (
    agreed_threshold,
    allowed_disagreements,
    best_sample_size,
    most_disagreements,
    sample_rows,
)


def test_the_test_is_the_exact_hypergeometric_one() -> None:
    """Against binomial coefficients in whole numbers."""
    songs, sampled, confidence = 60, 20, 0.9
    most = most_disagreements(songs, sampled, 12, confidence)
    for x in range(10):
        total = 12 + 1 + x
        at_most = sum(comb(total, k) * comb(songs - total, sampled - k) for k in range(x + 1))
        assert (at_most <= 0.1 * comb(songs, sampled)) == (x <= most)


@pytest.mark.long
def test_every_draw_of_a_small_catalogue_is_counted() -> None:
    """All samples of 6 of 14 songs: the share of them that breaks the promise is at most 1 - confidence."""
    songs, sampled, agree, confidence = 14, 6, 0.7, 0.8
    for seed in range(6):
        rng = np.random.default_rng(seed)
        doubt, disagree = rng.integers(0, 9, songs) / 4, rng.random(songs) < 0.5  # With ties.
        broken = 0
        for rows in map(list, combinations(range(songs), sampled)):
            found = agreed_threshold(doubt[rows], disagree[rows], songs=songs, agree=agree, confidence=confidence)
            bad = (doubt <= found.threshold_nats) & disagree
            bad[rows] = False
            broken += bad.sum() > 4  # 30 % of 14 songs.
        assert broken <= (1 - confidence) * comb(songs, sampled)


@pytest.mark.long
@pytest.mark.parametrize("agree", [0.9, 0.95, 0.98])
def test_the_promise_is_kept_and_not_vacuous(agree: float) -> None:
    """2,000 simulated catalogues; three standard errors of the share that may break."""
    rng = np.random.default_rng(1)
    broken, seen, best = 0, 0.0, 0.0
    songs, draws = 5000, 2000
    sampled = best_sample_size(songs, agree, 0.95)
    for _ in range(draws):
        doubt = rng.beta(1.2, 2.5, songs) * 1.8
        disagree = rng.random(songs) < np.clip(0.5 * (doubt / 0.9) ** rng.uniform(1, 3), 0, 0.7)
        rows = rng.choice(songs, sampled, replace=False)
        found = agreed_threshold(doubt[rows], disagree[rows], songs=songs, agree=agree, confidence=0.95)
        by_teacher = ~(doubt <= found.threshold_nats)
        by_teacher[rows] = True
        allowed = round((1 - agree) * songs)
        broken += (disagree & ~by_teacher).sum() > allowed
        seen += by_teacher.mean()
        best += 1 - np.searchsorted(np.cumsum(disagree[doubt.argsort()]), allowed, side="right") / songs
    assert broken / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert seen / best < 1.6  # Songs that the teacher sees; the best knows all disagreements.


def test_more_songs_of_doubt_never_lower_the_threshold_of_fewer_disagreements() -> None:
    doubt, disagree = np.linspace(0, 1, 400), np.arange(400) % 9 == 0
    thresholds = [
        agreed_threshold(doubt, disagree, songs=4000, agree=agree, confidence=0.95).threshold_nats
        for agree in (0.99, 0.97, 0.95, 0.9, 0.85)
    ]
    assert thresholds == sorted(thresholds)


def test_the_whole_catalogue_as_sample_needs_no_teacher_beyond_it() -> None:
    found = agreed_threshold(np.array([0.1, 0.2]), np.array([True, True]), songs=2, agree=0.5, confidence=0.95)
    assert found.threshold_nats == np.inf  # Both songs have the teacher's answer already.


def test_too_small_a_sample_promises_nothing_and_all_songs_fall_back() -> None:
    found = agreed_threshold(np.array([0.1]), np.array([False]), songs=10_000, agree=0.98, confidence=0.95)
    assert found.threshold_nats < 0


def test_a_doubt_that_is_not_a_number_always_falls_back_and_counts_nowhere() -> None:
    doubt = np.array([np.nan] * 50 + [0.1] * 350)
    found = agreed_threshold(doubt, np.isnan(doubt), songs=4000, agree=0.98, confidence=0.95)
    assert (found.threshold_nats, found.disagreements) == (np.inf, 0)


def test_a_sample_is_uniform_without_replacement() -> None:
    counts = np.zeros(10)
    for seed in range(2000):
        rows = sample_rows(10, 4, seed)
        assert len(set(rows.tolist())) == 4
        counts[rows] += 1
    np.testing.assert_allclose(counts / 2000, 0.4, atol=5 * np.sqrt(0.4 * 0.6 / 2000))


@pytest.mark.parametrize(("agree", "confidence"), [(0.0, 0.9), (1.0, 0.9), (0.9, 1.0), (np.nan, 0.9)])
def test_a_promise_that_no_sample_can_give_is_refused(agree: float, confidence: float) -> None:
    with pytest.raises(ConfigError, match="expected a share between 0 and 1"):
        agreed_threshold(np.zeros(3), np.zeros(3, bool), songs=9, agree=agree, confidence=confidence)


def test_songs_that_cannot_be_read_do_not_stretch_the_promise() -> None:
    """98 % of the 900 that can be read are fewer disagreements than 2 % of all 1,000."""
    assert (allowed_disagreements(1000, 0.98), allowed_disagreements(900, 0.98)) == (20, 18)
    doubt, disagree = np.linspace(0, 1, 450), np.arange(450) % 40 == 39
    found = agreed_threshold(doubt, disagree, songs=1000, agree=0.98, confidence=0.9, rejected=50)
    assert found.holds(100)
    assert not found.holds(900)
