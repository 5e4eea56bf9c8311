"""The engine: the cascade's answers, and what is answered when a model is in trouble."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from segue.data.song import Songs
from segue.errors import BundleError
from segue.serving.bundle.load import Bundle, load_bundle
from segue.serving.cascade import CalibratedModel, Cascade, calibrated, open_cascade, open_model
from segue.serving.http.bodies import RAW
from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.engine import Engine, FaultTolerantModel, Queue
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings
from segue.serving.predictions import Predictions
from tests.serving.conftest import OwnService
from tests.support.random_songs import random_segments

CURSED = np.float32(13.0)  # The first timbre of a segment that a model fails on.
SONGS = Songs.of([random_segments(n, seed=n) for n in (90, 120, 400, 130, 7)])
WINDOWS = Songs.of(np.stack([random_segments(120, seed=n) for n in range(6)]))


class Troubled:
    """A model with a trouble that can be switched on."""

    def __init__(self, model: CalibratedModel) -> None:
        self._model = model
        self.trouble: Callable[[Songs], None] | None = None
        self.asked: list[int] = []

    def predict(self, songs: Songs) -> Predictions:
        self.asked.append(len(songs))
        if self.trouble is not None:
            self.trouble(songs)
        return self._model.predict(songs)


class House:
    """An engine whose models can be troubled."""

    def __init__(self, bundle: Bundle, **settings: Any) -> None:
        self.cascade: Cascade = open_cascade(bundle)
        manifest = bundle.manifest
        self.rungs = [
            Troubled(calibrated(bundle, rung, open_model(bundle, manifest.entry(rung)))) for rung in manifest.all_rungs
        ]
        self.student, self.teacher = self.rungs[0], self.rungs[-1]
        models = [FaultTolerantModel(cast(CalibratedModel, model), len(manifest.classes)) for model in self.rungs]
        self.registry = CollectorRegistry()
        ladder = self.cascade.ladder
        self.engine = Engine(bundle, models, ladder, Settings(**settings), Monitoring(self.registry))

    def troubles(self, trouble: str) -> float:
        return self.registry.get_sample_value("segue_without_teacher_total", {"trouble": trouble}) or 0.0


def queue_of_teacher(at: House) -> Queue:
    queue = at.engine.queues[1]
    assert queue is not None
    return queue


@pytest.fixture
def house(bundle: Path) -> Callable[..., House]:
    return lambda **settings: House(load_bundle(bundle), **settings)


def fail(_: Songs) -> None:
    raise RuntimeError("broken")


def fail_on_cursed(songs: Songs) -> None:
    if any(CURSED in song[:, 0] for song in songs):
        raise RuntimeError("cursed")


def cursed(place: int) -> Songs:
    """Return windows one of which a model fails on."""
    windows = WINDOWS.windows()[0].copy()
    windows[place, 60, 0] = CURSED
    return Songs.of(windows)


@pytest.fixture
def hang() -> Iterator[Callable[[Songs], None]]:
    """Return a trouble that lasts as long as the test."""
    end = threading.Event()
    yield lambda _: (end.wait(), None)[1]
    end.set()


@pytest.mark.parametrize("threshold", [np.inf, 0.7, -1.0])
@pytest.mark.parametrize("songs", [SONGS, WINDOWS])
def test_the_answers_are_the_cascades(house: Callable[..., House], songs: Songs, threshold: float) -> None:
    at = house()
    found = asyncio.run(at.engine.answer(songs, threshold))
    expected = at.cascade.answer(songs, threshold)
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-6)
    np.testing.assert_array_equal(found.by_teacher, expected.by_teacher)
    np.testing.assert_array_equal(found.fell_back, expected.fell_back)
    np.testing.assert_array_equal(found.windows, expected.windows)
    assert not found.degraded.any()


def test_the_hard_songs_of_all_requests_are_one_batch_of_the_teacher(house: Callable[..., House]) -> None:
    at = house()

    async def ask() -> None:
        await asyncio.gather(*(at.engine.answer(WINDOWS[row : row + 1], -1.0) for row in range(6)))

    asyncio.run(ask())
    assert at.student.asked == at.teacher.asked == [6]


@pytest.mark.parametrize("trouble", ["error", "timeout", "full"])
@pytest.mark.parametrize("policy", ["degrade", "refuse"])
def test_a_teacher_in_trouble_leaves_the_students_answer_or_a_503(
    house: Callable[..., House], hang: Callable[[Songs], None], trouble: str, policy: str
) -> None:
    at = house(
        when_teacher_fails=policy,
        when_teacher_is_full=policy,
        teacher_timeout_s=3600.0 if trouble == "full" else 0.05,
        max_waiting_songs=6,
    )
    at.teacher.trouble = fail if trouble == "error" else hang

    async def ask() -> Any:
        blockers: list[asyncio.Task[Any]] = []
        if trouble == "full":  # One that runs, and one that fills the queue.
            for _ in range(2):
                blockers.append(asyncio.create_task(at.engine.answer(WINDOWS, -1.0)))
                while sum(at.teacher.asked) + queue_of_teacher(at).waiting < 6 * len(blockers):
                    await asyncio.sleep(0.001)
        try:
            return await at.engine.answer(WINDOWS[:2], -1.0)
        finally:
            for blocker in blockers:
                blocker.cancel()

    if policy == "refuse":
        with pytest.raises(Refusal) as refusal:
            asyncio.run(ask())
        assert (refusal.value.status, refusal.value.headers) == (503, {"retry-after": "1"})
        assert refusal.value.reason == ("teacher full" if trouble == "full" else "teacher failed")
    else:
        found = asyncio.run(ask())
        expected = at.cascade.answer(WINDOWS[:2], np.inf)
        np.testing.assert_allclose(found.probs, expected.probs, atol=1e-6)
        assert found.degraded.all()
        assert found.fell_back.all()
        assert not found.by_teacher.any()
    assert at.troubles(trouble) == 2


def test_nobody_waits_for_a_teacher_that_hangs_already(
    house: Callable[..., House], hang: Callable[[Songs], None]
) -> None:
    at = house(teacher_timeout_s=0.05)
    at.teacher.trouble = hang

    async def ask() -> None:
        await at.engine.answer(WINDOWS, -1.0)
        while queue_of_teacher(at).busy_s <= 0.05:
            await asyncio.sleep(0.001)
        assert (await at.engine.answer(WINDOWS, -1.0)).degraded.all()

    asyncio.run(ask())
    assert at.teacher.asked == [6]


def test_a_song_that_the_teacher_fails_on_does_not_fail_its_neighbours(house: Callable[..., House]) -> None:
    at = house()
    at.teacher.trouble = fail_on_cursed
    windows = cursed(4)

    async def ask() -> list[Any]:
        return list(await asyncio.gather(at.engine.answer(windows, -1.0), at.engine.answer(WINDOWS, -1.0)))

    mine, theirs = asyncio.run(ask())
    assert mine.degraded.tolist() == [False, False, False, False, True, False]
    assert not theirs.degraded.any()
    np.testing.assert_allclose(theirs.probs, at.cascade.answer(WINDOWS, -1.0).probs, atol=1e-6)
    expected = at.cascade.answer(windows, -1.0).probs
    expected[4] = at.cascade.answer(windows[4:5], np.inf).probs[0]
    np.testing.assert_allclose(mine.probs, expected, atol=1e-6)


def test_a_song_that_the_student_fails_on_is_the_teachers(house: Callable[..., House]) -> None:
    at = house()
    at.student.trouble = fail_on_cursed
    found = asyncio.run(at.engine.answer(cursed(2), np.inf))
    assert found.by_teacher.tolist() == [False, False, True, False, False, False]
    assert not found.degraded.any()


def test_a_student_that_fails_is_a_503_and_no_other_request_of_its_batch_suffers(house: Callable[..., House]) -> None:
    at = house()
    at.student.trouble = fail_on_cursed

    async def ask() -> list[Any]:
        both = (at.engine.answer(cursed(0)[:1], np.inf), at.engine.answer(WINDOWS, np.inf))
        return list(await asyncio.gather(*both, return_exceptions=True))

    mine, theirs = asyncio.run(ask())
    assert (mine.status, mine.reason) == (503, "student failed")
    np.testing.assert_allclose(theirs.probs, at.cascade.answer(WINDOWS, np.inf).probs, atol=1e-6)


def test_a_broken_model_is_asked_once_a_batch_and_may_recover(house: Callable[..., House]) -> None:
    at = house()
    at.student.trouble = fail

    async def ask() -> None:
        for _ in range(3):
            with pytest.raises(Refusal, match="the student failed"):
                await at.engine.answer(WINDOWS, np.inf)
        assert len(at.student.asked) < 3 * 2 * len(WINDOWS)
        assert at.student.asked[-2:] == [6, 6]
        at.student.trouble = None
        assert len(await at.engine.answer(WINDOWS, np.inf)) == 6

    asyncio.run(ask())


def test_a_full_student_is_a_503(house: Callable[..., House], hang: Callable[[Songs], None]) -> None:
    at = house(max_waiting_songs=6)
    at.student.trouble = hang

    async def ask() -> None:
        blockers = [asyncio.create_task(at.engine.answer(WINDOWS, 0.0))]
        while not at.student.asked:
            await asyncio.sleep(0.001)
        blockers.append(asyncio.create_task(at.engine.answer(WINDOWS, 0.0)))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="6 are waiting, at most 6 may") as refusal:
            await at.engine.answer(WINDOWS[:1], 0.0)
        assert (refusal.value.status, refusal.value.reason) == (503, "queue full")
        for blocker in blockers:
            blocker.cancel()

    asyncio.run(ask())


@pytest.mark.parametrize("ready", [True, False])
def test_a_teacher_that_cannot_be_loaded_leaves_the_student(
    own_service: OwnService, monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    monkeypatch.setattr("segue.serving.http.bundle_slot.find_faults", lambda *_: {"teacher": "no memory"})
    service = own_service(ready_without_teacher=ready, open_slot=BundleSlot.open)
    (song,) = service.post(bytes(12_000), RAW, "/v1/classify?mode=accurate").json()["songs"]
    assert (song["answered_by"], song["degraded"]) == ("student", True)
    assert service.slot.ready is ready
    assert service.metric("segue_workers_with_teacher") == 0
    assert service.metric("segue_without_teacher_total", trouble="missing") == 1


def test_a_model_that_does_not_say_probabilities_is_no_model(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    model = open_cascade(loaded).student
    with pytest.raises(BundleError, match="expected 3 probabilities a song, found"):
        FaultTolerantModel(model, 3).warm_up(4)


def test_the_deadline_of_a_request_is_a_504(
    own_service: OwnService, hang: Callable[[Songs], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaultTolerantModel, "seconds", lambda *_: float("inf"))  # Too long for the event loop.
    monkeypatch.setattr(FaultTolerantModel, "predict_groups", lambda _, groups: hang(groups[0]))
    service = own_service(deadline_s=0.05)
    response = service.post(bytes(12_000), RAW)
    assert (response.status_code, response.json()["error"]) == (504, "the answer was not ready within 0.05 seconds")
    assert service.metric("segue_refusals_total", reason="deadline") == 1
