"""The cascade: against a plain loop over songs, with models made of a few lines."""

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from segue.data.song import Floats, Ints, Songs
from segue.serving.cascade import AnsweredBy, Answers, CalibratedModel, Cascade, Predictions, route
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

    by: AnsweredBy
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


# Drawn from few values too, so that student, teacher and threshold often come close; ties have a test of their own.
some_logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.just(2 * K)),
    elements=st.one_of(st.sampled_from([np.nan, 0.0, 0.5, 1.0, 2.0]), st.floats(-30, 30, width=32)),
)


@given(logits=some_logits, threshold=st.one_of(st.sampled_from([0.0, 0.5, LOG_K]), st.floats(0, 2)))
def test_route_is_a_plain_loop_over_the_songs(logits: Floats, threshold: float) -> None:
    student, teacher = predictions_of(logits[:, :K], windows=1), predictions_of(logits[:, K:], windows=9)
    asked: list[Ints] = []

    def ask(rows: Ints) -> Predictions:
        asked.append(rows)
        return teacher.take(rows)

    found = route(student, threshold, ask)
    for row in range(len(logits)):
        expected = plain_answer(logits[row, :K], logits[row, K:], threshold)
        if not np.isclose(student.cross_entropy_nats[row], threshold):
            assert (found.answered_by(row), found.fell_back[row]) == (expected.by, expected.fell_back)
            assert found.windows[row] == (9 if expected.by == "teacher" else 1)
            np.testing.assert_allclose(found.cross_entropy_nats[row], expected.cross_entropy_nats, atol=1e-9)
        source = teacher if found.by_teacher[row] else student
        np.testing.assert_array_equal(found.probs[row], source.probs[row])
    assert [rows.tolist() for rows in asked] == [np.flatnonzero(found.fell_back).tolist()] * bool(found.fell_back.any())


def test_a_song_at_the_threshold_is_the_students() -> None:
    tied = predictions_of(np.array([[0.5, 0, 0], [2, 1, 0]], np.float32))
    accepted = route(tied, float(tied.cross_entropy_nats[0]), tied.take)
    assert not accepted.fell_back[0]


def test_what_fell_back_is_the_teachers_however_sure_the_student_was() -> None:
    sure, unsure = (predictions_of(np.array([logits], np.float32)) for logits in ([9, 0, 0], [0, 0.1, 0]))
    answers = route(sure, 0.0, unsure.take)
    assert answers.by_teacher.tolist() == [True]
    assert answers.choice.tolist() == [1]


def test_the_student_answers_where_the_teacher_does_not_know() -> None:
    lost = predictions_of(np.full((1, K), np.nan, np.float32))
    answers = route(predictions_of(np.array([[1, 0, 0]], np.float32)), 0.0, lost.take)
    assert (answers.fell_back[0], answers.answered_by(0), answers.choice[0]) == (True, "student", 0)


def test_threshold_zero_asks_the_teacher_about_every_uncertain_song() -> None:
    answers = route(predictions_of(np.array([[0, 0, 0], [9, 0, 0], [999, 0, 0]], np.float32)), 0.0, wise_teacher)
    assert answers.fell_back.tolist() == [True, True, False]  # The last one is certain to the last digit.


@given(hnp.arrays(np.float32, (5, K), elements=st.floats(-100, 100, width=32)))
def test_threshold_log_k_asks_the_teacher_about_no_song(logits: Floats) -> None:
    answers = route(predictions_of(logits), LOG_K + 1e-12, wise_teacher)
    assert not answers.fell_back.any()
    assert not answers.by_teacher.any()


def wise_teacher(rows: Ints) -> Predictions:
    return predictions_of(np.tile(np.array([0, 0, 50], np.float32), (len(rows), 1)))


def test_an_answer_that_is_not_a_number_falls_back() -> None:
    student = predictions_of(np.array([[np.nan, 0, 0], [9, 0, 0]], np.float32))
    answers = route(student, LOG_K, wise_teacher)
    assert [answers.answered_by(row) for row in range(2)] == ["teacher", "student"]
    assert answers.choice.tolist() == [2, 0]


def test_a_song_that_neither_model_knows_stays_not_a_number() -> None:
    nothing = predictions_of(np.full((2, K), np.nan, np.float32))
    answers = route(nothing, 0.5, nothing.take)
    assert np.isnan(answers.cross_entropy_nats).all()
    assert answers.fell_back.all()


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
    return Cascade(*models, threshold_nats)


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
