"""Receiving bodies: slow ones are cut off, and large ones give way before smaller ones do."""

import asyncio
from collections.abc import Awaitable, Callable

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


def test_turns_go_to_the_smallest_first_and_medium_bodies_wait_for_no_large_one() -> None:
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
