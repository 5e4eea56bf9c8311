"""The engine: one open bundle, which all requests in flight share.

What was asked in the same turn of the event loop is one batch, and models that are quick enough answer it there and
then: to hand a small batch to another thread and back takes longer than the models do. The songs of a batch are checked
together, and climb the ladder together. What would hold up the loop for longer waits for a thread: each rung has one,
and a queue before it. So do the songs that a model failed on, or hung on, in the loop.

The answer for a song is `segue.serving.ladder`'s, function by function; only the waiting is different. A model that
fails leaves its songs without predictions, and the answer that stands is the last rung's that had one.
"""

import asyncio
import dataclasses
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from segue.data.song import N_FEATURES, WINDOW, Songs
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle
from segue.serving.cascade import CalibratedModel, calibrated, open_model
from segue.serving.http.batching import MicroBatcher, QueueFullError, Ran
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.refusal import Refusal, unavailable
from segue.serving.http.settings import Settings, Trouble
from segue.serving.http.songs_in import SongsIn
from segue.serving.http.watchdog import Watchdog
from segue.serving.ladder import Ladder
from segue.serving.predictions import Answers, Doubles, ModelName, Predictions

AT_ONCE_S = 0.005  # What models may take in the event loop, by what they took when they were warmed up.
LOOKS = 3  # At the connections, at most, for more songs of a batch.
FULL_BATCH = 64  # Songs. With more a model is hardly quicker, and to bring them together takes longer.
MISTRUST_S = 10.0  # A model that failed in the event loop is not asked there again for so long.

logger = logging.getLogger(__name__)

Queue = MicroBatcher[Songs, Predictions]


class FaultTolerantModel:
    """A model as the engine asks it: about the songs of many requests at once, and not stopped by one song."""

    def __init__(self, model: CalibratedModel, n_classes: int, stop: Callable[[], None] = lambda: None) -> None:
        """Wrap a model of `n_classes` classes; `stop` ends what it is asked just now."""
        self.stop = stop
        self._model = model
        self._n_classes = n_classes
        self._broken = False  # It failed on every song of its last batch.
        self._cost_s = (float("inf"), 0.0)  # Of a call, and of a window; unknown before `warm_up`.
        self._mistrusted_until = 0.0

    def seconds(self, n_windows: int) -> float:
        """Return how long a batch will take, in seconds; infinite where it had better not be asked in the loop."""
        if time.monotonic() < self._mistrusted_until:
            return float("inf")
        call_s, window_s = self._cost_s
        return call_s + n_windows * window_s

    def n_windows(self, songs: Songs) -> int:
        """Return how many windows of `songs` the model is shown."""
        return self._model.n_windows(songs)

    def predict(self, songs: Songs) -> Predictions:
        """Return the predictions for each song; any error that the model has with one of them."""
        began = time.perf_counter()
        predictions = self._model.predict(songs)
        self._learn(int(predictions.windows.sum()), time.perf_counter() - began)
        return predictions

    def _learn(self, n_windows: int, taken_s: float) -> None:
        """Believe that it is quicker than it was thought to be; when it was warmed up, the machine may have been busy.

        Not that it is slower: that may be so of the machine, and only for now.
        """
        call_s, window_s = self._cost_s
        share = taken_s / (call_s + n_windows * window_s)
        if share < 1 and call_s < float("inf"):
            self._cost_s = (call_s * share, window_s * share)

    def mistrust(self) -> None:
        """Remember that it failed in the event loop."""
        self._mistrusted_until = time.monotonic() + MISTRUST_S

    def predict_groups(self, groups: Sequence[Songs]) -> list[Predictions | Exception]:
        """Return the predictions for each group of songs; the error, where there are none for any song of a group."""
        songs, sizes = Songs.concat(groups), [len(group) for group in groups]
        try:
            predictions = self.predict(songs)
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
        taken = {size: min(self._timed(size) for _ in range(3)) for size in sorted({1, 8, 64, most})}
        window_s = max(taken[64] - taken[1], 0.0) / 63
        self._cost_s = (max(taken[1] - window_s, 1e-6), window_s)

    def _timed(self, size: int) -> float:
        songs = Songs.of(np.zeros((size, WINDOW, N_FEATURES), dtype=np.float32))
        began = time.perf_counter()
        predictions = self._model.predict(songs)
        taken = time.perf_counter() - began
        if predictions.probs.shape != (size, self._n_classes) or not np.isfinite(predictions.probs).all():
            raise BundleError(f"expected {self._n_classes} probabilities a song, found {predictions.probs.shape[1:]}")
        return taken


@dataclass(frozen=True, eq=False)
class Answered:
    """The answers for the songs of a batch."""

    answers: Answers
    classes: Sequence[str]

    @cached_property
    def named(self) -> list[dict[str, Any]]:
        """The fields of each song's answer, in the words of JSON."""
        return self.answers.named(self.classes)

    @cached_property
    def has_unknown(self) -> bool:
        """Whether there is a song that no model has predictions for."""
        return bool(np.isnan(self.answers.cross_entropy_nats).any())


@dataclass(frozen=True, eq=False)
class Said:
    """What is said of one request."""

    songs: SongsIn  # Checked.
    batch: Answered | None  # In which its answers are; None where no song is sound.
    rows: slice  # Of that batch.

    @property
    def answers(self) -> Answers | None:
        """The answers for its sound songs."""
        return None if self.batch is None else self.batch.answers.take(self.rows)


@dataclass(frozen=True, eq=False)
class _Climbing:
    """Sound songs on the ladder: what is said of them so far, and which rung they go on to."""

    songs: SongsIn
    answers: Answers | None  # None before the first rung.
    student_nats: Doubles | None
    rung: int


@dataclass(frozen=True, eq=False)
class _Question:
    """A request that waits for its batch."""

    songs: SongsIn
    threshold_nats: float | None
    said: "asyncio.Future[Said | _Climbing]"
    since: float  # time.perf_counter() when it came.
    n_windows: int  # That the first rung is shown.


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
        watchdog: Watchdog | None = None,
    ) -> None:
        """Start a queue for the model of each rung; None for one that could not be loaded, but never the first."""
        self.bundle = bundle
        self._names, self._units = bundle.manifest.rung_names, bundle.manifest.units
        self._classes = bundle.manifest.classes
        self._models = models
        self._ladder = ladder
        self._settings = settings
        self._monitoring = monitoring
        self._watchdog = watchdog or Watchdog()
        self._asked: deque[_Question] = deque()
        self._asked_songs = 0
        self.queues = [
            None if model is None else self._queue(name, model) for name, model in zip(self._names, models, strict=True)
        ]

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        settings: Settings,
        monitoring: Monitoring,
        watchdog: Watchdog | None = None,
        *,
        with_teacher: bool = True,
    ) -> Self:
        """Load the models of a bundle, or only its student, and warm them up; a `BundleError` if that fails."""
        opened = {"student": open_warm_rungs(bundle, "student", settings)}
        if with_teacher:
            opened["teacher"] = open_warm_rungs(bundle, "teacher", settings)
        places = enumerate(rung.model for rung in bundle.manifest.all_rungs)
        models = [opened[name].get(place) if name in opened else None for place, name in places]
        return cls(bundle.without_contents(), models, bundle.manifest.ladder, settings, monitoring, watchdog)

    @property
    def has_teacher(self) -> bool:
        """Whether the model of every rung was loaded."""
        return None not in self.queues

    async def answer(self, songs: Songs, threshold_nats: float | None = None) -> Answers:
        """Return what `Cascade.answer` does, for at least one sound song; a `Refusal` if the first rung fails."""
        said = await self.ask(SongsIn([""] * len(songs), songs, {}), threshold_nats)
        assert said.answers is not None
        return said.answers

    async def ask(self, songs: SongsIn, threshold_nats: float | None = None) -> Said:
        """Check the songs of a request, and return what is said of them; a `Refusal` if the first rung fails.

        Args:
            songs: as they were read; their values may be anything.
            threshold_nats: for every rung, instead of its own.
        """
        so_far: Said | _Climbing
        if not len(songs.sound):
            return Said(songs, None, slice(0))
        if self._answers_at_once(songs.sound):
            so_far = await self._question(songs, threshold_nats)
        else:
            so_far = _Climbing(songs.checked(self._units), None, None, 0)
        return so_far if isinstance(so_far, Said) else await self._climb(so_far, threshold_nats)

    # In the event loop's own thread.

    def _answers_at_once(self, songs: Songs) -> bool:
        """Tell whether the first rung takes so little time about these songs that nobody will notice."""
        model = self._models[0]
        return model is not None and model.seconds(0) < AT_ONCE_S and model.seconds(model.n_windows(songs)) < AT_ONCE_S

    def _question(self, songs: SongsIn, threshold_nats: float | None) -> "asyncio.Future[Said | _Climbing]":
        """Let songs be answered in the next batch."""
        most = self._settings.max_waiting_songs
        if self._asked and self._asked_songs + len(songs.sound) > most:
            raise _queue_full(f"{self._asked_songs} are waiting, at most {most} may")
        loop = asyncio.get_running_loop()
        model = self._models[0]
        assert model is not None
        question = _Question(
            songs, threshold_nats, loop.create_future(), time.perf_counter(), model.n_windows(songs.sound)
        )
        if not self._asked:
            loop.call_soon(self._gather)  # Not now: requests that were read in the same turn of the loop come along.
        self._asked.append(question)
        self._asked_songs += len(songs.sound)
        return question.said

    def _gather(self, before: int = 0, looks: int = 0) -> None:
        """Look at the connections as long as that brings more songs: the callers of the last batch ask again about now.

        A recurrent model of one song reads all its weights at every step, and takes hardly longer for six.
        """
        if before < self._asked_songs < FULL_BATCH and looks < LOOKS:
            asyncio.get_running_loop().call_soon(self._gather, self._asked_songs, looks + 1)
        else:
            self._turn()

    def _turn(self) -> None:
        """Answer what was asked by now, and in the next turn of the loop what that would hold up for too long."""
        model = self._models[0]
        assert model is not None
        batch: list[_Question] = []
        n_windows = n_songs = 0
        while self._asked:
            question = self._asked[0]
            n_windows += question.n_windows
            n_songs += len(question.songs.sound)
            if batch and (
                model.seconds(n_windows) > AT_ONCE_S or n_songs > min(FULL_BATCH, self._settings.batch_songs)
            ):
                break
            batch.append(self._asked.popleft())
            self._asked_songs -= len(question.songs.sound)
        if self._asked:
            asyncio.get_running_loop().call_soon(self._turn)
        batch = self._checked([question for question in batch if not question.said.done()])  # Some may have left.
        if not batch:
            return
        try:
            with self._watchdog.over(self._stop):
                self._answer(batch)
        except Exception:
            logger.exception("a batch failed in the event loop; its songs go on in a thread")
            for question in batch:
                _tell(question, _Climbing(question.songs, None, None, 0))

    def _checked(self, batch: list[_Question]) -> list[_Question]:
        """Return the questions that have sound songs, and only those songs of them; the others are answered."""
        if not batch:
            return batch
        if all(question.songs.is_checked for question in batch):
            return batch
        faults = Songs.concat([question.songs.sound for question in batch]).faults(self._units)
        if not faults:
            return batch
        left, first = [], 0
        for question in batch:
            n_songs = len(question.songs.sound)
            own = {row - first: fault for row, fault in faults.items() if first <= row < first + n_songs}
            first += n_songs
            checked = question.songs.without(own)
            if len(checked.sound):
                left.append(dataclasses.replace(question, songs=checked))
            else:
                _tell(question, Said(checked, None, slice(0)))
        return left

    def _answer(self, batch: Sequence[_Question]) -> None:
        """Let the songs of a batch climb as far as the loop has time for; whoever goes on is told to wait."""
        songs = Songs.concat([question.songs.sound for question in batch])
        sizes = [len(question.songs.sound) for question in batch]
        ends = np.cumsum(sizes)
        said = self._ask_now(0, songs, batch)
        answers = self._ladder.first(said)
        asked_nats = _asked_nats(batch, sizes)
        time_left_s = AT_ONCE_S
        going = np.zeros(len(batch), dtype=bool)  # Which requests have songs that go on, but not here.
        for rung in range(1, len(self._ladder)):
            rows = self._ladder.going_on(answers, rung, asked_nats)
            if not len(rows):
                break
            hard, model = songs.take(rows), self._models[rung]
            time_left_s -= float("inf") if model is None else model.seconds(model.n_windows(hard))
            if time_left_s < 0 or self._is_stuck(rung):
                going[np.searchsorted(ends, rows, side="right")] = True
                break
            answers = self._ladder.joined(answers, rows, self._ask_now(rung, hard, batch), rung)
        told = Answered(answers, self._classes)
        for number, question in enumerate(batch):
            part = slice(int(ends[number]) - sizes[number], int(ends[number]))
            if going[number]:
                so_far = answers.take(part)
                _tell(question, _Climbing(question.songs, so_far, said.cross_entropy_nats[part], rung))
            else:
                _tell(question, Said(question.songs, told, part))
        if going.any():
            done = np.flatnonzero(~np.repeat(going, sizes))
            answers, said = answers.take(done), said.take(done)
        if len(answers):
            self._monitoring.answered(answers, said.cross_entropy_nats, self._classes)

    def _ask_now(self, rung: int, songs: Songs, batch: Sequence[_Question]) -> Predictions:
        """Return what a rung says of some songs, asked here and now."""
        model, name = self._models[rung], self._names[rung]
        assert model is not None
        began = time.perf_counter()
        try:
            said = model.predict(songs)
        except Exception:
            model.mistrust()
            raise
        queued_s = [began - question.since for question in batch]
        taken = time.perf_counter() - began
        self._monitoring.ran(name, Ran(len(batch), len(songs), queued_s, taken, self._asked_songs))
        return said

    def _stop(self) -> None:
        for model in self._models:
            if model is not None:
                model.stop()

    def _is_stuck(self, rung: int) -> bool:
        """Tell whether a rung's thread is known to hang."""
        queue = self.queues[rung]
        return queue is not None and queue.busy_s > self._settings.teacher_timeout_s

    # In the threads of the rungs.

    async def _climb(self, climbing: _Climbing, threshold_nats: float | None) -> Said:
        """Let songs climb the rest of the ladder, waiting for each rung's thread."""
        songs, ladder = climbing.songs.sound, self._ladder.at(threshold_nats)
        if not len(songs):
            return Said(climbing.songs, None, slice(0))
        answers, student_nats = climbing.answers, climbing.student_nats
        if answers is None or student_nats is None:
            said = await self._ask_first(songs)
            answers, student_nats = ladder.first(said), said.cross_entropy_nats
        for rung in range(max(climbing.rung, 1), len(ladder)):
            rows = ladder.going_on(answers, rung)
            if not len(rows):
                break
            more = await self._ask(rung, songs.take(rows))
            known = Predictions.none(len(rows), answers.probs.shape[1]) if more is None else more
            answers = ladder.joined(answers, rows, known, rung)
            if more is None:  # The next rung would cost more still.
                break
        self._monitoring.answered(answers, student_nats, self._classes)
        return Said(climbing.songs, Answered(answers, self._classes), slice(0, len(songs)))

    async def _ask_first(self, songs: Songs) -> Predictions:
        queue = self.queues[0]
        try:
            if queue is None:
                raise BundleError("the first rung was not loaded")
            return await queue.submit(songs)
        except QueueFullError as error:
            raise _queue_full(str(error)) from None
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
            async with asyncio.timeout(limit_s):
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


def _asked_nats(batch: Sequence[_Question], sizes: Sequence[int]) -> Doubles | None:
    """Return the threshold that each song of a batch is asked with, NaN for the bundle's own; None: all are."""
    asked = [question.threshold_nats for question in batch]
    if all(nats is None for nats in asked):
        return None
    return np.repeat([np.nan if nats is None else nats for nats in asked], sizes)


def _tell(question: _Question, said: Said | _Climbing) -> None:
    if not question.said.done():  # Its caller may have left.
        question.said.set_result(said)


def _queue_full(message: str) -> Refusal:
    return unavailable("queue full", f"too many songs wait for the student: {message}")


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
            calibrated(bundle, rung, model, windows=settings.windows), len(manifest.classes), model.stop
        )
        found[place].warm_up(settings.batch_songs)
    return found
