"""The cascade: the student answers, and a song whose cross-entropy is above the threshold falls back to the teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from segue.data.metrics import cross_entropy_nats, mean_over_windows, softmax
from segue.data.song import Floats, Ints, Songs
from segue.errors import BundleError, ConfigError
from segue.serving.bundle.load import Bundle
from segue.serving.bundle.manifest import ModelEntry
from segue.serving.runtime import OnnxModel, Provider

NOT_A_NUMBER = "the models' answer is not a number; are the song's values in range?"
BATCH_WINDOWS = 1024  # Larger batches leave the cache and are slower.

Bools = NDArray[np.bool_]
AnsweredBy = Literal["student", "teacher"]


class Model(Protocol):
    """Anything that puts logits on windows."""

    def logits(self, windows: Floats) -> Floats:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""


@dataclass(frozen=True)
class Predictions:
    """What one model says of some songs."""

    logits: Floats  # (n_songs, n_classes), the mean log-probability over each song's windows.
    probs: NDArray[np.float64]  # (n_songs, n_classes), of logits / temperature.
    cross_entropy_nats: NDArray[np.float64]  # (n_songs,)
    doubt_nats: NDArray[np.float64]  # (n_songs,) what a threshold is compared with: cross-entropy / class scale.
    windows: Ints  # (n_songs,) how many windows the model saw.

    @classmethod
    def of(
        cls,
        logits: Floats,
        temperature: float | NDArray[np.float64],
        windows: Ints,
        class_scales: Sequence[float] | None = None,
    ) -> Self:
        """Read an predictions from songs' logits (n_songs, n_classes).

        Args:
            logits: the mean log-probability over each song's windows.
            temperature: one for all songs, or one a song, (n_songs,).
            windows: (n_songs,) how many windows of each song the logits come from.
            class_scales: (n_classes,) for a student with thresholds per class: the threshold of a song is multiplied
                by the scale of the class it is said to be.
        """
        probs = softmax(logits, temperature)
        cross_entropy = cross_entropy_nats(probs)
        scale = 1.0 if class_scales is None else np.array(class_scales)[probs.argmax(axis=1)]
        return cls(logits, probs, cross_entropy, cross_entropy / scale, windows)

    def take(self, rows: Ints) -> Self:
        """Return what the model says of the songs of the given rows."""
        return type(self)(*(values[rows] for values in vars(self).values()))


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


class CalibratedModel:
    """A model as the cascade asks it: so many windows a song, and temperatures."""

    def __init__(
        self,
        model: Model,
        *,
        windows: int,
        temperature: float,
        mean_temperature: float | None = None,
        class_scales: Sequence[float] | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: what is asked.
            windows: how many windows of a song it is shown, at most.
            temperature: of a song it is shown one window of.
            mean_temperature: of a song it is shown more of; by default the same.
            class_scales: see `Predictions.of`.
        """
        self._model = model
        self._windows = windows
        self._temperatures = (temperature, temperature if mean_temperature is None else mean_temperature)
        self._class_scales = class_scales

    def predict(self, songs: Songs) -> Predictions:
        """Return what the model says of `songs`, each (T, 25) raw; at least one."""
        windows, counts = songs.windows(self._windows)
        batches = range(0, len(windows), BATCH_WINDOWS)
        per_window = np.concatenate([self._model.logits(windows[at : at + BATCH_WINDOWS]) for at in batches])
        temperature = np.where(counts == 1, *self._temperatures)
        return Predictions.of(mean_over_windows(per_window, counts), temperature, counts, self._class_scales)


class Cascade:
    """Student, teacher and the threshold between them."""

    def __init__(self, student: CalibratedModel, teacher: CalibratedModel, threshold_nats: float) -> None:
        """Join two models; `threshold_nats` is the default of `answer`."""
        self.student = student
        self.teacher = teacher
        self.threshold_nats = threshold_nats

    def answer(self, songs: Songs, threshold_nats: float | None = None) -> Answers:
        """Return an answer for each of `songs`, (T, 25) raw each; at least one.

        The teacher is asked only about songs whose doubt, which is their cross-entropy unless the bundle has thresholds
        per class, is not at or below the threshold; what it says stands.
        """
        threshold = self.threshold_nats if threshold_nats is None else threshold_nats
        return route(self.student.predict(songs), threshold, lambda rows: self.teacher.predict(songs.take(rows)))


def route(student: Predictions, threshold_nats: float, ask_teacher: Callable[[Ints], Predictions]) -> Answers:
    """Return the cascade's answers, given the student's predictions for every song.

    A song that falls back is answered by the teacher, or by the student where the teacher's answer is not a number.

    Args:
        student: the student's predictions for n songs.
        threshold_nats: the largest doubt at which the student's answer is accepted.
        ask_teacher: returns the teacher's predictions for the songs of the given rows; called once at most, with those
            that fall back.
    """
    hard = falls_back(student, threshold_nats)
    by_teacher = np.zeros(len(hard), dtype=bool)
    if not hard.any():
        return Answers(student.probs, student.cross_entropy_nats, by_teacher, hard, student.windows)
    rows = np.flatnonzero(hard)
    teacher = ask_teacher(rows)
    known = np.flatnonzero(~np.isnan(teacher.cross_entropy_nats))
    rows, teacher = rows[known], teacher.take(known)
    probs, cross_entropy, windows = student.probs.copy(), student.cross_entropy_nats.copy(), student.windows.copy()
    probs[rows], cross_entropy[rows], windows[rows] = teacher.probs, teacher.cross_entropy_nats, teacher.windows
    by_teacher[rows] = True
    return Answers(probs, cross_entropy, by_teacher, hard, windows)


def falls_back(student: Predictions, threshold_nats: float | NDArray[np.float64]) -> Bools:
    """Return which songs go on to the teacher, (n_songs,); one whose doubt is not a number does.

    For thresholds (k, 1) the answer is (k, n_songs).
    """
    falls: Bools = ~(student.doubt_nats <= threshold_nats)
    return falls


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
        open_calibrated_model(bundle, entry, windows=windows, provider=provider, threads=threads)
        for entry in (manifest.student, manifest.teacher)
    )
    return Cascade(student, teacher, manifest.threshold_nats)


def open_calibrated_model(
    bundle: Bundle,
    entry: ModelEntry,
    *,
    windows: int | None = None,
    provider: Provider = "auto",
    threads: int | None = None,
) -> CalibratedModel:
    """Return one of the models of a bundle, loaded; the options are those of `open_cascade`."""
    if windows is not None and windows < 1:
        raise ConfigError(f"windows: expected at least 1, found {windows}")
    return CalibratedModel(
        open_model(bundle, entry, provider=provider, threads=threads),
        windows=windows or entry.windows,
        temperature=entry.temperature.value,
        mean_temperature=entry.mean_temperature.value if entry.mean_temperature else None,
        class_scales=bundle.manifest.class_scales if entry is bundle.manifest.student else None,
    )


def open_model(
    bundle: Bundle, entry: ModelEntry, *, provider: Provider = "auto", threads: int | None = None
) -> OnnxModel:
    """Return one model of a bundle, loaded; a `BundleError` if its classes are not those of the manifest."""
    name = str(bundle.path / entry.file)
    model = OnnxModel(
        bundle.model(entry), name, provider=provider, threads=threads, arena=entry.form.lowering != "scan"
    )
    if model.classes != bundle.manifest.classes:
        raise BundleError(
            f"{name}: expected the classes of the manifest, {', '.join(bundle.manifest.classes)}; found "
            f"{', '.join(model.classes) or 'none'}. The manifest or the model is of another bundle."
        )
    return model
