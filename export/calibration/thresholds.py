"""Calibration: a threshold with a promise where songs support one, from songs that neither model trained on.

A quarter of the calibration songs shapes what the dial turns: temperatures and, if wanted, a scale per class. The other
three quarters set the dial. So the promise is made from songs that had no say in anything else, and is exact.
"""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from segue.data.metrics import TINY
from segue.data.song import Bools, Ints
from segue.errors import ConfigError, SongError
from segue.export.calibration.promise import p_value_of_errors, p_value_of_losses, songs_for_accuracy, songs_for_losses
from segue.serving.bundle.manifest import Guarantee, Target
from segue.serving.ladder import goes_on
from segue.serving.predictions import Predictions

THRESHOLDS = 101  # Grid points from 0 to log(n_classes), fixed before any song is seen.
SHAPE_SHARE = 0.25  # Of the calibration songs.
LEAST_SONGS = 20  # Labelled calibration songs; with fewer not even a temperature means anything.
PRIOR_SONGS = 20  # The scale of a class is drawn towards that of all classes as if by so many songs.
MOST_APART = 4.0  # A scale is at most so many times that of all classes, or so small a part of it.


@dataclass(frozen=True)
class CalibrationConfig:
    """What the default threshold promises."""

    points: float = 1.0  # The cascade's accuracy is at most so many points (0.01) below the teacher's ...
    confidence: float = 0.95  # ... with this confidence over the draw of the calibration songs.

    def __post_init__(self) -> None:
        """Refuse promises that mean nothing."""
        if not 0 < self.points < 100 or not 0.5 <= self.confidence < 1:
            raise ConfigError(
                "expected points above 0 and below 100 and a confidence of 0.5 or more and below 1, found "
                f"{self.points:g} and {self.confidence:g}"
            )


@dataclass(frozen=True)
class Costs:
    """What a window costs, in microseconds at the serving batch."""

    student_us: float
    teacher_us: float


@dataclass(frozen=True)
class Goal:
    """What the dial is set to."""

    target: Target
    asked: float  # In the target's unit; see `segue.serving.bundle.manifest.Guarantee`.
    confidence: float  # Of the promise, for the targets that can carry one: within and accuracy.

    def __post_init__(self) -> None:
        """Refuse what no threshold could mean."""
        most = {"within": 100.0, "accuracy": 1.0, "fallback_rate": 1.0, "songs_per_s": np.inf}[self.target]
        least_is_fine = self.target == "fallback_rate"
        if not (0 <= self.asked <= most if least_is_fine else 0 < self.asked < most):
            raise ConfigError(
                f"{self.target.replace('_', '-')}: expected "
                + ("0 to 1" if least_is_fine else f"above 0 and below {most:g}")
                + f", found {self.asked:g}"
            )
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence: expected 0.5 or more and below 1, found {self.confidence:g}")


class UnsupportedError(ConfigError):
    """A goal that no threshold reaches on the calibration songs."""


def deal_parts(n_songs: int, seed: int = 0) -> tuple[Ints, Ints]:
    """Deal calibration songs, by a shuffle, to the part that shapes the dial and the part that sets it."""
    if n_songs < LEAST_SONGS:
        raise SongError(f"calibration: expected at least {LEAST_SONGS} labelled songs, found {n_songs}")
    order = np.random.default_rng(seed).permutation(n_songs)
    shape = round(SHAPE_SHARE * n_songs)
    return np.sort(order[:shape]), np.sort(order[shape:])


def fit_class_scales(student: Predictions, teacher: Predictions, labels: Ints) -> tuple[float, ...]:
    """Return a scale for the threshold of each class that the student may say, the smallest of them 1.

    The gain in accuracy of asking the teacher is taken as proportional to the student's cross-entropy, with a slope for
    each class, fitted by least squares and drawn towards the slope of all classes. A threshold times these scales asks
    where the expected gain is the same for every class.
    """
    n_classes: int = student.probs.shape[1]
    doubt, choice = student.cross_entropy_nats, student.probs.argmax(axis=1)
    gain = (teacher.probs.argmax(axis=1) == labels).astype(float) - (choice == labels)
    gained = np.bincount(choice, gain * doubt, n_classes)
    squares = np.bincount(choice, np.square(doubt), n_classes)
    overall = gained.sum() / max(squares.sum(), TINY)
    if not overall > 0:
        return (1.0,) * n_classes  # Asking the teacher gains nothing, so no class gains more than another.
    prior = PRIOR_SONGS * squares.sum() / len(labels)
    slopes = np.clip((gained + prior * overall) / (squares + prior), overall / MOST_APART, overall * MOST_APART)
    scales: list[float] = (slopes.max() / slopes).tolist()
    return tuple(scales)


def choose_threshold(
    student: Predictions, teacher: Predictions, labels: Ints, goal: Goal, costs: Costs, seed: int = 0
) -> tuple[float, Guarantee]:
    """Return the cheapest threshold in nats that reaches the goal on the calibration songs, and what is promised of it.

    Of a fallback rate or a speed nothing is promised; see `_by_accuracy` for the promises.

    Raises:
        UnsupportedError: no threshold reaches the accuracy or the speed that was asked for.
    """
    if goal.target in ("within", "accuracy"):
        return _by_accuracy(student, teacher, labels, goal, seed)
    n = len(labels)
    if goal.target == "fallback_rate":
        fallen = round(goal.asked * n)
    else:
        fallen = _affordable(student, teacher, goal.asked, costs)
    ordered = np.sort(student.doubt_nats)
    ends = {0: np.log(student.probs.shape[1]), n: 0.0}
    threshold = float(ends[fallen] if fallen in ends else ordered[n - fallen - 1 : n - fallen + 1].mean())
    falls = goes_on(student.doubt_nats, threshold)
    if goal.target == "fallback_rate":
        measured = float(falls.mean())
    else:
        measured = 1e6 / us_per_song(student, teacher, falls, costs)
    return threshold, Guarantee(goal.target, goal.asked, measured, n, None, kept=False, songs_needed=None)


def _by_accuracy(
    student: Predictions, teacher: Predictions, labels: Ints, goal: Goal, seed: int
) -> tuple[float, Guarantee]:
    """Return the cheapest threshold whose promise the songs support, or else the cheapest that keeps it on these songs.

    Fixed-sequence testing (Angelopoulos et al., *Learn then Test*, 2021): thresholds on a fixed grid are tested from
    the safe end, where every song falls back, towards the cheap end, each at level 1 - confidence, up to the first that
    fails. So the promise holds for the threshold that is chosen, although it was searched for. Where not even the first
    passes, nothing is promised; "points below the teacher" is then taken as points below the best threshold.
    """
    grid = np.linspace(0.0, np.log(student.probs.shape[1]), THRESHOLDS)
    order = np.random.default_rng(seed).permutation(len(labels))  # Bets are placed on one song after the other.
    student_right, teacher_right = ((one.probs.argmax(axis=1) == labels)[order] for one in (student, teacher))
    right = np.where(goes_on(student.doubt_nats[order], grid[:, None]), teacher_right, student_right)
    means = right.mean(axis=1)
    passed = list(takewhile(lambda one: _is_promised(goal, one, teacher_right), right))
    reached = np.flatnonzero(means >= (goal.asked if goal.target == "accuracy" else means.max() - goal.asked / 100))
    if not passed and not len(reached):
        raise UnsupportedError(
            f"accuracy: expected at most {means.max():.3f}, which is the best that any threshold gives on "
            f"{len(labels)} calibration songs (the teacher alone: {teacher_right.mean():.3f}), found {goal.asked:g}"
        )
    chosen = len(passed) - 1 if passed else int(reached[-1])
    return float(grid[chosen]), Guarantee(
        target=goal.target,
        asked=goal.asked,
        measured=float(means[chosen] if goal.target == "accuracy" else 100 * (teacher_right.mean() - means[chosen])),
        calibration_songs=len(labels),
        confidence=goal.confidence,
        kept=bool(passed),
        songs_needed=None if passed else _songs_needed(goal, right[0], teacher_right),
    )


def _is_promised(goal: Goal, right: Bools, teacher_right: Bools) -> bool:
    """Tell whether songs that the cascade got `right` or wrong, (n,), support the goal at one threshold."""
    if goal.target == "accuracy":
        p_value = p_value_of_errors(int((~right).sum()), len(right), 1 - goal.asked)
    else:
        p_value = p_value_of_losses(teacher_right.astype(float) - right, goal.asked / 100, goal.confidence)
    return p_value <= 1 - goal.confidence


def _songs_needed(goal: Goal, right: Bools, teacher_right: Bools) -> int | None:
    """Return about how many songs like these would support the goal at one threshold, None if no number would."""
    if goal.target == "accuracy":
        return songs_for_accuracy(float(right.mean()), goal.asked, goal.confidence)
    return songs_for_losses(teacher_right.astype(float) - right, goal.asked / 100, goal.confidence)


def us_per_song(student: Predictions, teacher: Predictions, falls: Bools, costs: Costs) -> float:
    """Return the mean cost of a song in microseconds where the songs that `falls` (n,) marks go on to the teacher."""
    student_us = costs.student_us * float(student.windows.mean())
    return student_us + costs.teacher_us * float(falls @ teacher.windows) / len(falls)


def _affordable(student: Predictions, teacher: Predictions, songs_per_s: float, costs: Costs) -> int:
    """Return how many songs may fall back, the most doubtful first, at a speed."""
    student_us = costs.student_us * float(student.windows.mean())
    budget_us = (1e6 / songs_per_s - student_us) * len(student.windows)
    if budget_us < 0:
        raise UnsupportedError(
            f"songs-per-s: expected at most {1e6 / student_us:,.0f}, which is the student alone on this machine, found "
            f"{songs_per_s:,.0f}"
        )
    hardest_first = np.argsort(-student.doubt_nats, kind="stable")
    spent_us = np.cumsum(costs.teacher_us * teacher.windows[hardest_first])
    return int(np.searchsorted(spent_us, budget_us, side="right"))
