"""How good a trained network is on labelled songs: class by class, song by song, and how well it knows it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from segue.data.metrics import TINY, accuracy, cross_entropy_nats, ece, nll, reliability, softmax
from segue.data.song import Floats, Ints

LISTED = 10


@dataclass(frozen=True)
class Share:
    """So many of so many songs."""

    part: int
    songs: int

    @property
    def value(self) -> float:
        """The share; NaN of no songs."""
        return self.part / self.songs if self.songs else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share (Wilson, JASA 1927), 0 to 1 where there are no songs."""
        if not self.songs:
            return 0.0, 1.0
        found = binomtest(self.part, self.songs).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Answer:
    """What was said of one song."""

    song_id: str
    artist: str | None
    label: str
    said: str
    confidence: float  # Probability of what was said.
    label_nats: float  # Cross-entropy with the label: how hard the song is.
    answer_nats: float  # Cross-entropy of the answer, which is known without the label.


@dataclass(frozen=True)
class Bin:
    """Songs that were answered with about the same confidence."""

    right: Share
    confidence: float  # Their mean.


@dataclass(frozen=True)
class Quality:
    """How good answers are."""

    songs: int
    accuracy: float
    mean_recall: float  # Over the classes that have songs.
    nll: float
    ece: float
    recall: dict[str, Share]  # By class, how many of its songs were recognised.
    confusion: tuple[tuple[int, ...], ...]  # Songs by label (rows) and by what was said (columns).
    reliability: tuple[Bin, ...]  # The bins of the ece that have songs.
    hardest: tuple[Answer, ...]
    easiest: tuple[Answer, ...]


def measure(
    logits: Floats, labels: Ints, classes: Sequence[str], song_ids: Sequence[str], artists: Sequence[str | None]
) -> Quality:
    """Return how good answers are.

    Args:
        logits: (n_songs, n_classes), n_songs at least 1.
        labels: (n_songs,), index into `classes`.
        classes: the names of the classes.
        song_ids: (n_songs,).
        artists: (n_songs,), None where unknown.
    """
    probs = softmax(logits)
    said = probs.argmax(axis=1)
    label_nats = -np.log(np.maximum(probs[np.arange(len(labels)), labels], TINY))
    answer_nats = cross_entropy_nats(probs)
    confusion = confusion_of(labels, said, len(classes))
    recall = {
        name: Share(int(row[i]), int(row.sum())) for i, (name, row) in enumerate(zip(classes, confusion, strict=True))
    }
    answers = [
        Answer(
            song_ids[row], artists[row], classes[labels[row]], classes[said[row]], float(probs[row].max()),
            float(label_nats[row]), float(answer_nats[row]),
        )
        for row in np.argsort(label_nats, kind="stable")
    ]  # fmt: skip
    return Quality(
        songs=len(labels),
        accuracy=accuracy(logits, labels),
        mean_recall=float(np.nanmean([share.value for share in recall.values()])),
        nll=nll(probs, labels),
        ece=ece(probs, labels),
        recall=recall,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        reliability=tuple(
            Bin(Share(round(songs * right), int(songs)), float(confidence))
            for songs, confidence, right in zip(*reliability(probs, labels), strict=True)
            if songs
        ),
        hardest=tuple(answers[: -LISTED - 1 : -1]),
        easiest=tuple(answers[:LISTED]),
    )


def confusion_of(labels: Ints, said: Ints, n_classes: int) -> Ints:
    """Return how many songs have each label (rows) and were said to be of each class (columns)."""
    return np.bincount(labels * n_classes + said, minlength=n_classes**2).reshape(n_classes, n_classes)
