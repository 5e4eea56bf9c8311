"""The trade-off: what each setting of the threshold gives in accuracy and costs in time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from segue.data.metrics import accuracy, agreement, ece, nll
from segue.data.song import Ints
from segue.serving.bundle.manifest import Evaluation, Scores, TradeoffRow
from segue.serving.ladder import Ladder
from segue.serving.predictions import MODELS, Answers, Predictions

FALLBACK_RATES = np.linspace(0.0, 1.0, 41)  # Of the table's rows.


def tradeoff(
    student: Predictions,
    teacher: Predictions,
    labels: Ints,
    *,
    student_us_per_window: float,
    teacher_us_per_window: float,
) -> tuple[TradeoffRow, ...]:
    """Sweep the threshold over labelled songs, from student only to all songs to the teacher.

    Args:
        student: its predictions for n songs.
        teacher: its predictions for the same songs.
        labels: (n,) the right classes.
        student_us_per_window: cost of the student in microseconds.
        teacher_us_per_window: the teacher's.
    """
    student_us = student_us_per_window * float(student.windows.mean())
    student_right = student.probs.argmax(axis=1) == labels
    teacher_right = teacher.probs.argmax(axis=1) == labels
    gains = np.sort(teacher_right.astype(int) - student_right)[::-1]
    best_gain = np.concatenate([[0], np.cumsum(gains)])
    rows = []
    for threshold in thresholds(student):
        found = answers(student, teacher, threshold)
        rate = float(found.fell_back.mean())
        rows.append(
            TradeoffRow(
                threshold_nats=float(threshold),
                fallback_rate=rate,
                accuracy=float((found.choice == labels).mean()),
                us_per_song=student_us + teacher_us_per_window * float(found.fell_back @ teacher.windows) / len(labels),
                random_accuracy=float((1 - rate) * student_right.mean() + rate * teacher_right.mean()),
                oracle_accuracy=float(student_right.mean() + best_gain[found.fell_back.sum()] / len(labels)),
            )
        )
    return tuple(rows)


def answers(student: Predictions, teacher: Predictions, threshold_nats: float) -> Answers:
    """Return the cascade's answers where both predictions of all songs are known already."""
    says = (student, teacher)
    return Ladder(MODELS, (threshold_nats,)).climb(lambda rung, rows: says[rung].take(rows))


def area_above_random(rows: Sequence[TradeoffRow]) -> float:
    """Return the area between the curve of a trade-off table and its random line, over fallback rates from 0 to 1.

    The gain in accuracy, averaged over the whole dial, of sending the uncertain songs to the teacher and not just any.
    """
    gains = [row.accuracy - row.random_accuracy for row in rows]
    return float(np.trapezoid(gains, [row.fallback_rate for row in rows]))


def thresholds(student: Predictions) -> NDArray[np.float64]:
    """Return thresholds in nats under which about the shares `FALLBACK_RATES` of the songs fall back, falling."""
    most = np.log(student.probs.shape[1])  # No doubt is larger, so nothing falls back.
    ordered = np.sort(student.doubt_nats)
    accepted = np.rint((1 - FALLBACK_RATES) * len(ordered)).astype(int)
    inner = ordered[np.clip(accepted - 1, 0, None)]
    return np.unique(np.where(accepted == len(ordered), most, np.where(accepted == 0, 0.0, inner)))[::-1]


def evaluation(student: Predictions, teacher: Predictions, labels: Ints, threshold_nats: float) -> Evaluation:
    """Return how good student, teacher and cascade are on n labelled songs."""
    cascade = answers(student, teacher, threshold_nats)
    return Evaluation(
        songs=len(labels),
        threshold_nats=threshold_nats,
        student=scores(student.probs, labels),
        teacher=scores(teacher.probs, labels),
        cascade=scores(cascade.probs, labels),
        fallback_rate=float(cascade.fell_back.mean()),
        agreement=agreement(student.probs, teacher.probs),
    )


def scores(probs: NDArray[np.float64], labels: Ints) -> Scores:
    """Return accuracy, nll and ece of probabilities (n, n_classes)."""
    return Scores(accuracy(probs, labels), nll(probs, labels), ece(probs, labels))


def tradeoff_text(rows: Sequence[TradeoffRow], every: int = 4) -> str:
    """Return a trade-off table for people: every `every`-th row, and the last."""
    shown = [*rows[:-1:every], rows[-1]]
    return tabulate(
        [tuple(vars(row).values()) for row in shown],
        ("threshold (nats)", "fallback rate", "accuracy", "us a song", "random", "oracle"),
        floatfmt=(".3f", ".3f", ".3f", ".0f", ".3f", ".3f"),
    )
