"""The engine: one open bundle behind two queues, one for each model, which all requests in flight share.

The answer for a song is `segue.serving.cascade`'s, function by function; only the waiting is different. A model that
fails leaves its songs without predictions, and the cascade goes by the other model's.
"""

import asyncio
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from segue.data.song import N_FEATURES, WINDOW, Ints, Songs
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.cascade import Answers, Bools, CalibratedModel, Predictions, falls_back, open_calibrated_model, route
from segue.serving.http.batching import MicroBatcher, QueueFullError
from segue.serving.http.monitoring import ModelName, Monitoring
from segue.serving.http.refusal import unavailable
from segue.serving.http.settings import Settings, Trouble

logger = logging.getLogger(__name__)


class FaultTolerantModel:
    """A model as the engine asks it: about the songs of many requests at once, and not stopped by one song."""

    def __init__(self, model: CalibratedModel, n_classes: int) -> None:
        """Wrap a model of `n_classes` classes."""
        self._model = model
        self._n_classes = n_classes
        self._broken = False  # It failed on every song of its last batch.

    def predict_groups(self, groups: Sequence[Songs]) -> list[Predictions | Exception]:
        """Return the predictions for each group of songs; the error, where there are none for any song of a group."""
        songs = Songs.concat(groups)
        try:
            predictions = self._model.predict(songs)
        except Exception as error:
            if self._broken or len(songs) == 1:
                self._broken = True
                return [error] * len(groups)
            found = self._search(songs)
            self._broken = not found.windows.any()
            return [part if part.windows.any() else error for part in _split(found, groups)]
        self._broken = False
        return list(_split(predictions, groups))

    def _search(self, songs: Songs) -> Predictions:
        """Return the predictions for each song that the model does not fail on, halving until the others are found."""
        half = len(songs) // 2
        parts = []
        for some in (songs[:half], songs[half:]):
            try:
                parts.append(self._model.predict(some))
            except Exception:
                parts.append(self.no_predictions(1) if len(some) == 1 else self._search(some))
        return Predictions(
            *(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
        )

    def no_predictions(self, n_songs: int) -> Predictions:
        """Return what a model that fails says of `n_songs` songs: not a number, from no window."""
        logits = np.full((n_songs, self._n_classes), np.nan, dtype=np.float32)
        return Predictions.of(logits, 1.0, np.zeros(n_songs, dtype=np.int64))

    def warm_up(self, most: int) -> None:
        """Run the model on batches of up to `most` songs; a `BundleError` if it does not say what it must."""
        for size in {1, 8, 64, most}:
            predictions = self._model.predict(Songs.of(np.zeros((size, WINDOW, N_FEATURES), dtype=np.float32)))
            if predictions.probs.shape != (size, self._n_classes) or not np.isfinite(predictions.probs).all():
                raise BundleError(
                    f"expected {self._n_classes} probabilities a song, found {predictions.probs.shape[1:]}"
                )


@dataclass(frozen=True)
class Answered:
    """The cascade's answers, and whose are not what they should be."""

    answers: Answers
    degraded: Bools  # (n_songs,) fell back, but the teacher had no predictions.

    def take(self, rows: Ints) -> "Answered":
        """Return what is said of the songs of the given rows."""
        return Answered(Answers(*(array[rows] for array in vars(self.answers).values())), self.degraded[rows])


class Engine:
    """The cascade of one bundle, for many callers at a time."""

    def __init__(
        self,
        bundle: Bundle,
        student: FaultTolerantModel,
        teacher: FaultTolerantModel | None,
        settings: Settings,
        monitoring: Monitoring,
    ) -> None:
        """Start the queues of a student and, unless it could not be loaded, a teacher."""
        self.bundle = bundle
        self._asked = student
        self._settings = settings
        self._monitoring = monitoring
        self._student = self._queue("student", student)
        self._teacher = None if teacher is None else self._queue("teacher", teacher)

    @classmethod
    def open(cls, settings: Settings, monitoring: Monitoring, *, teacher_must_load: bool) -> Self:
        """Verify the bundle that the settings name, load its models and warm them up.

        A `BundleError` if that fails. Only where `teacher_must_load` is false may the teacher be missing.
        """
        bundle = load_bundle(settings.bundle)
        student = _open(bundle, "student", settings)
        try:
            teacher: FaultTolerantModel | None = _open(bundle, "teacher", settings)
        except Exception:
            if teacher_must_load:
                raise
            logger.exception("the teacher cannot be loaded; the student answers alone")
            teacher = None
        return cls(bundle.without_contents(), student, teacher, settings, monitoring)

    @property
    def has_teacher(self) -> bool:
        """Whether the teacher was loaded."""
        return self._teacher is not None

    async def answer(self, songs: Songs, threshold_nats: float) -> Answered:
        """Return what `Cascade.answer` does, for at least one song; a `Refusal` if the student cannot say anything."""
        try:
            student = await self._student.submit(songs)
        except QueueFullError as error:
            raise unavailable("queue full", f"too many songs wait for the student: {error}") from None
        except Exception:
            logger.exception("the student failed")
            raise unavailable("student failed", "the student failed") from None
        rows = np.flatnonzero(falls_back(student, threshold_nats))
        degraded = np.zeros(len(songs), dtype=bool)
        if len(rows):
            teacher = await self._ask_teacher(songs.take(rows))
            degraded[rows] = teacher.windows == 0
            answers = route(student, threshold_nats, lambda _: teacher)
        else:
            answers = route(student, threshold_nats, student.take)
        self._monitoring.answered(answers, student.cross_entropy_nats, self.bundle.manifest.classes)
        return Answered(answers, degraded)

    async def _ask_teacher(self, songs: Songs) -> Predictions:
        """Return the teacher's predictions; none, or a `Refusal`, by the settings, if it is in trouble."""
        limit_s, policy = self._settings.teacher_timeout_s, self._settings.when_teacher_fails
        if self._teacher is None:
            return self._without_teacher(songs, "missing", policy)
        if self._teacher.busy_s > limit_s:  # It hangs, and who waits for it waits in vain.
            return self._without_teacher(songs, "timeout", policy)
        try:
            async with asyncio.timeout(limit_s):
                return await self._teacher.submit(songs)
        except QueueFullError:
            return self._without_teacher(songs, "full", self._settings.when_teacher_is_full)
        except TimeoutError:
            return self._without_teacher(songs, "timeout", policy)
        except Exception:
            logger.exception("the teacher failed")
            return self._without_teacher(songs, "error", policy)

    def _without_teacher(self, songs: Songs, trouble: str, policy: Trouble) -> Predictions:
        self._monitoring.teacher_trouble(trouble, len(songs))
        if policy == "degrade":
            return self._asked.no_predictions(len(songs))
        if trouble == "full":
            raise unavailable("teacher full", "too many songs wait for the teacher")
        raise unavailable("teacher failed", "the teacher failed")

    def _queue(self, name: ModelName, asked: FaultTolerantModel) -> MicroBatcher[Songs, Predictions]:
        return MicroBatcher(
            f"segue-{name}",
            asked.predict_groups,
            max_waiting=self._settings.max_waiting_songs,
            batch_size=self._settings.batch_songs,
            report=functools.partial(self._monitoring.ran, name),
        )


def _open(bundle: Bundle, name: ModelName, settings: Settings) -> FaultTolerantModel:
    entry = bundle.manifest.student if name == "student" else bundle.manifest.teacher
    model = open_calibrated_model(
        bundle, entry, windows=settings.windows, provider=settings.provider, threads=settings.threads
    )
    asked = FaultTolerantModel(model, len(bundle.manifest.classes))
    asked.warm_up(settings.batch_songs)
    return asked


def _split(predictions: Predictions, groups: Sequence[Songs]) -> list[Predictions]:
    """Return each group's part of the predictions for all their songs."""
    if len(groups) == 1:
        return [predictions]
    ends = np.cumsum([len(group) for group in groups]).tolist()
    spans = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [Predictions(*(array[span] for array in vars(predictions).values())) for span in spans]
