"""The dial of a bundle: from what both models say of calibration songs to temperatures, threshold, promise, pictures.

`segue export` sets it first, `segue calibrate` sets it anew; it needs no torch.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from segue.data.song import Ints
from segue.data.table import SongTable
from segue.errors import SongError
from segue.export.calibration.picture import draw_tradeoff
from segue.export.calibration.reliability import draw_reliability
from segue.export.calibration.temperature import Temperatures, UncalibratedPredictions, fit_temperatures
from segue.export.calibration.thresholds import SHAPE_SHARE, Costs, Goal, choose_threshold, deal_parts, fit_class_scales
from segue.serving.bundle.manifest import PICTURE, RELIABILITY, TRADEOFF, Evaluation, Guarantee, TradeoffRow
from segue.serving.bundle.tradeoff_table import write_tradeoff
from segue.serving.predictions import NOT_A_NUMBER, Predictions
from segue.serving.tradeoff import evaluation, tradeoff

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dial:
    """What calibration sets, and how it does on the songs that set it."""

    student_temperatures: Temperatures
    teacher_temperatures: Temperatures
    class_scales: tuple[float, ...] | None
    threshold_nats: float
    guarantee: Guarantee
    evaluation: Evaluation
    rows: tuple[TradeoffRow, ...]


def set_dial(
    student: UncalibratedPredictions,
    teacher: UncalibratedPredictions,
    labels: Ints,
    goal: Goal,
    costs: Costs,
    folder: Path,
    *,
    per_class: bool = False,
) -> Dial:
    """Set the dial to a goal, and write the trade-off and the pictures.

    Args:
        student: what it says of the calibration songs.
        teacher: what it says of the same songs.
        labels: (n,) their classes.
        goal: what is asked of the threshold.
        costs: what a window costs.
        folder: where the trade-off and the pictures go.
        per_class: whether each class that the student may say gets a threshold of its own.
    """
    shape, setting = deal_parts(len(labels))
    ours = fit_temperatures(student, labels, shape, setting, "student")
    theirs = fit_temperatures(teacher, labels, shape, setting, "teacher")
    scales = None
    if per_class:
        shaping = student.take(shape), teacher.take(shape)
        scales = fit_class_scales(ours.predict(shaping[0]), theirs.predict(shaping[1]), labels[shape])
    student, teacher, labels = student.take(setting), teacher.take(setting), labels[setting]
    student_says, teacher_says = ours.predict(student, scales), theirs.predict(teacher)
    threshold, guarantee = choose_threshold(student_says, teacher_says, labels, goal, costs)
    if guarantee.songs_needed:
        guarantee = replace(guarantee, songs_needed=ceil(guarantee.songs_needed / (1 - SHAPE_SHARE)))
    found = evaluation(student_says, teacher_says, labels, threshold)
    rows = tradeoff(
        student_says,
        teacher_says,
        labels,
        student_us_per_window=costs.student_us,
        teacher_us_per_window=costs.teacher_us,
    )
    write_tradeoff(folder / TRADEOFF, rows)
    draw_tradeoff(folder / PICTURE, rows, found, guarantee)
    draw_reliability(
        folder / RELIABILITY,
        labels,
        {"student": (student.serves.probs, student_says.probs), "teacher": (teacher.serves.probs, teacher_says.probs)},
    )
    return Dial(ours, theirs, scales, threshold, guarantee, found, rows)


def check_calibration_songs(
    songs: SongTable, rows: Ints, labels: Ints, classes: Sequence[str], predictions: Sequence[Predictions]
) -> None:
    """Warn of classes that no calibration song has, and refuse songs that the models give no number for."""
    missing = [name for index, name in enumerate(classes) if index not in labels]
    if missing:
        log.warning(
            "%s: no calibration song of %s; what is measured and promised says nothing of them",
            songs.path,
            ", ".join(missing),
        )
    for one in predictions:
        unknown = np.flatnonzero(np.isnan(one.cross_entropy_nats))
        if len(unknown):
            raise SongError(f"{songs.path}, song {songs.song_ids[rows[unknown[0]]]!r}: {NOT_A_NUMBER}")
