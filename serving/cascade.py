"""The cascade: the student answers, and a song whose cross-entropy is above the threshold falls back to the teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from data.errors import ConfigError
from data.metrics import cross_entropy_nats, mean_over_windows, softmax
from data.song import Floats, Ints, Songs, stack_windows
from serving.bundle import Bundle, ModelEntry
from serving.runtime import OnnxModel, Provider

NOT_A_NUMBER = "the models' answer is not a number; are the song's values in range?"
BATCH_WINDOWS = 1024  # Larger batches leave the cache and are slower.

Bools = NDArray[np.bool_]
AnsweredBy = Literal["student", "teacher"]


class Model(Protocol):
    """Anything that puts logits on windows."""

    def logits(self, windows: Floats) -> Floats:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""


@dataclass(frozen=True)
class Opinion:
    """What one model says of some songs."""

    logits: Floats  # (n_songs, n_classes), the mean log-probability over each song's windows.
    probs: NDArray[np.float64]  # (n_songs, n_classes), of logits / temperature.
    cross_entropy_nats: NDArray[np.float64]  # (n_songs,)
    windows: Ints  # (n_songs,) how many windows the model saw.

    @classmethod
    def of(cls, logits: Floats, temperature: float, windows: Ints) -> Self:
        """Read an opinion from a song's logits (n_songs, n_classes)."""
        probs = softmax(logits, temperature)
        return cls(logits, probs, cross_entropy_nats(probs), windows)

    def take(self, rows: Ints) -> "Opinion":
        """Return what the model says of the songs of the given rows."""
        return Opinion(self.logits[rows], self.probs[rows], self.cross_entropy_nats[rows], self.windows[rows])


@dataclass(frozen=True)
class Answers:
    """What the cascade says of some songs."""

    probs: NDArray[np.float64]  # (n_songs, n_classes)
    cross_entropy_nats: NDArray[np.float64]  # (n_songs,); NaN where no model knows, which the caller must refuse.
    by_teacher: Bools  # (n_songs,) whose answer it is.
    fell_back: Bools  # (n_songs,) whether the teacher was asked.
    windows: Ints  # (n_songs,) how many windows the model that answered saw.

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def choice(self) -> Ints:
        """The index of each song's class, (n_songs,)."""
        best: Ints = self.probs.argmax(axis=1)
        return best

    def answered_by(self, row: int) -> AnsweredBy:
        """Return who answered for one song."""
        return "teacher" if self.by_teacher[row] else "student"


class Voice:
    """A model as the cascade asks it: so many windows a song, and a temperature."""

    def __init__(self, model: Model, *, windows: int, temperature: float) -> None:
        """Wrap `model`, to be shown at most `windows` windows of a song."""
        self._model = model
        self._windows = windows
        self._temperature = temperature

    def opinion(self, songs: Songs) -> Opinion:
        """Return what the model says of `songs`, each (T, 25) raw; at least one."""
        windows, counts = stack_windows(songs, self._windows)
        batches = range(0, len(windows), BATCH_WINDOWS)
        per_window = np.concatenate([self._model.logits(windows[at : at + BATCH_WINDOWS]) for at in batches])
        return Opinion.of(mean_over_windows(per_window, counts), self._temperature, counts)


class Cascade:
    """Student, teacher and the threshold between them."""

    def __init__(self, student: Voice, teacher: Voice, threshold_nats: float) -> None:
        """Join two voices; `threshold_nats` is the default of `answer`."""
        self.student = student
        self.teacher = teacher
        self.threshold_nats = threshold_nats

    def answer(self, songs: Sequence[Floats], threshold_nats: float | None = None) -> Answers:
        """Return an answer for each of `songs`, (T, 25) raw each; at least one.

        The teacher is asked only about songs whose cross-entropy is not at or below the threshold, and its answer
        stands where its cross-entropy is the smaller one.
        """
        threshold = self.threshold_nats if threshold_nats is None else threshold_nats
        return route(
            self.student.opinion(songs), threshold, lambda rows: self.teacher.opinion([songs[row] for row in rows])
        )


def route(student: Opinion, threshold_nats: float, ask_teacher: Callable[[Ints], Opinion]) -> Answers:
    """Return the cascade's answers, given the student's opinion of every song.

    Args:
        student: the student's opinion of n songs.
        threshold_nats: the largest cross-entropy at which the student's answer is accepted.
        ask_teacher: returns the teacher's opinion of the songs of the given rows; called once at most, with those that
            fall back.
    """
    hard = falls_back(student.cross_entropy_nats, threshold_nats)
    by_teacher = np.zeros(len(hard), dtype=bool)
    if not hard.any():
        return Answers(student.probs, student.cross_entropy_nats, by_teacher, hard, student.windows)
    rows = np.flatnonzero(hard)
    teacher = ask_teacher(rows)
    surer = teacher_is_surer(student.cross_entropy_nats[rows], teacher.cross_entropy_nats)
    rows, teacher = rows[surer], teacher.take(np.flatnonzero(surer))
    probs, cross_entropy, windows = student.probs.copy(), student.cross_entropy_nats.copy(), student.windows.copy()
    probs[rows], cross_entropy[rows], windows[rows] = teacher.probs, teacher.cross_entropy_nats, teacher.windows
    by_teacher[rows] = True
    return Answers(probs, cross_entropy, by_teacher, hard, windows)


def falls_back(student_cross_entropy_nats: NDArray[np.float64], threshold_nats: float) -> Bools:
    """Return which songs go on to the teacher; one whose cross-entropy is not a number does."""
    falls: Bools = ~(student_cross_entropy_nats <= threshold_nats)
    return falls


def teacher_is_surer(student: NDArray[np.float64], teacher: NDArray[np.float64]) -> Bools:
    """Return where, after falling back, the teacher's cross-entropy in nats is the smaller of the two."""
    surer: Bools = (teacher < student) | (np.isnan(student) & ~np.isnan(teacher))
    return surer


def threshold_or_default(threshold_nats: float | None, bundle: Bundle) -> float:
    """Return the threshold that was asked for, or else the bundle's; a negative one is a `ConfigError`."""
    if threshold_nats is None:
        return bundle.manifest.threshold_nats
    if not threshold_nats >= 0:
        raise ConfigError(f"threshold: expected at least 0 nats, found {threshold_nats}")
    return threshold_nats


def open_cascade(
    bundle: Bundle, *, windows: int | None = None, provider: Provider = "auto", threads: int | None = None
) -> Cascade:
    """Return the cascade of a bundle, both models loaded.

    Args:
        bundle: a verified bundle.
        windows: windows of a song that both models see, at most, instead of what the bundle says.
        provider: where the models run.
        threads: threads of each model.
    """
    manifest = bundle.manifest
    student, teacher = (
        open_voice(bundle, entry, windows=windows, provider=provider, threads=threads)
        for entry in (manifest.student, manifest.teacher)
    )
    return Cascade(student, teacher, manifest.threshold_nats)


def open_voice(
    bundle: Bundle,
    entry: ModelEntry,
    *,
    windows: int | None = None,
    provider: Provider = "auto",
    threads: int | None = None,
) -> Voice:
    """Return one of the models of a bundle, loaded; the options are those of `open_cascade`."""
    if windows is not None and windows < 1:
        raise ConfigError(f"windows: expected at least 1, found {windows}")
    model = OnnxModel(bundle.file(entry), provider=provider, threads=threads)
    return Voice(model, windows=windows or entry.windows, temperature=entry.temperature)
