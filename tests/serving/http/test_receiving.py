"""Receiving bodies: slow ones are cut off, and large ones give way before smaller ones do."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from segue.serving.http import receiving
from segue.serving.http.receiving import LARGE_BODY_BYTES, Bodies
from segue.serving.http.refusal import Refusal
from tests.serving.conftest import Message

MOST = 4 * LARGE_BODY_BYTES
Receive = Callable[[], Awaitable[Message]]


def sending(*parts: bytes, then: Message | None = None, more: asyncio.Event | None = None) -> Receive:
    """Return what an ASGI server gives: parts of a body, and then what it says; or nothing, until `more` is set."""
    to_come = list(parts)

    async def receive() -> Message:
        if to_come:
            return {"type": "http.request", "body": to_come.pop(0), "more_body": True}
        if then is None:
            await (more or asyncio.Event()).wait()
        return then or {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def status_of(receiving: Awaitable[bytes]) -> int:
    try:
        await receiving
    except Refusal as refusal:
        return refusal.status
    return 200


def test_who_leaves_while_he_waits_for_a_turn_gives_back_no_memory_that_he_never_had() -> None:
    """By being cancelled, and by giving way: either way, no more than one of the largest is ever begun."""

    async def run() -> None:
        bodies, begun, most = Bodies(max_body_bytes=MOST, least_rate=1), 0, 0

        async def take(n_bytes: int, until: asyncio.Event) -> None:
            nonlocal begun, most
            async with bodies.turn(n_bytes):
                begun += n_bytes
                most = max(most, begun)
                await until.wait()
                begun -= n_bytes

        end = asyncio.Event()
        first = asyncio.create_task(take(MOST, end))
        await asyncio.sleep(0)
        for _ in range(3):
            leaving = asyncio.create_task(take(MOST - 1, end))
            await asyncio.sleep(0.01)
            leaving.cancel()
            giving_way = [asyncio.create_task(take(MOST - n, end)) for n in range(4)]
            found = await asyncio.wait(giving_way, timeout=0.05)
            assert {type(one.exception()) for one in found[0]} == {Refusal}
            assert len(found[1]) == receiving.HELD_BODIES
            for one in found[1]:
                one.cancel()
        end.set()
        await first
        await asyncio.gather(*(take(MOST, end) for _ in range(2)))
        assert most == MOST

    asyncio.run(run())


def test_a_body_comes_in_parts() -> None:
    end: Message = {"type": "http.request", "body": b"c"}
    bodies = Bodies(max_body_bytes=MOST, least_rate=1)
    assert asyncio.run(bodies.receive(sending(b"a", b"", b"b", then=end))) == b"abc"


@pytest.mark.parametrize(
    ("parts", "then", "status"),
    [
        ((b"a",), None, 408),
        ((), None, 408),
        ((b"a",), {"type": "http.disconnect"}, 499),
        ((bytes(MOST), b"a"), None, 413),
    ],
)
def test_a_body_that_does_not_come_is_refused(
    monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...], then: Message | None, status: int
) -> None:
    monkeypatch.setattr(receiving, "RATE_OVER_S", 0.05)
    bodies = Bodies(max_body_bytes=MOST, least_rate=100)
    assert asyncio.run(status_of(bodies.receive(sending(*parts, then=then)))) == status


def test_where_large_bodies_are_too_many_the_largest_gives_way() -> None:
    async def run() -> tuple[int, list[int], int]:
        bodies, more = Bodies(max_body_bytes=MOST, least_rate=1), asyncio.Event()
        largest = asyncio.create_task(status_of(bodies.receive(sending(bytes(MOST), more=more))))
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(status_of(bodies.receive(sending(bytes(MOST - 1000), more=more))))
            for _ in range(receiving.HELD_BODIES)
        ]
        gave_way = await largest
        small = await status_of(bodies.receive(sending(bytes(LARGE_BODY_BYTES), then={"type": "http.request"})))
        more.set()
        return gave_way, [await one for one in others], small

    assert asyncio.run(run()) == (503, [200] * receiving.HELD_BODIES, 200)


def test_turns_go_to_the_smallest_first_and_medium_bodies_wait_for_no_large_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiving, "HELD_BODIES", 4)

    async def run() -> list[int]:
        bodies, order = Bodies(max_body_bytes=MOST, least_rate=1), list[int]()
        go_on = asyncio.Event()

        async def one(n_bytes: int) -> None:
            async with bodies.turn(n_bytes) as in_thread:
                order.append(await in_thread(lambda: n_bytes))
                if n_bytes == MOST:
                    await go_on.wait()

        first = asyncio.create_task(one(MOST))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(one(n)) for n in (MOST - 1, MOST - 3, MOST - 2)]
        left = asyncio.create_task(one(MOST - 4))
        await asyncio.sleep(0)
        left.cancel()
        await one(MOST // 8)
        go_on.set()
        await asyncio.gather(first, *waiting)
        return order

    order = asyncio.run(run())
    assert sorted(order[:2]) == [MOST // 8, MOST]
    assert order[2:] == [MOST - 3, MOST - 2, MOST - 1]


@pytest.mark.parametrize("is_there", [True, False])
def test_workers_that_share_a_lock_parse_one_large_body_at_a_time(tmp_path: Path, is_there: bool) -> None:
    lock = tmp_path / "large" if is_there else tmp_path / "tidied" / "large"
    most = running = 0

    def parse() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1

    async def one(worker: Bodies) -> None:
        async with worker.turn(MOST) as in_thread:
            await in_thread(parse)

    async def run() -> None:
        workers = [Bodies(max_body_bytes=MOST, least_rate=1, lock=lock) for _ in range(4)]
        await asyncio.gather(*map(one, workers))

    asyncio.run(run())
    assert (most == 1) == is_there
