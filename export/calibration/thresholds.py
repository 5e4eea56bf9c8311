"""Calibration: a threshold with a promise where songs support one, from songs that neither model trained on.

A quarter of the calibration songs shapes what the dial turns: temperatures and, if wanted, a scale per class. The other
three quarters set the dial. So the promise is made from songs that had no say in anything else, and is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from segue.data.metrics import TINY
from segue.data.song import Bools, Ints
from segue.errors import ConfigError, SongError
from segue.export.calibration.promise import p_value_of_errors, p_value_of_losses, songs_for_accuracy, songs_for_losses
from segue.serving.bundle.manifest import Guarantee, Target
from segue.serving.ladder import Ladder, goes_on, stops
from segue.serving.predictions import Answers, Doubles, Predictions
from segue.serving.tradeoff import TWO_RUNGS, climbing_us

THRESHOLDS = 101  # Grid points from 0 to log(n_classes), fixed before any song is seen; settings of a longer path.
GRID_POINTS = {3: 41, 4: 17, 5: 9}  # Of each threshold, by rungs, among which the path of a ladder is looked for.
SETTINGS_AT_A_TIME = 256
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


def grid(n_classes: int) -> Doubles:
    """Return the thresholds of two rungs that a promise is tested on, (101, 1), fixed before any song is seen."""
    return np.linspace(0.0, np.log(n_classes), THRESHOLDS)[:, None]


def find_path(says: Sequence[Predictions], ladder: Ladder, us_per_window: Sequence[float]) -> Doubles:
    """Return settings of a ladder's thresholds, (n_settings, n_rungs - 1), from all songs to the last rung to none.

    Each is the best of its cost by the calibrated probabilities, which are a smoother estimate of accuracy than counts
    of right answers. A promise may be tested along the path on other songs than the ones it was found on.

    Args:
        says: the predictions of each rung for the songs that the path is found on.
        ladder: how songs climb; its own thresholds do not matter.
        us_per_window: cost of each rung in microseconds.
    """
    most = float(np.log(says[0].probs.shape[1]))
    standings = ladder.standings(says)
    per_rung = GRID_POINTS[min(len(says), max(GRID_POINTS))]
    shares = np.linspace(0, 1, per_rung)
    axes = [
        np.unique([0.0, *np.quantile(answers.doubt_nats, shares[1:-1]).clip(0, most), most])
        for answers in standings[:-1]
    ]
    settings = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    sure = np.array([answers.probs.max(axis=1) for answers in standings])
    spent_us = climbing_us(says, us_per_window)
    songs = np.arange(len(says[0]))
    value, cost = np.empty((2, len(settings)))
    for start in range(0, len(settings), SETTINGS_AT_A_TIME):
        some = slice(start, start + SETTINGS_AT_A_TIME)
        stop = stops(standings, settings[some])
        value[some], cost[some] = sure[stop, songs].mean(axis=1), spent_us[stop, songs].mean(axis=1)
    targets = np.geomspace(max(cost.max(), 1e-9), max(cost.min(), 1e-9), THRESHOLDS)
    path = [0]  # Every threshold 0: all songs climb to the last rung.
    for target in targets[1:]:
        affordable = np.flatnonzero(cost <= target * (1 + 1e-9))
        path.append(int(affordable[np.lexsort((cost[affordable], -value[affordable]))[0]]))
    path.append(len(settings) - 1)  # Every threshold the largest: no song goes on.
    found: Doubles = settings[list(dict.fromkeys(path))]
    return found


def choose_threshold(
    student: Predictions, teacher: Predictions, labels: Ints, goal: Goal, costs: Costs, seed: int = 0
) -> tuple[float, Guarantee]:
    """Return the cheapest threshold of the usual two rungs that reaches the goal; see `choose_thresholds`."""
    path, us = grid(student.probs.shape[1]), (costs.student_us, costs.teacher_us)
    (threshold,), guarantee = choose_thresholds((student, teacher), labels, goal, TWO_RUNGS, path, us, seed)
    return threshold, guarantee


def choose_thresholds(
    says: Sequence[Predictions],
    labels: Ints,
    goal: Goal,
    ladder: Ladder,
    path: Doubles,
    us_per_window: Sequence[float],
    seed: int = 0,
) -> tuple[tuple[float, ...], Guarantee]:
    """Return the cheapest thresholds that reach the goal on the calibration songs, and what is promised of them.

    Of a fallback rate or a speed nothing is promised; see `_by_accuracy` for the promises.

    Args:
        says: the predictions of each rung for n calibration songs.
        labels: (n,) their classes.
        goal: what is asked.
        ladder: how songs climb; its own thresholds do not matter.
        path: (n_settings, n_rungs - 1) thresholds from the safe end to the cheap one, chosen without these songs.
        us_per_window: cost of each rung in microseconds.
        seed: of the order in which songs are bet on.

    Raises:
        UnsupportedError: no setting reaches the accuracy or the speed that was asked for.
    """
    standings = ladder.standings(says)
    if goal.target in ("within", "accuracy"):
        chosen, guarantee = _by_accuracy(standings, says[-1], labels, goal, path, seed)
        return tuple(path[chosen].tolist()), guarantee
    n = len(labels)
    if len(says) > 2:
        return _by_cost(standings, says, goal, path, us_per_window)
    (student, teacher), costs = says, Costs(*us_per_window)
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
    return (threshold,), Guarantee(goal.target, goal.asked, measured, n, None, kept=False, songs_needed=None)


def _by_cost(
    standings: Sequence[Answers], says: Sequence[Predictions], goal: Goal, path: Doubles, us_per_window: Sequence[float]
) -> tuple[tuple[float, ...], Guarantee]:
    """Return the dearest setting on the path with at most the fallback rate, or at least the speed, that is asked."""
    stop = stops(standings, path)
    rates = (stop == len(says) - 1).mean(axis=1)
    speeds = 1e6 / climbing_us(says, us_per_window)[stop, np.arange(stop.shape[1])].mean(axis=1)
    if goal.target == "fallback_rate":
        measured, reached = rates, np.flatnonzero(rates <= goal.asked)
    else:
        measured, reached = speeds, np.flatnonzero(speeds >= goal.asked)
    if not len(reached):
        raise UnsupportedError(
            f"{goal.target.replace('_', '-')}: expected at most {measured.max():,.0f}, which is the first rung alone "
            f"on this machine, found {goal.asked:,.0f}"
        )
    chosen, n = int(reached[0]), stop.shape[1]
    guarantee = Guarantee(goal.target, goal.asked, float(measured[chosen]), n, None, kept=False, songs_needed=None)
    return tuple(path[chosen].tolist()), guarantee


def _by_accuracy(
    standings: Sequence[Answers], teacher: Predictions, labels: Ints, goal: Goal, path: Doubles, seed: int
) -> tuple[int, Guarantee]:
    """Return the cheapest setting whose promise the songs support, or else the cheapest that keeps it on these songs.

    Fixed-sequence testing (Angelopoulos et al., *Learn then Test*, 2021): the settings of the path are tested from the
    safe end, where every song goes to the last rung, towards the cheap end, each at level 1 - confidence, up to the
    first that fails. Whoever ends up with a broken promise has rejected the first true hypothesis of the path, and that
    happens with a probability of at most 1 - confidence, however many settings and rungs there are. It takes only that
    the path was fixed without the songs it is tested on: a grid for two rungs, for more the path that other songs gave.
    Where not even the first passes, nothing is promised; "points below the teacher" is then taken as points below the
    best setting.
    """
    order = np.random.default_rng(seed).permutation(len(labels))  # Bets are placed on one song after the other.
    right_on = np.array([(answers.choice == labels)[order] for answers in standings])
    teacher_right = (teacher.probs.argmax(axis=1) == labels)[order]
    stop = stops([answers.take(order) for answers in standings], path)
    right = right_on[stop, np.arange(len(labels))]
    means = right.mean(axis=1)
    passed = list(takewhile(lambda one: _is_promised(goal, one, teacher_right), right))
    reached = np.flatnonzero(means >= (goal.asked if goal.target == "accuracy" else means.max() - goal.asked / 100))
    if not passed and not len(reached):
        raise UnsupportedError(
            f"accuracy: expected at most {means.max():.3f}, which is the best that any threshold gives on "
            f"{len(labels)} calibration songs (the teacher alone: {teacher_right.mean():.3f}), found {goal.asked:g}"
        )
    chosen = len(passed) - 1 if passed else int(reached[-1])
    return chosen, Guarantee(
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
