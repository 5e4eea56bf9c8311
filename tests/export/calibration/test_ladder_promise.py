"""The promise of a ladder of three rungs: broken no more often than it says, and not vacuous."""

from math import sqrt

import numpy as np
import pytest

from segue.data.song import Ints
from segue.export.calibration.thresholds import Goal, choose_thresholds, deal_parts, find_path
from segue.serving.ladder import Ladder, stops
from segue.serving.predictions import Predictions
from segue.serving.tradeoff import climbing_us

US = (10.0, 90.0, 2000.0)
LADDER = Ladder(("student", "student", "teacher"), (0.0, 0.0))
ALPHA, POINTS, SONGS, SETS = 0.05, 2.0, 800, 120
MONTE_CARLO_SIGMAS = 3


def world(n: int, seed: int) -> tuple[list[Predictions], Ints]:
    """Return what a student, its longer look and a teacher say of n songs of 4 classes, each better than the last."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    truth, ease, common = np.eye(4)[labels], 1.6 - rng.random((n, 1)), 0.6 * rng.normal(size=(n, 4))
    logits = [
        skill * ease * truth + own * rng.normal(size=(n, 4)) + common
        for skill, own in ((1.6, 1), (2.1, 0.7), (2.5, 0.6))
    ]
    return [Predictions.of(one.astype(np.float32), 1.0, np.ones(n, dtype=np.int64)) for one in logits], labels


@pytest.mark.long
def test_a_promise_along_a_path_that_other_songs_gave_is_kept_as_often_as_it_says() -> None:
    many, their_labels = world(60_000, seed=0)
    standings = LADDER.standings(many)
    right = np.array([answers.choice == their_labels for answers in standings])
    spent_us, songs = climbing_us(many, US), np.arange(len(their_labels))
    broken, promised, costs = 0, 0, []
    for seed in range(1, SETS + 1):
        says, labels = world(SONGS, seed)
        shape, setting = deal_parts(SONGS, seed)
        path = find_path([one.take(shape) for one in says], LADDER, US)
        nats, guarantee = choose_thresholds(
            [one.take(setting) for one in says],
            labels[setting],
            Goal("within", POINTS, 1 - ALPHA),
            LADDER,
            path,
            US,
            seed,
        )
        stop = stops(standings, np.array([nats]))[0]
        lost = 100 * (right[-1].mean() - right[stop, songs].mean())
        promised += guarantee.kept
        broken += guarantee.kept and lost > POINTS
        costs.append(spent_us[stop, songs].mean())
    assert broken / SETS <= ALPHA + MONTE_CARLO_SIGMAS * sqrt(ALPHA * (1 - ALPHA) / SETS)
    assert promised / SETS > 0.5
    assert np.median(costs) < 0.9 * spent_us[-1].mean()


def test_a_path_leads_from_all_songs_to_the_last_rung_to_none_and_never_gets_dearer() -> None:
    says, _ = world(400, seed=3)
    path = find_path(says, LADDER, US)
    stop = stops(LADDER.standings(says), path)
    spent_us = climbing_us(says, US)[stop, np.arange(400)].mean(axis=1)
    assert (stop[0] == 2).all()
    assert (stop[-1] == 0).all()
    assert (np.diff(spent_us) <= 1e-9).all()
    assert len(path) > 10
