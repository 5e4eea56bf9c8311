"""Suspected label errors: songs on which both models surely disagree with the label, and agree with each other.

By confident learning (Northcutt, Jiang and Chuang, *JAIR* 70, 2021): a model is sure of a class where its probability
is at least the mean that songs labelled so get for it. Only songs that the bundle has not seen in training are asked
about: of the others the models have learnt the label, right or wrong.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from segue.atomic import atomic_file
from segue.data.metrics import Probs
from segue.data.song import Bools, Ints
from segue.data.table import SongTable
from segue.serving.bundle.load import Bundle
from segue.serving.bundle.seen import were_seen
from segue.serving.cascade import open_cascade
from segue.serving.tables import labelled, predict_rows


@dataclass(frozen=True)
class Suspect:
    """A song whose label may be wrong."""

    song_id: str
    label: str
    suggested: str  # What both models say.
    student_probability: float  # Of what they suggest.
    teacher_probability: float


def find_suspects(bundle: Bundle, songs: SongTable) -> tuple[Suspect, ...]:
    """Return the suspects among the labelled songs that the bundle has not seen, the surest first."""
    rows, labels = labelled(songs, bundle)
    new = ~were_seen(bundle, [songs.song_ids[row] for row in rows])
    rows, labels = rows[new], labels[new]
    if not len(rows):
        return ()
    cascade = open_cascade(bundle)
    student = predict_rows(cascade.student, songs, rows, "student").probs
    teacher = predict_rows(cascade.teacher, songs, rows, "teacher").probs
    choice = teacher.argmax(axis=1)
    found = sure_disagreement(student, labels) & sure_disagreement(teacher, labels) & (student.argmax(axis=1) == choice)
    at = np.flatnonzero(found)
    at = at[np.argsort(-np.minimum(student[at, choice[at]], teacher[at, choice[at]]), kind="stable")]
    classes = bundle.manifest.classes
    return tuple(
        Suspect(
            songs.song_ids[rows[one]],
            classes[labels[one]],
            classes[choice[one]],
            float(student[one, choice[one]]),
            float(teacher[one, choice[one]]),
        )
        for one in at
    )


def sure_disagreement(probs: Probs, labels: Ints) -> Bools:
    """Return where a model, by probs (n, n_classes), is sure of another class than the label (n,)."""
    choice, n_classes = probs.argmax(axis=1), probs.shape[1]
    own = probs[np.arange(len(labels)), labels]
    songs = np.bincount(labels, minlength=n_classes)
    sure_of = np.where(songs, np.bincount(labels, own, n_classes) / np.maximum(songs, 1), np.inf)
    found: Bools = (choice != labels) & (probs[np.arange(len(labels)), choice] >= sure_of[choice])
    return found


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write suspects as CSV; with the column `suggested` renamed to `genre` it is a file of corrections."""
    with atomic_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Suspect)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(one) for one in suspects)
