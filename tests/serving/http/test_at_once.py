"""What is answered in the event loop's own thread: a batch a turn, and what becomes of it when a model has trouble."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from segue.data.song import Songs
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import Cascade, open_cascade, open_model
from segue.serving.http import engine as module
from segue.serving.http.engine import Engine, Said
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings
from segue.serving.http.songs_in import SongsIn
from segue.serving.http.watchdog import LOOKS_TO_STOP, Watchdog
from segue.serving.predictions import Predictions
from tests.support.altered_bundles import make_endless
from tests.support.random_songs import random_segments

SONGS = [random_segments(n, seed=n) for n in (90, 120, 400, 130, 7, 120)]
DIALS = [None, 0.7, np.inf, -1.0, 0.3, None]
SLOW_S = 3600.0


class Warm(Engine):
    """An engine that remembers what its models were asked, and where; any of them can be in trouble."""

    registry: CollectorRegistry
    cascade: Cascade
    asked: list[tuple[str, int, bool]]  # The model, how many songs, whether in the event loop's thread.
    trouble: Callable[[str, Songs], None]

    def at_once(self) -> list[bool]:
        return [here for _, _, here in self.asked]


@pytest.fixture
def warm(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Warm]:
    """Return a function that opens an engine, whose models take `cost_s` a song by what it knows."""

    def make(cost_s: dict[str, float] | None = None, **settings: Any) -> Warm:
        registry = CollectorRegistry()
        loaded = load_bundle(bundle)
        engine = Warm.open(loaded, Settings(**settings), Monitoring(registry))
        engine.registry, engine.cascade, engine.asked = registry, open_cascade(loaded, threads=1), []
        engine.trouble = lambda *_: None
        main = threading.current_thread()
        for name, model in zip(loaded.manifest.rung_names, engine._models, strict=True):
            assert model is not None
            monkeypatch.setattr(model, "_cost_s", (0.0, (cost_s or {}).get(name, 1e-6)))
            monkeypatch.setattr(model, "_learn", lambda *_: None)
            predict = model._model.predict

            def asked(songs: Songs, name: str = name, predict: Any = predict) -> Predictions:
                engine.asked.append((name, len(songs), threading.current_thread() is main))
                engine.trouble(name, songs)
                said: Predictions = predict(songs)
                return said

            monkeypatch.setattr(model._model, "predict", asked)
        return engine

    return make


def request(*songs: Any) -> SongsIn:
    return SongsIn([str(place) for place in range(len(songs))], Songs.of(list(songs)), {})


def ask_all(engine: Engine, requests: list[SongsIn], dials: list[Any]) -> list[Any]:
    async def ask() -> list[Any]:
        return await asyncio.gather(*map(engine.ask, requests, dials), return_exceptions=True)

    return asyncio.run(ask())


def check(engine: Warm, said: Said, songs: Songs, nats: float | None) -> None:
    expected, found = engine.cascade.answer(songs, nats), said.answers
    assert found is not None
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)
    np.testing.assert_array_equal(found.by_teacher, expected.by_teacher)
    np.testing.assert_array_equal(found.windows, expected.windows)
    assert not found.degraded.any()


def test_requests_of_a_turn_are_one_batch_whatever_their_dials(warm: Callable[..., Warm]) -> None:
    engine = warm()
    found = ask_all(engine, [request(song, SONGS[0]) for song in SONGS], DIALS)
    for said, song, nats in zip(found, SONGS, DIALS, strict=True):
        check(engine, said, Songs.of([song, SONGS[0]]), nats)
    assert [(name, here) for name, _, here in engine.asked] == [("student", True), ("teacher", True)]
    assert engine.asked[0][1] == 2 * len(SONGS)
    engine._monitoring.flush()
    count = engine.registry.get_sample_value("segue_queue_seconds_count", {"model": "student"})
    songs = engine.registry.get_sample_value("segue_cross_entropy_nats_count")
    assert (count, songs) == (len(SONGS), 2 * len(SONGS))


def test_who_asks_while_a_batch_is_gathered_comes_along(warm: Callable[..., Warm]) -> None:
    engine = warm()

    async def ask() -> list[Said]:
        asked = []
        for song in SONGS:  # One in each turn of the loop.
            asked.append(asyncio.create_task(engine.ask(request(song), -1.0)))
            await asyncio.sleep(0)
        return await asyncio.gather(*asked)

    for said, song in zip(asyncio.run(ask()), SONGS, strict=True):
        check(engine, said, Songs.of([song]), -1.0)
    sizes = [n_songs for name, n_songs, _ in engine.asked if name == "teacher"]
    assert sizes == [module.LOOKS + 1, len(SONGS) - module.LOOKS - 1]


def test_a_bad_song_has_an_error_of_its_own_and_no_neighbour_in_its_batch_does(warm: Callable[..., Warm]) -> None:
    engine = warm()
    bad = random_segments(50)
    bad[7, 3] = np.nan
    requests = [request(SONGS[0]), request(SONGS[1], bad, SONGS[2]), request(bad), request(SONGS[3])]
    found = ask_all(engine, requests, [None] * 4)
    assert [sorted(said.songs.errors) for said in found] == [[], [1], [0], []]
    assert str(found[1].songs.errors[1]) == "song '1', segment 7: expected finite numbers, found nan in timbre_4"
    assert found[2].batch is None
    for said, songs in ((found[0], SONGS[:1]), (found[1], SONGS[1:3]), (found[3], SONGS[3:4])):
        check(engine, said, Songs.of(songs), None)


def test_a_turn_takes_no_more_than_it_has_time_for(warm: Callable[..., Warm]) -> None:
    engine = warm({"student": module.AT_ONCE_S / 4.5})
    found = ask_all(engine, [request(SONGS[1])] * 10, [np.inf] * 10)
    for said in found:
        check(engine, said, Songs.of(SONGS[1:2]), np.inf)
    assert engine.asked == [("student", 4, True), ("student", 4, True), ("student", 2, True)]


def test_a_model_that_was_warmed_up_on_a_busy_machine_is_found_to_be_quick(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    engine = Engine.open(loaded, Settings(), Monitoring(CollectorRegistry()))
    (teacher,) = engine._models[1:]
    assert teacher is not None
    teacher._cost_s = (SLOW_S, SLOW_S)
    ask_all(engine, [request(SONGS[1])], [-1.0])
    assert teacher.seconds(1) < SLOW_S / 10
    found = teacher.seconds(1)
    teacher._learn(1, SLOW_S)
    assert teacher.seconds(1) == found


def test_what_takes_long_goes_on_in_a_thread_and_the_easy_songs_do_not_wait(warm: Callable[..., Warm]) -> None:
    engine = warm({"teacher": SLOW_S})
    go_on = threading.Event()
    engine.trouble = lambda name, _: (name == "teacher" and go_on.wait(60), None)[1]

    async def ask() -> list[Said]:
        hard = [asyncio.create_task(engine.ask(request(song), -1.0)) for song in SONGS[:2]]
        easy = await engine.ask(request(SONGS[2]), np.inf)
        assert not any(one.done() for one in hard)
        go_on.set()
        return [easy, *await asyncio.gather(*hard)]

    for said, song, nats in zip(asyncio.run(ask()), (SONGS[2], *SONGS[:2]), (np.inf, -1.0, -1.0), strict=True):
        check(engine, said, Songs.of([song]), nats)
    assert {(name, here) for name, _, here in engine.asked} == {("student", True), ("teacher", False)}


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_a_model_that_fails_in_the_loop_is_asked_again_in_a_thread_and_there_for_a_while(
    warm: Callable[..., Warm], name: str
) -> None:
    engine = warm()

    def fail_here(model: str, _: Songs) -> None:
        if model == name and threading.current_thread() is threading.main_thread():
            raise RuntimeError("broken")

    engine.trouble = fail_here
    for said in ask_all(engine, [request(song) for song in SONGS[:3]], [-1.0] * 3):
        assert isinstance(said, Said)
        assert said.answers is not None
        assert not said.answers.degraded.any()
    engine.asked.clear()
    (said,) = ask_all(engine, [request(SONGS[0])], [-1.0])
    check(engine, said, Songs.of(SONGS[:1]), -1.0)
    assert [here for model, _, here in engine.asked if model == name] == [False]


def test_a_teacher_that_fails_everywhere_leaves_the_students_answers(warm: Callable[..., Warm]) -> None:
    engine = warm()

    def fail(model: str, _: Songs) -> None:
        if model == "teacher":
            raise RuntimeError("broken")

    engine.trouble = fail
    for said in ask_all(engine, [request(song) for song in SONGS], [-1.0] * len(SONGS)):
        assert said.answers.degraded.all()


def test_a_full_loop_refuses_but_never_the_first(warm: Callable[..., Warm]) -> None:
    engine = warm(max_waiting_songs=2)
    found = ask_all(engine, [request(*SONGS[:3]), request(SONGS[0])], [np.inf] * 2)
    check(engine, found[0], Songs.of(SONGS[:3]), np.inf)
    assert isinstance(found[1], Refusal)
    assert (found[1].status, found[1].reason) == (503, "queue full")


def test_whoever_leaves_is_not_asked_about(warm: Callable[..., Warm]) -> None:
    engine = warm()

    async def ask() -> Said:
        leaving, staying = (asyncio.create_task(engine.ask(request(song), np.inf)) for song in SONGS[:2])
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    check(engine, asyncio.run(ask()), Songs.of(SONGS[1:2]), np.inf)
    assert engine.asked == [("student", 1, True)]


def test_a_model_that_hangs_is_stopped_and_what_was_asked_goes_on_in_a_thread(warm: Callable[..., Warm]) -> None:
    engine = warm()
    stopped = threading.Event()

    def hang_here(model: str, _: Songs) -> None:
        if threading.current_thread() is threading.main_thread():
            for _look in range(LOOKS_TO_STOP):
                engine._watchdog.look()
            assert stopped.wait(60)
            raise RuntimeError("stopped")

    engine.trouble = hang_here
    for model in engine._models:
        assert model is not None
        model.stop = stopped.set
    found = ask_all(engine, [request(song) for song in SONGS[:3]], [-1.0] * 3)
    for said, song in zip(found, SONGS[:3], strict=True):
        check(engine, said, Songs.of([song]), -1.0)


def test_a_model_that_does_not_stop_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("segue.serving.http.watchdog.os._exit", lambda code: told.append(f"exit {code}"))
    monkeypatch.setattr("segue.serving.http.watchdog.LOOK_EVERY_S", SLOW_S)  # Nobody looks but this test.
    watchdog = Watchdog(lambda: told.append("callers"))
    for _ in range(100):
        watchdog.look()  # Nothing is under way.
    with watchdog.over(lambda: told.append("stop")):
        for _ in range(24):
            watchdog.look()
    watchdog.look()
    assert told == ["stop"] * 21 + ["callers", "exit 1"]


def test_a_loop_inside_a_model_stops_where_it_is_told_to(bundle: Path, tmp_path: Path) -> None:
    endless = shutil.copytree(bundle, tmp_path / "bundle")
    make_endless(endless, "teacher")
    loaded = load_bundle(endless)
    model = open_model(loaded, loaded.manifest.teacher, threads=1)
    ended: list[Exception] = []

    def ask() -> None:
        try:
            model.logits(np.zeros((1, 120, 25), np.float32))
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        model.stop()
        thread.join(0.01)
    assert "terminate" in str(ended[0])
