"""The trade-off table: against plain loops, and against every possible choice of songs."""

from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.song import Ints
from segue.serving.predictions import Predictions
from segue.serving.tradeoff import TWO_RUNGS, evaluation, tradeoff

CLASSES = 4


def draw(n: int, seed: int) -> tuple[Predictions, Predictions, Ints]:
    """Return a student's and a better teacher's predictions for n songs, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=n)

    def predictions(skill: float) -> Predictions:
        logits = skill * np.eye(CLASSES)[labels] + 1.5 * rng.normal(size=(n, CLASSES))
        return Predictions.of(logits.astype(np.float32), 1.0, rng.integers(1, 10, size=n))

    return predictions(1.0), predictions(2.5), labels


def is_right(predictions: Predictions, row: int, labels: Ints) -> bool:
    return bool(predictions.probs[row].argmax() == labels[row])


@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_every_row_is_a_plain_loop_over_the_songs(n: int) -> None:
    student, teacher, labels = draw(n, seed=n)
    for found in tradeoff(student, teacher, labels, student_us_per_window=3.0, teacher_us_per_window=100.0):
        fallen = right = cost = 0
        for row in range(n):
            falls = student.cross_entropy_nats[row] > found.threshold_nats
            fallen += falls
            cost += 3.0 * student.windows[row] + 100.0 * falls * teacher.windows[row]
            right += is_right(teacher if falls else student, row, labels)
        assert found.fallback_rate == pytest.approx(fallen / n)
        assert found.accuracy == pytest.approx(right / n)
        assert found.us_per_song == pytest.approx(cost / n)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 9), seed=st.integers(0, 1000))
def test_oracle_and_random_are_the_best_and_the_mean_of_all_choices(n: int, seed: int) -> None:
    student, teacher, labels = draw(n, seed)
    own = [is_right(student, row, labels) for row in range(n)]
    fallen = [is_right(teacher, row, labels) for row in range(n)]
    for found in tradeoff(student, teacher, labels, student_us_per_window=1.0, teacher_us_per_window=1.0):
        songs = round(found.fallback_rate * n)
        accuracies = [
            sum(fallen[row] if row in chosen else own[row] for row in range(n)) / n
            for chosen in combinations(range(n), songs)
        ]
        assert found.oracle_accuracy == pytest.approx(max(accuracies))
        assert found.random_accuracy == pytest.approx(np.mean(accuracies))


@given(n=st.integers(1, 300), seed=st.integers(0, 1000))
def test_the_dial_turns_from_student_only_to_all_songs_and_never_beats_the_oracle(n: int, seed: int) -> None:
    student, teacher, labels = draw(n, seed)
    rows = tradeoff(student, teacher, labels, student_us_per_window=1.0, teacher_us_per_window=9.0)
    rates, thresholds = [row.fallback_rate for row in rows], [row.threshold_nats for row in rows]
    assert (rates[0], rates[-1], thresholds[0], thresholds[-1]) == (0.0, 1.0, log(CLASSES), 0.0)
    assert (np.diff(rates) > 0).all()
    assert (np.diff(thresholds) < 0).all()
    assert all(row.oracle_accuracy >= row.accuracy - 1e-12 for row in rows)
    assert rows[0].accuracy == rows[0].random_accuracy == rows[0].oracle_accuracy


def test_the_rows_are_spread_evenly_over_the_fallback_rates() -> None:
    rows = tradeoff(*draw(1000, seed=0), student_us_per_window=1.0, teacher_us_per_window=9.0)
    np.testing.assert_allclose([row.fallback_rate for row in rows], np.linspace(0, 1, 41), atol=1e-3)


def test_an_evaluation_is_a_plain_loop_over_the_songs() -> None:
    student, teacher, labels = draw(400, seed=1)
    found = evaluation((student, teacher), labels, TWO_RUNGS.at(0.6))
    probs, fallen, same = [], 0, 0
    for row in range(400):
        falls = student.cross_entropy_nats[row] > 0.6
        probs.append((teacher if falls else student).probs[row])
        fallen += falls
        same += student.probs[row].argmax() == teacher.probs[row].argmax()
    assert (found.songs, found.threshold_nats) == (400, 0.6)
    assert (found.fallback_rate, found.agreement) == (fallen / 400, same / 400)
    for scores, rows in ((found.student, student.probs), (found.teacher, teacher.probs), (found.cascade, probs)):
        assert scores.accuracy == np.mean([row.argmax() == label for row, label in zip(rows, labels, strict=True)])
        assert scores.nll == pytest.approx(np.mean([-log(row[label]) for row, label in zip(rows, labels, strict=True)]))
