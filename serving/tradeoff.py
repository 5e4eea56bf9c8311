"""The trade-off: what each setting of the threshold gives in accuracy and costs in time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from segue.data.metrics import accuracy, agreement, ece, nll
from segue.data.song import Ints
from segue.serving.bundle.manifest import Evaluation, Scores, TradeoffRow
from segue.serving.ladder import Ladder, stops
from segue.serving.predictions import MODELS, Answers, Doubles, Predictions

TWO_RUNGS = Ladder(MODELS, (0.0,))
FALLBACK_RATES = np.linspace(0.0, 1.0, 41)  # Of the table's rows.


def tradeoff(
    student: Predictions,
    teacher: Predictions,
    labels: Ints,
    *,
    student_us_per_window: float,
    teacher_us_per_window: float,
) -> tuple[TradeoffRow, ...]:
    """Sweep the threshold of the usual two rungs over labelled songs, from student only to all songs to the teacher.

    Args:
        student: its predictions for n songs.
        teacher: its predictions for the same songs.
        labels: (n,) the right classes.
        student_us_per_window: cost of the student in microseconds.
        teacher_us_per_window: the teacher's.
    """
    costs = (student_us_per_window, teacher_us_per_window)
    return sweep((student, teacher), labels, TWO_RUNGS, thresholds(student)[:, None], costs)


def sweep(
    says: Sequence[Predictions],
    labels: Ints,
    ladder: Ladder,
    settings: Doubles,
    us_per_window: Sequence[float],
) -> tuple[TradeoffRow, ...]:
    """Return what each setting of a ladder's thresholds gives on labelled songs.

    With more than two rungs, the random line and the oracle spend the same time on the last rung, right after the
    first.

    Args:
        says: the predictions of each rung for the same n songs.
        labels: (n,) the right classes.
        ladder: how songs climb; its own thresholds do not matter.
        settings: (n_settings, n_rungs - 1) thresholds in nats.
        us_per_window: cost of each rung in microseconds.
    """
    standings = ladder.standings(says)
    right = np.array([answers.choice == labels for answers in standings])
    spent_us = climbing_us(says, us_per_window)
    first, last = right[0], says[-1].probs.argmax(axis=1) == labels
    best_gain = np.concatenate([[0], np.cumsum(np.sort(last.astype(int) - first)[::-1])])
    songs, n = np.arange(len(labels)), len(labels)
    rows = []
    for setting, stop in zip(settings.tolist(), stops(standings, settings), strict=True):
        us = float(spent_us[stop, songs].mean())
        rate = share = float((stop == len(says) - 1).mean())
        if len(says) > 2:
            share = min(max((us - spent_us[0].mean()) / (us_per_window[-1] * says[-1].windows.mean()), 0.0), 1.0)
        rows.append(
            TradeoffRow(
                threshold_nats=setting[0],
                fallback_rate=rate,
                accuracy=float(right[stop, songs].mean()),
                us_per_song=us,
                random_accuracy=float((1 - share) * first.mean() + share * last.mean()),
                oracle_accuracy=float(first.mean() + best_gain[round(share * n)] / n),
                next_thresholds_nats=tuple(setting[1:]),
            )
        )
    return tuple(rows)


def climbing_us(says: Sequence[Predictions], us_per_window: Sequence[float]) -> Doubles:
    """Return what each song costs that climbs to each rung, and all below it, in microseconds, (n_rungs, n_songs)."""
    spent: Doubles = np.cumsum([us * said.windows for us, said in zip(us_per_window, says, strict=True)], axis=0)
    return spent


def answers(student: Predictions, teacher: Predictions, threshold_nats: float) -> Answers:
    """Return the answers of the usual two rungs where both predictions of all songs are known already."""
    says = (student, teacher)
    return TWO_RUNGS.at(threshold_nats).climb(lambda rung, rows: says[rung].take(rows))


def area_above_random(rows: Sequence[TradeoffRow]) -> float:
    """Return the area between the curve of a trade-off table and its random line, over fallback rates from 0 to 1.

    The gain in accuracy, averaged over the whole dial, of sending the uncertain songs to the teacher and not just any.
    """
    rows = sorted(rows, key=lambda row: row.fallback_rate)  # Those of a longer ladder need not be in that order.
    gains = [row.accuracy - row.random_accuracy for row in rows]
    return float(np.trapezoid(gains, [row.fallback_rate for row in rows]))


def settings(says: Sequence[Predictions], kept: Sequence[TradeoffRow]) -> Doubles:
    """Return the settings of a ladder to sweep over, (n_settings, n_rungs - 1).

    Of two rungs they are `thresholds`; of more, the path that calibration found, which a bundle keeps in its table.

    Args:
        says: the predictions of each rung.
        kept: the trade-off table of the bundle.
    """
    if len(says) == 2:
        return thresholds(says[0])[:, None]
    return np.array([(row.threshold_nats, *row.next_thresholds_nats) for row in kept])


def thresholds(student: Predictions) -> NDArray[np.float64]:
    """Return thresholds in nats under which about the shares `FALLBACK_RATES` of the songs fall back, falling."""
    most = np.log(student.probs.shape[1])  # No doubt is larger, so nothing falls back.
    ordered = np.sort(student.doubt_nats)
    accepted = np.rint((1 - FALLBACK_RATES) * len(ordered)).astype(int)
    inner = ordered[np.clip(accepted - 1, 0, None)]
    return np.unique(np.where(accepted == len(ordered), most, np.where(accepted == 0, 0.0, inner)))[::-1]


def evaluation(says: Sequence[Predictions], labels: Ints, ladder: Ladder) -> Evaluation:
    """Return how good the first rung, the last one and the ladder are on n labelled songs.

    Args:
        says: the predictions of each rung for the same songs.
        labels: (n,) the right classes.
        ladder: how songs climb.
    """
    cascade = ladder.climb(lambda rung, rows: says[rung].take(rows))
    return Evaluation(
        songs=len(labels),
        threshold_nats=ladder.thresholds_nats[0],
        student=scores(says[0].probs, labels),
        teacher=scores(says[-1].probs, labels),
        cascade=scores(cascade.probs, labels),
        fallback_rate=float(cascade.fell_back.mean()),
        agreement=agreement(says[0].probs, says[-1].probs),
    )


def scores(probs: NDArray[np.float64], labels: Ints) -> Scores:
    """Return accuracy, nll and ece of probabilities (n, n_classes)."""
    return Scores(accuracy(probs, labels), nll(probs, labels), ece(probs, labels))


def tradeoff_text(rows: Sequence[TradeoffRow], every: int = 4) -> str:
    """Return a trade-off table for people: every `every`-th row, and the last."""
    shown = [*rows[:-1:every], rows[-1]]
    settings = [" ".join(f"{nats:.3f}" for nats in (row.threshold_nats, *row.next_thresholds_nats)) for row in shown]
    figures = [
        (row.fallback_rate, row.accuracy, row.us_per_song, row.random_accuracy, row.oracle_accuracy) for row in shown
    ]
    return tabulate(
        [(setting, *row) for setting, row in zip(settings, figures, strict=True)],
        ("threshold (nats)", "fallback rate", "accuracy", "us a song", "random", "oracle"),
        floatfmt=("", ".3f", ".3f", ".0f", ".3f", ".3f"),
        disable_numparse=[0],
        colalign=("right",) * 6,
    )
