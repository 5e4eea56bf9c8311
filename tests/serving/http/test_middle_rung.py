"""A rung between the first and the last: what holds for two rungs holds for it, in trouble and in a reload."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segue.data.song import Songs
from segue.data.table import SongTable
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.refusal import Refusal
from tests.serving.conftest import OwnService
from tests.serving.http.test_engine import CURSED, House, fail, fail_on_cursed, hang
from tests.support.bundles import three_rungs
from tests.support.random_songs import random_segments

__all__ = ["hang"]  # A fixture.

SONGS = Songs.of([random_segments(n, seed=n) for n in (400, 120, 130, 7, 300)])


@pytest.fixture
def house(bundle: Path, tmp_path: Path) -> Callable[..., House]:
    ladder = load_bundle(three_rungs(bundle, tmp_path / "three"))
    return lambda **settings: House(ladder, **settings)


@pytest.mark.parametrize("trouble", ["error", "timeout"])
@pytest.mark.parametrize("policy", ["degrade", "refuse"])
def test_a_middle_rung_in_trouble_leaves_the_answer_below_or_a_503(
    house: Callable[..., House], hang: Callable[[Songs], None], trouble: str, policy: str
) -> None:
    at = house(when_teacher_fails=policy, teacher_timeout_s=0.05 if trouble == "timeout" else 600.0)
    at.rungs[1].trouble = hang if trouble == "timeout" else fail
    if policy == "refuse":
        with pytest.raises(Refusal) as refusal:
            asyncio.run(at.engine.answer(SONGS, -1.0))
        assert (refusal.value.status, refusal.value.reason) == (503, "teacher failed")
    else:
        found = asyncio.run(at.engine.answer(SONGS, -1.0))
        np.testing.assert_allclose(found.probs, at.cascade.models[0].predict(SONGS).probs, atol=1e-6)
        assert found.degraded.all()
    assert not at.teacher.asked  # The next rung would cost more still.
    assert at.troubles(trouble) == len(SONGS)


def test_nobody_waits_for_a_middle_rung_that_hangs_already_and_easy_songs_are_answered(
    house: Callable[..., House], hang: Callable[[Songs], None]
) -> None:
    at = house(teacher_timeout_s=0.05)
    at.rungs[1].trouble = hang

    async def ask() -> None:
        await at.engine.answer(SONGS, -1.0)
        queue = at.engine.queues[1]
        assert queue is not None
        while queue.busy_s <= 0.05:
            await asyncio.sleep(0.001)
        assert (await at.engine.answer(SONGS, -1.0)).degraded.all()
        assert not (await at.engine.answer(SONGS, np.inf)).degraded.any()

    asyncio.run(ask())
    assert at.rungs[1].asked == [len(SONGS)]
    assert not at.teacher.asked


def test_a_song_that_a_middle_rung_fails_on_goes_on_and_its_neighbours_do_not_suffer(
    house: Callable[..., House],
) -> None:
    at = house()
    at.rungs[1].trouble = fail_on_cursed
    songs = Songs(SONGS.segments.copy(), SONGS.lengths)
    songs.segments[songs.offsets[4], 0] = CURSED  # The first look at this song is at its middle.
    nats = float(np.nextafter(at.cascade.models[0].predict(songs).doubt_nats.min(), 0))
    found, expected = asyncio.run(at.engine.answer(songs, nats)), at.cascade.answer(songs, nats)
    others = np.arange(len(songs)) != 4
    np.testing.assert_allclose(found.probs[others], expected.probs[others], atol=1e-6)
    assert found.rung[others].tolist() == expected.rung[others].tolist()
    assert found.rung[4] == 2
    assert not found.degraded.any()


@pytest.mark.parametrize("last", ["answers", "fails"])
def test_the_last_rung_in_trouble_leaves_what_the_middle_one_says(house: Callable[..., House], last: str) -> None:
    at = house()
    at.teacher.trouble = fail if last == "fails" else None
    found = asyncio.run(at.engine.answer(SONGS, -1.0))
    rung = 1 if last == "fails" else 2
    np.testing.assert_allclose(found.probs, at.cascade.models[rung].predict(SONGS).probs, atol=1e-6)
    assert found.rung.tolist() == [rung] * len(SONGS)
    assert found.degraded.tolist() == [last == "fails"] * len(SONGS)


def test_the_hard_songs_of_all_requests_are_one_batch_of_each_rung(house: Callable[..., House]) -> None:
    at = house()

    async def ask() -> None:
        await asyncio.gather(*(at.engine.answer(SONGS[row : row + 1], -1.0) for row in range(len(SONGS))))

    asyncio.run(ask())
    assert [one.asked for one in at.rungs] == [[len(SONGS)]] * 3


def test_a_reload_brings_a_middle_rung_and_takes_it_away(
    own_service: OwnService, bundle: Path, mixed_songs: Path, tmp_path: Path
) -> None:
    here = tmp_path / "bundle"
    two, three = bundle, three_rungs(bundle, tmp_path / "three")
    here.symlink_to(two)
    service = own_service(bundle=here, tokens=("admin=root",), deadline_s=600.0)
    table = SongTable(mixed_songs)
    songs = table.songs(np.arange(60))
    body = [{"id": str(row), "segments": song.tolist()} for row, song in enumerate(songs)]
    for name in (two, three, two):
        here.unlink()
        here.symlink_to(name)
        assert service.post(b"", path="/v1/admin/reload", authorization="Bearer root").status_code == 200
        found = service.classify(body).json()["songs"]
        expected = open_cascade(load_bundle(name)).answer(songs)
        assert [one["rung"] for one in found] == (expected.rung + 1).tolist()
        assert [one["windows"] for one in found] == expected.windows.tolist()
        assert (2 in {one["rung"] for one in found if one["answered_by"] == "student"}) == (name == three)
