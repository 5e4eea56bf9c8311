"""The cascade: against a plain loop over songs, with models made of a few lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from segue.data.song import Floats, Ints, Songs
from segue.errors import ConfigError
from segue.serving.cascade import CalibratedModel, Cascade
from segue.serving.ladder import Ladder, OnFallback
from segue.serving.predictions import MODELS, Answers, ModelName, Predictions
from tests.support.random_songs import random_segments

K = 3
LOG_K = math.log(K)


class FirstSegment:
    """A model whose logits are the first timbres of a window, and which remembers what it was shown."""

    def __init__(self, scale: float = 0.05) -> None:
        self.scale = scale
        self.shown: list[Floats] = []

    def logits(self, windows: Floats) -> Floats:
        self.shown.append(windows)
        return windows[:, 0, :K] * np.float32(self.scale)


@dataclass(frozen=True)
class Plain:
    """What a song's answer must be."""

    by: ModelName
    fell_back: bool
    cross_entropy_nats: float


def plain_cross_entropy(logits: NDArray[np.float32]) -> float:
    values = [float(value) for value in logits]
    if any(math.isnan(value) for value in values):
        return math.nan
    return math.log(sum(math.exp(value - max(values)) for value in values))


def plain_answer(student: NDArray[np.float32], teacher: NDArray[np.float32], threshold_nats: float) -> Plain:
    ours, theirs = plain_cross_entropy(student), plain_cross_entropy(teacher)
    if ours <= threshold_nats:
        return Plain("student", False, ours)
    if math.isnan(theirs):
        return Plain("student", True, ours)
    return Plain("teacher", True, theirs)


def predictions_of(logits: Floats, windows: int = 1) -> Predictions:
    return Predictions.of(logits, 1.0, np.full(len(logits), windows))


def climbed(says: Sequence[Predictions], thresholds: Sequence[float], on_fallback: OnFallback = "teacher") -> Answers:
    """Climb a ladder whose last rung is the teacher's, and check that each rung is asked once at most."""
    student: ModelName = "student"
    asked: list[int] = []

    def ask(rung: int, rows: Ints | slice) -> Predictions:
        asked.append(rung)
        return says[rung].take(rows)

    answers = Ladder((*[student] * len(thresholds), "teacher"), tuple(thresholds), on_fallback).climb(ask)
    assert asked == list(range(len(asked)))
    return answers


# Drawn from few values too, so that student, teacher and threshold often come close; ties have a test of their own.
some_logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.just(3 * K)),
    elements=st.one_of(st.sampled_from([np.nan, 0.0, 0.5, 1.0, 2.0]), st.floats(-30, 30, width=32)),
)
some_threshold = st.one_of(st.sampled_from([0.0, 0.5, LOG_K]), st.floats(0, 2))


@given(logits=some_logits, threshold=some_threshold)
def test_two_rungs_are_a_plain_loop_over_the_songs(logits: Floats, threshold: float) -> None:
    student, teacher = predictions_of(logits[:, :K], windows=1), predictions_of(logits[:, K : 2 * K], windows=9)
    found = climbed((student, teacher), [threshold])
    for row in range(len(logits)):
        expected = plain_answer(logits[row, :K], logits[row, K : 2 * K], threshold)
        if not np.isclose(student.cross_entropy_nats[row], threshold):
            assert (found.answered_by(row), found.fell_back[row]) == (expected.by, expected.fell_back)
            assert found.windows[row] == (9 if expected.by == "teacher" else 1)
            np.testing.assert_allclose(found.cross_entropy_nats[row], expected.cross_entropy_nats, atol=1e-9)
        source = teacher if found.by_teacher[row] else student
        np.testing.assert_array_equal(found.probs[row], source.probs[row])


def plain_climb(
    logits: Sequence[NDArray[np.float32]], thresholds: Sequence[float], on_fallback: OnFallback
) -> tuple[list[float], int, int]:
    """Climb with one song in plain Python: its probabilities, the rung they come from, the last rung asked."""
    logs: list[list[float]] = []
    stands, rung, reached = [math.nan] * K, 0, 0
    for number, values in enumerate(logits):
        reached = number
        doubt = plain_cross_entropy(values)
        if not math.isnan(doubt):
            top = max(float(value) for value in values)
            total = math.log(sum(math.exp(float(value) - top) for value in values)) + top
            logs.append([max(float(value) - total, math.log(1e-300)) for value in values])
            probs = [math.exp(one) for one in logs[-1]]
            if on_fallback == "mean":
                means = [sum(column) / len(logs) for column in zip(*logs, strict=True)]
                whole = math.log(sum(math.exp(one - max(means)) for one in means)) + max(means)
                probs = [math.exp(one - whole) for one in means]
            keeps = on_fallback == "surer" and max(stands) >= max(probs)
            if not keeps or math.isnan(stands[0]):
                stands, rung = probs, number
            if on_fallback != "teacher":
                doubt = -math.log(max(stands))
        if number == len(thresholds) or doubt <= thresholds[number]:
            break
    return stands, rung, reached


@pytest.mark.parametrize("on_fallback", get_args(OnFallback))
@given(logits=some_logits, thresholds=st.tuples(some_threshold, some_threshold))
def test_three_rungs_are_a_plain_loop_over_the_songs(
    on_fallback: OnFallback, logits: Floats, thresholds: tuple[float, float]
) -> None:
    parts = [logits[:, at : at + K] for at in (0, K, 2 * K)]
    says = [predictions_of(part, windows) for part, windows in zip(parts, (1, 5, 9), strict=True)]
    found = climbed(says, thresholds, on_fallback)
    for row in range(len(logits)):
        three = [part[row] for part in parts]
        expected = plain_climb(three, thresholds, on_fallback)
        nudged = [plain_climb(three, [one + by for one in thresholds], on_fallback) for by in (-1e-9, 1e-9)]
        tied = on_fallback == "surer" and len({round(plain_cross_entropy(one), 9) for one in three}) < 3
        if not tied and expected[1:] == nudged[0][1:] == nudged[1][1:]:
            probs, rung, reached = expected
            assert (found.rung[row], found.reached[row], found.fell_back[row]) == (rung, reached, reached == 2)
            np.testing.assert_allclose(found.probs[row], probs, atol=1e-6)


def test_a_song_at_the_threshold_is_the_students() -> None:
    tied = predictions_of(np.array([[0.5, 0, 0], [2, 1, 0]], np.float32))
    accepted = climbed((tied, tied), [float(tied.cross_entropy_nats[0])])
    assert not accepted.fell_back[0]


def test_what_fell_back_is_the_teachers_however_sure_the_student_was() -> None:
    sure, unsure = (predictions_of(np.array([logits], np.float32)) for logits in ([9, 0, 0], [0, 0.1, 0]))
    answers = climbed((sure, unsure), [0.0])
    assert answers.by_teacher.tolist() == [True]
    assert answers.choice.tolist() == [1]


def test_the_surer_answer_stands_where_that_is_the_rule() -> None:
    says = [predictions_of(np.array(logits, np.float32)) for logits in ([[9, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 9, 0]])]
    answers = climbed(says, [0.0], "surer")
    assert answers.by_teacher.tolist() == [False, True]
    assert answers.fell_back.tolist() == [True, True]
    assert answers.choice.tolist() == [0, 1]


def test_the_mean_of_log_probabilities_stands_where_that_is_the_rule() -> None:
    logits = np.array([[3, 0, 1], [0, 2, 1], [0, 0, 4]], np.float32)[:, None]
    answers = climbed([predictions_of(one) for one in logits], [0.0, 0.0], "mean")
    mean = np.exp(logits.astype(np.float64).mean(axis=0))  # Log-probabilities are logits, but for a constant.
    np.testing.assert_allclose(answers.probs, mean / mean.sum(), rtol=1e-6)


def test_the_student_answers_where_the_teacher_does_not_know() -> None:
    lost = predictions_of(np.full((1, K), np.nan, np.float32))
    answers = climbed((predictions_of(np.array([[1, 0, 0]], np.float32)), lost), [0.0])
    assert (answers.fell_back[0], answers.answered_by(0), answers.choice[0]) == (True, "student", 0)
    assert answers.degraded[0]


def test_a_rung_that_does_not_know_sends_the_song_on() -> None:
    known, lost = (predictions_of(np.array([logits], np.float32)) for logits in ([1, 0, 0], [np.nan] * K))
    answers = climbed((known, lost, predictions_of(np.array([[0, 0, 9]], np.float32))), [0.0, LOG_K])
    assert (answers.reached[0], answers.choice[0], answers.degraded[0]) == (2, 2, False)


def test_threshold_zero_asks_the_teacher_about_every_uncertain_song() -> None:
    student = predictions_of(np.array([[0, 0, 0], [9, 0, 0], [999, 0, 0]], np.float32))
    answers = climbed((student, wise_teacher(3)), [0.0])
    assert answers.fell_back.tolist() == [True, True, False]  # The last one is certain to the last digit.


@given(hnp.arrays(np.float32, (5, K), elements=st.floats(-100, 100, width=32)))
def test_threshold_log_k_asks_the_teacher_about_no_song(logits: Floats) -> None:
    answers = climbed((predictions_of(logits), wise_teacher(5)), [LOG_K + 1e-12])
    assert not answers.fell_back.any()
    assert not answers.by_teacher.any()


def wise_teacher(n_songs: int) -> Predictions:
    return predictions_of(np.tile(np.array([0, 0, 50], np.float32), (n_songs, 1)))


def test_an_answer_that_is_not_a_number_falls_back() -> None:
    student = predictions_of(np.array([[np.nan, 0, 0], [9, 0, 0]], np.float32))
    answers = climbed((student, wise_teacher(2)), [LOG_K])
    assert [answers.answered_by(row) for row in range(2)] == ["teacher", "student"]
    assert answers.choice.tolist() == [2, 0]


def test_a_song_that_neither_model_knows_stays_not_a_number() -> None:
    nothing = predictions_of(np.full((2, K), np.nan, np.float32))
    answers = climbed((nothing, nothing), [0.5])
    assert np.isnan(answers.cross_entropy_nats).all()
    assert answers.fell_back.all()


def test_a_ladder_needs_a_threshold_for_every_rung_but_the_last() -> None:
    with pytest.raises(ConfigError, match="expected a threshold for each of 3 rungs but the last, found 1"):
        Ladder(("student", "student", "teacher"), (0.5,))
    with pytest.raises(ConfigError, match="expected teacher, surer, mean, found 'best'"):
        Ladder(("student", "teacher"), (0.5,), "best")  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_predictions_are_split_and_joined_without_a_loss(sizes: list[int]) -> None:
    whole = predictions_of(np.random.default_rng(0).normal(size=(sum(sizes), K)).astype(np.float32))
    parts = whole.split(sizes)
    assert [len(part) for part in parts] == sizes
    again = Predictions.concat(parts)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(vars(again)[name], values)


def test_the_teacher_sees_only_the_hard_songs() -> None:
    student, teacher = FirstSegment(), FirstSegment(scale=1.0)
    songs = [random_segments(120, seed) for seed in range(40)]
    certainties = [plain_cross_entropy(song[0, :K] * 0.05) for song in songs]
    threshold = (sorted(certainties)[19] + sorted(certainties)[20]) / 2
    cascade = cascade_of(student, teacher, threshold)
    answers = cascade.answer(Songs.of(songs))
    hard = [song for song, certainty in zip(songs, certainties, strict=True) if certainty > threshold]
    np.testing.assert_array_equal(np.concatenate(teacher.shown), np.stack(hard))
    assert answers.fell_back.sum() == len(hard) == 20
    assert cascade.answer(Songs.of(songs), threshold_nats=LOG_K + 1).fell_back.sum() == 0
    assert len(teacher.shown) == 1


def cascade_of(student: FirstSegment, teacher: FirstSegment, threshold_nats: float, looks: int = 1) -> Cascade:
    models = (
        CalibratedModel(student, windows=1, temperature=1.0),
        CalibratedModel(teacher, windows=looks, temperature=1.0),
    )
    return Cascade(models, Ladder(MODELS, (threshold_nats,)))


def test_several_windows_speak_by_their_mean_log_probability() -> None:
    songs = [random_segments(n, seed=n) for n in (119, 120, 121, 500, 3)]
    starts = [[0], [0], [0, 1], [0, 190, 380], [0]]
    predictions = CalibratedModel(FirstSegment(), windows=3, temperature=1.7).predict(Songs.of(songs))
    assert predictions.windows.tolist() == [len(one) for one in starts]
    for row, (song, at) in enumerate(zip(songs, starts, strict=True)):
        logits = song[at, :K].astype(np.float64) * 0.05
        log_probs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).mean(axis=0)
        tempered = np.exp(log_probs / 1.7)
        np.testing.assert_allclose(predictions.logits[row], log_probs, atol=1e-5)
        np.testing.assert_allclose(predictions.probs[row], tempered / tempered.sum(), atol=1e-5)
        np.testing.assert_allclose(
            predictions.cross_entropy_nats[row], -np.log(predictions.probs[row].max()), rtol=1e-12
        )


def test_short_songs_are_repeated_and_long_songs_seen_in_the_middle() -> None:
    model = FirstSegment()
    short, long = random_segments(50), random_segments(301)
    predictions = CalibratedModel(model, windows=1, temperature=1.0).predict(Songs.of([short, long]))
    assert predictions.windows.tolist() == [1, 1]
    np.testing.assert_array_equal(model.shown[0][0], np.vstack([short, short, short])[:120])
    np.testing.assert_array_equal(model.shown[0][1], long[90:210])


def test_many_windows_go_to_the_model_in_batches() -> None:
    model = FirstSegment()
    songs = [random_segments(240, seed) for seed in range(400)]
    predictions = CalibratedModel(model, windows=3, temperature=1.0).predict(Songs.of(songs))
    assert [len(windows) for windows in model.shown] == [1024, 176]
    alone = CalibratedModel(model, windows=3, temperature=1.0).predict(Songs.of(songs[399:]))
    np.testing.assert_allclose(predictions.probs[399], alone.probs[0], atol=1e-7)


def test_the_teachers_answer_counts_its_windows() -> None:
    songs = [random_segments(400)]
    answers: Answers = cascade_of(FirstSegment(0.001), FirstSegment(1.0), 0.0, looks=5).answer(Songs.of(songs))
    assert (answers.answered_by(0), answers.windows.tolist(), len(answers)) == ("teacher", [5], 1)
