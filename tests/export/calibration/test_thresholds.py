"""The dial: every goal is reached the cheapest way, and a promise holds as often as it says."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segue.data.song import Ints
from segue.errors import ConfigError, SongError
from segue.export.calibration.temperature import fit_temperature
from segue.export.calibration.thresholds import (
    MOST_APART,
    CalibrationConfig,
    Costs,
    Goal,
    UnsupportedError,
    choose_threshold,
    deal_parts,
    fit_class_scales,
)
from segue.serving.bundle.manifest import Guarantee, Target
from segue.serving.predictions import Predictions

Array = NDArray[np.float64]

MONTE_CARLO_SIGMAS = 3
ALPHA = 0.05
COSTS = Costs(student_us=10.0, teacher_us=200.0)


def predictions_of(logits: Array) -> Predictions:
    return Predictions.of(logits.astype(np.float32), 1.0, np.ones(len(logits), dtype=np.int64))


def world(n: int, seed: int = 0) -> tuple[Predictions, Predictions, Ints]:
    """Return student's and teacher's predictions for n songs of 4 classes, and the labels; the teacher sees more."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    truth, hard = np.eye(4)[labels], rng.random((n, 1)) < 0.4
    student = np.where(hard, 0.7, 4.0) * truth + rng.normal(size=(n, 4))
    teacher = np.where(hard, 2.5, 4.0) * truth + rng.normal(size=(n, 4))
    return predictions_of(student), predictions_of(teacher), labels


def cascade_right(student: Predictions, teacher: Predictions, labels: Ints, threshold_nats: float) -> Array:
    """Return which songs the cascade gets right, by a rule written plainly."""
    own = student.doubt_nats <= threshold_nats
    right: Array = np.where(own[:, None], student.probs, teacher.probs).argmax(axis=1) == labels
    return right


def is_right(predictions: Predictions, labels: Ints) -> Array:
    right: Array = predictions.probs.argmax(axis=1) == labels
    return right


def choose(n: int, target: Target, asked: float, seed: int = 0) -> tuple[float, Guarantee]:
    return choose_threshold(*world(n, seed), Goal(target, asked, 1 - ALPHA), COSTS)


def at_most(share: float, sets: int) -> float:
    """Return how large a share of so many simulated sets may be, where `share` of all sets is what is allowed."""
    return share + MONTE_CARLO_SIGMAS * sqrt(share * (1 - share) / sets)


@pytest.mark.long
@pytest.mark.parametrize(("per_class", "sets"), [(False, 2000), (True, 400)])
def test_the_promise_is_broken_no_more_often_than_it_says(per_class: bool, sets: int) -> None:
    """Everything that calibration does is done anew for every set: temperatures, class scales, threshold."""
    points, songs = 5.0, 800
    student, teacher, labels = world(4000)  # All songs there are, so that what is true of them is known.
    teacher_accuracy = is_right(teacher, labels).mean()
    rng = np.random.default_rng(0)
    rates, broken, kept = [], 0, 0
    for _ in range(sets):
        rows = rng.integers(len(labels), size=songs)
        shape, setting = (rows[part] for part in deal_parts(songs))
        temperatures = [fit_temperature(one.logits[shape], labels[shape]) for one in (student, teacher)]
        ours, theirs = (
            Predictions.of(one.logits, temperature, one.windows)
            for one, temperature in zip((student, teacher), temperatures, strict=True)
        )
        if per_class:
            scales = fit_class_scales(ours.take(shape), theirs.take(shape), labels[shape])
            ours = Predictions.of(student.logits, temperatures[0], student.windows, scales)
        threshold, guarantee = choose_threshold(
            ours.take(setting), theirs.take(setting), labels[setting], Goal("within", points, 1 - ALPHA), COSTS
        )
        kept += guarantee.kept
        rates.append((ours.doubt_nats > threshold).mean())
        below = teacher_accuracy - cascade_right(ours, theirs, labels, threshold).mean()
        broken += guarantee.kept and below > points / 100
    assert broken / sets <= at_most(ALPHA, sets)
    # Neither empty nor too easy: a promise is made, it saves work, and the student alone would not keep it.
    assert kept > 0.9 * sets
    assert np.median(rates) < 0.6
    assert teacher_accuracy - is_right(student, labels).mean() > points / 100


@pytest.mark.long
def test_a_promised_accuracy_is_missed_no_more_often_than_it_says() -> None:
    asked, songs, sets = 0.82, 600, 500
    student, teacher, labels = world(4000)
    rng = np.random.default_rng(0)
    thresholds, broken, kept = [], 0, 0
    grid = np.linspace(0, log(4), 101)
    accuracies = np.array([cascade_right(student, teacher, labels, one).mean() for one in grid])
    for _ in range(sets):
        rows = rng.integers(len(labels), size=songs)
        threshold, guarantee = choose_threshold(
            student.take(rows), teacher.take(rows), labels[rows], Goal("accuracy", asked, 1 - ALPHA), COSTS
        )
        thresholds.append(threshold)
        kept += guarantee.kept
        broken += guarantee.kept and accuracies[np.abs(grid - threshold).argmin()] < asked
    assert broken / sets <= at_most(ALPHA, sets)
    assert kept > 0.9 * sets
    assert np.median(thresholds) > 0.3
    assert accuracies[-1] < asked


def test_few_songs_support_no_promise_and_say_how_many_would() -> None:
    student, teacher, labels = world(60)
    threshold, guarantee = choose_threshold(student, teacher, labels, Goal("within", 4, 1 - ALPHA), COSTS)
    assert (guarantee.kept, guarantee.calibration_songs) == (False, 60)
    grid = np.linspace(0, log(4), 101)
    right = np.array([cascade_right(student, teacher, labels, one).mean() for one in grid])
    assert threshold == pytest.approx(grid[right >= right.max() - 0.04].max())
    assert guarantee.measured == pytest.approx(
        100 * (is_right(teacher, labels).mean() - right[np.abs(grid - threshold).argmin()])
    )
    needed = guarantee.songs_needed
    assert needed is not None
    assert f"they cannot support at most 4 points below the teacher with 95% confidence, about {needed:,}" in str(
        guarantee
    )
    # With so many songs, a promise is made most of the time.
    assert np.mean([choose(needed, "within", 4, seed)[1].kept for seed in range(30)]) > 0.5


def test_what_is_not_so_is_out_of_reach_of_any_number_of_songs() -> None:
    """A student that is certain to the last digit is believed at threshold zero too, and here it is always wrong."""
    labels = np.zeros(400, np.int64)
    student, teacher = (
        predictions_of(np.tile([0.0, 999, 0, 0], (400, 1))),
        predictions_of(np.tile([5.0, 0, 0, 0], (400, 1))),
    )
    _, guarantee = choose_threshold(student, teacher, labels, Goal("within", 5, 1 - ALPHA), COSTS)
    assert (guarantee.kept, guarantee.songs_needed) == (False, None)
    assert "more like these would not either" in str(guarantee)


def test_kept_promises_say_so() -> None:
    _, within = choose_threshold(*world(5000), Goal("within", 2.5, 0.9), COSTS)
    assert str(within) == (
        "promised: at most 2.5 points below the teacher, with 90% confidence, from 5,000 calibration songs"
    )
    _, accuracy = choose(5000, "accuracy", 0.8)
    assert str(accuracy) == "promised: an accuracy of at least 0.8, with 95% confidence, from 5,000 calibration songs"


def test_an_accuracy_that_is_measured_only_says_so() -> None:
    student, teacher, labels = world(100)
    threshold, guarantee = choose_threshold(student, teacher, labels, Goal("accuracy", 0.93, 1 - ALPHA), COSTS)
    grid = np.linspace(0, log(4), 101)
    right = np.array([cascade_right(student, teacher, labels, one).mean() for one in grid])
    assert threshold == pytest.approx(grid[right >= 0.93].max())
    assert not guarantee.kept
    assert guarantee.measured >= 0.93
    assert "they cannot support an accuracy of at least 0.93" in str(guarantee)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), points=st.floats(1, 10), more=st.floats(0, 5))
def test_a_larger_margin_never_gives_a_smaller_threshold(seed: int, points: float, more: float) -> None:
    small, guarantee = choose(1500, "within", points, seed)
    large, larger = choose(1500, "within", points + more, seed)
    assert larger.kept >= guarantee.kept
    assert large >= small or not guarantee.kept


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 300), rate=st.floats(0, 1), seed=st.integers(0, 1000))
def test_the_fallback_rate_is_the_nearest_to_what_was_asked(n: int, rate: float, seed: int) -> None:
    student, teacher, labels = world(n, seed)
    threshold, guarantee = choose_threshold(student, teacher, labels, Goal("fallback_rate", rate, 0.95), COSTS)
    fallen = (student.cross_entropy_nats > threshold).sum()
    assert fallen == round(rate * n)
    assert guarantee.measured == fallen / n
    assert not guarantee.kept
    assert "measured, not promised" in str(guarantee)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), songs_per_s=st.floats(1000, 90_000))
def test_a_speed_lets_as_many_songs_fall_back_as_it_can_afford(seed: int, songs_per_s: float) -> None:
    student, teacher, labels = world(200, seed)
    teacher = Predictions.of(teacher.logits, 1.0, np.random.default_rng(seed).integers(1, 10, size=200))
    threshold, guarantee = choose_threshold(student, teacher, labels, Goal("songs_per_s", songs_per_s, 0.95), COSTS)
    order = np.argsort(-student.cross_entropy_nats)
    fallen = int((student.cross_entropy_nats > threshold).sum())

    def us_per_song(count: int) -> float:
        return 10.0 + 200.0 * float(teacher.windows[order[:count]].sum()) / 200

    assert guarantee.measured == pytest.approx(1e6 / us_per_song(fallen))
    assert guarantee.measured >= songs_per_s * (1 - 1e-9)
    assert fallen == 200 or us_per_song(fallen + 1) > 1e6 / songs_per_s


@pytest.mark.parametrize(
    ("target", "asked", "message"),
    [
        ("songs_per_s", 100_001, "songs-per-s: expected at most 100,000, which is the student alone"),
        (
            "accuracy",
            0.97,
            r"accuracy: expected at most 0\.962, which is the best that any threshold gives on 500 calibration songs "
            r"\(the teacher alone: 0\.960\), found 0\.97",
        ),
    ],
)
def test_what_no_threshold_gives_is_refused(target: Target, asked: float, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        choose(500, target, asked)


@pytest.mark.parametrize(
    ("target", "asked", "confidence"),
    [
        ("within", 0, 0.95),
        ("within", 100, 0.95),
        ("within", np.nan, 0.95),
        ("accuracy", 0, 0.95),
        ("accuracy", 1, 0.95),
        ("accuracy", 80, 0.95),
        ("fallback_rate", -0.1, 0.95),
        ("fallback_rate", 1.1, 0.95),
        ("songs_per_s", 0, 0.95),
        ("songs_per_s", np.inf, 0.95),
        ("within", 1, 0.4),
        ("within", 1, 1.0),
        ("within", 1, np.nan),
    ],
)
def test_a_goal_that_means_nothing_is_refused(target: Target, asked: float, confidence: float) -> None:
    with pytest.raises(ConfigError, match=f"(confidence|{target.replace('_', '-')}): expected .* found"):
        Goal(target, asked, confidence)


@pytest.mark.parametrize(
    ("points", "confidence"), [(0, 0.95), (100, 0.95), (-1, 0.95), (np.nan, 0.95), (1, 0.4), (1, 1.0), (1, np.nan)]
)
def test_a_default_that_means_nothing_is_refused(points: float, confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"expected points above 0 and below 100 and a confidence of 0.5"):
        CalibrationConfig(points, confidence)


@given(st.integers(20, 500))
def test_every_calibration_song_has_one_part(n: int) -> None:
    shape, setting = deal_parts(n)
    assert sorted([*shape, *setting]) == list(range(n))
    assert len(shape) == round(n / 4)


def test_one_song_is_too_few() -> None:
    with pytest.raises(SongError, match="calibration: expected at least 20 labelled songs, found 1"):
        deal_parts(1)


def test_class_scales_ask_the_teacher_where_it_helps() -> None:
    """Of class 0 the student is wrong as often as it doubts, and the teacher right; of class 1 the teacher follows."""
    rng = np.random.default_rng(0)
    said = rng.integers(2, size=4000)
    doubt = rng.uniform(0.05, 0.65, size=4000)
    probs = np.where(np.arange(2) == said[:, None], np.exp(-doubt)[:, None], 1 - np.exp(-doubt)[:, None])
    wrong = rng.random(4000) < doubt
    labels = np.where(wrong, 1 - said, said)
    knows = np.where(said == 0, labels, said)
    student, teacher = predictions_of(np.log(probs)), predictions_of(20.0 * np.eye(2)[knows])
    hard, easy = fit_class_scales(student, teacher, labels)
    # The slope of class 1 is zero, and so as far below that of all songs, which is the mean of the two, as it may be.
    assert hard == 1.0
    assert easy == pytest.approx(MOST_APART * 2, rel=0.1)
    for row, scale in ((int(np.flatnonzero(said == 0)[0]), 1.0), (int(np.flatnonzero(said == 1)[0]), easy)):
        scaled = Predictions.of(student.logits, 1.0, student.windows, (hard, easy))
        assert scaled.doubt_nats[row] == pytest.approx(student.cross_entropy_nats[row] / scale)


def test_classes_are_all_alike_where_the_teacher_helps_none() -> None:
    student, _, labels = world(500)
    assert fit_class_scales(student, student, labels) == (1.0,) * 4
