"""The engine: one open bundle behind queues, one for each rung, which all requests in flight share.

The answer for a song is `segue.serving.ladder`'s, function by function; only the waiting is different. A model that
fails leaves its songs without predictions, and the answer that stands is the last rung's that had one.
"""

import functools
import logging
from asyncio import timeout
from collections.abc import Sequence
from typing import Self

import numpy as np

from segue.data.song import N_FEATURES, WINDOW, Songs
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import CalibratedModel, calibrated, open_model
from segue.serving.http.batching import MicroBatcher, QueueFullError
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.refusal import unavailable
from segue.serving.http.settings import Settings, Trouble
from segue.serving.ladder import Ladder
from segue.serving.predictions import Answers, ModelName, Predictions

logger = logging.getLogger(__name__)

Queue = MicroBatcher[Songs, Predictions]


class FaultTolerantModel:
    """A model as the engine asks it: about the songs of many requests at once, and not stopped by one song."""

    def __init__(self, model: CalibratedModel, n_classes: int) -> None:
        """Wrap a model of `n_classes` classes."""
        self._model = model
        self._n_classes = n_classes
        self._broken = False  # It failed on every song of its last batch.

    def predict_groups(self, groups: Sequence[Songs]) -> list[Predictions | Exception]:
        """Return the predictions for each group of songs; the error, where there are none for any song of a group."""
        songs, sizes = Songs.concat(groups), [len(group) for group in groups]
        try:
            predictions = self._model.predict(songs)
        except Exception as error:
            if self._broken or len(songs) == 1:
                self._broken = True
                return [error] * len(groups)
            found = self._search(songs)
            self._broken = not found.windows.any()
            return [part if part.windows.any() else error for part in found.split(sizes)]
        self._broken = False
        return list(predictions.split(sizes))

    def _search(self, songs: Songs) -> Predictions:
        """Return the predictions for each song that the model does not fail on, halving until the others are found."""
        half = len(songs) // 2
        parts = []
        for some in (songs[:half], songs[half:]):
            try:
                parts.append(self._model.predict(some))
            except Exception:
                parts.append(Predictions.none(1, self._n_classes) if len(some) == 1 else self._search(some))
        return Predictions.concat(parts)

    def warm_up(self, most: int) -> None:
        """Run the model on batches of up to `most` songs; a `BundleError` if it does not say what it must."""
        for size in {1, 8, 64, most}:
            predictions = self._model.predict(Songs.of(np.zeros((size, WINDOW, N_FEATURES), dtype=np.float32)))
            if predictions.probs.shape != (size, self._n_classes) or not np.isfinite(predictions.probs).all():
                raise BundleError(
                    f"expected {self._n_classes} probabilities a song, found {predictions.probs.shape[1:]}"
                )


class Engine:
    """The cascade of one bundle, for many callers at a time.

    Attributes:
        bundle: what it answers with, without the bytes of its files.
        queues: of each rung; None where its model was not loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        models: Sequence[FaultTolerantModel | None],
        ladder: Ladder,
        settings: Settings,
        monitoring: Monitoring,
    ) -> None:
        """Start a queue for the model of each rung; None for one that could not be loaded, but never the first."""
        self.bundle = bundle
        self._ladder = ladder
        self._settings = settings
        self._monitoring = monitoring
        self.queues = [
            None if model is None else self._queue(name, model)
            for name, model in zip(bundle.manifest.rung_names, models, strict=True)
        ]

    @classmethod
    def open(cls, bundle: Bundle, settings: Settings, monitoring: Monitoring, *, with_teacher: bool = True) -> Self:
        """Load the models of a bundle, or only its student, and warm them up; a `BundleError` if that fails."""
        opened = {"student": open_warm_rungs(bundle, "student", settings)}
        if with_teacher:
            opened["teacher"] = open_warm_rungs(bundle, "teacher", settings)
        places = enumerate(rung.model for rung in bundle.manifest.all_rungs)
        models = [opened[name].get(place) if name in opened else None for place, name in places]
        return cls(bundle.without_contents(), models, bundle.manifest.ladder, settings, monitoring)

    @property
    def has_teacher(self) -> bool:
        """Whether the model of every rung was loaded."""
        return None not in self.queues

    async def answer(self, songs: Songs, threshold_nats: float | None = None) -> Answers:
        """Return what `Cascade.answer` does, for at least one song; a `Refusal` if the first rung has no answer."""
        ladder = self._ladder.at(threshold_nats)
        said = await self._ask_first(songs)
        answers = ladder.first(said)
        for rung in range(1, len(ladder)):
            rows = ladder.going_on(answers, rung)
            if not len(rows):
                break
            more = await self._ask(rung, songs.take(rows))
            known = Predictions.none(len(rows), said.probs.shape[1]) if more is None else more
            answers = ladder.joined(answers, rows, known, rung)
            if more is None:  # The next rung would cost more still.
                break
        self._monitoring.answered(answers, said.cross_entropy_nats, self.bundle.manifest.classes)
        return answers

    async def _ask_first(self, songs: Songs) -> Predictions:
        queue = self.queues[0]
        try:
            if queue is None:
                raise BundleError("the first rung was not loaded")
            return await queue.submit(songs)
        except QueueFullError as error:
            raise unavailable("queue full", f"too many songs wait for the student: {error}") from None
        except Exception:
            logger.exception("the student failed")
            raise unavailable("student failed", "the student failed") from None

    async def _ask(self, rung: int, songs: Songs) -> Predictions | None:
        """Return the predictions of a rung above the first; None, or a `Refusal`, by the settings, in trouble."""
        limit_s, policy = self._settings.teacher_timeout_s, self._settings.when_teacher_fails
        queue = self.queues[rung]
        if queue is None:
            return self._without(songs, "missing", policy)
        if queue.busy_s > limit_s:  # It hangs, and who waits for it waits in vain.
            return self._without(songs, "timeout", policy)
        try:
            async with timeout(limit_s):
                return await queue.submit(songs)
        except QueueFullError:
            return self._without(songs, "full", self._settings.when_teacher_is_full)
        except TimeoutError:
            return self._without(songs, "timeout", policy)
        except Exception:
            logger.exception("the %s failed", self._ladder.models[rung])
            return self._without(songs, "error", policy)

    def _without(self, songs: Songs, trouble: str, policy: Trouble) -> Predictions | None:
        self._monitoring.teacher_trouble(trouble, len(songs))
        if policy == "degrade":
            return None
        if trouble == "full":
            raise unavailable("teacher full", "too many songs wait for the teacher")
        raise unavailable("teacher failed", "the teacher failed")

    def _queue(self, name: str, model: FaultTolerantModel) -> Queue:
        return MicroBatcher(
            f"segue-{name}",
            model.predict_groups,
            max_waiting=self._settings.max_waiting_songs,
            batch_size=self._settings.batch_songs,
            report=functools.partial(self._monitoring.ran, name),
        )


def open_warm_rungs(bundle: Bundle, name: ModelName, settings: Settings) -> dict[int, FaultTolerantModel]:
    """Return a model as it answers on each of its rungs, by their places, loaded once and warmed up on each.

    A `BundleError` if it is not what it should be.
    """
    manifest = bundle.manifest
    rungs = {place: rung for place, rung in enumerate(manifest.all_rungs) if rung.model == name}
    if not rungs:
        return {}
    model = open_model(
        bundle,
        manifest.student if name == "student" else manifest.teacher,
        provider=settings.provider,
        threads=settings.threads,
    )
    found = {}
    for place, rung in rungs.items():
        found[place] = FaultTolerantModel(
            calibrated(bundle, rung, model, windows=settings.windows), len(manifest.classes)
        )
        found[place].warm_up(settings.batch_songs)
    return found
