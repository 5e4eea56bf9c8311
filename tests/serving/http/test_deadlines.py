"""Deadlines: what `asyncio.timeout` does, for many tasks and with one timer, and callers who leave."""

import asyncio

import pytest

from segue.serving.http import deadlines as module
from segue.serving.http.deadlines import Deadlines


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.001)


async def forever() -> None:
    await asyncio.Event().wait()


def test_a_block_ends_at_its_deadline_and_its_task_goes_on() -> None:
    async def run() -> bool:
        deadlines = Deadlines()
        with pytest.raises(TimeoutError), deadlines.within(0.0):
            await forever()
        with deadlines.within(3600.0) as later:
            later.due = 0.0
            with pytest.raises(asyncio.CancelledError):
                await forever()
            await asyncio.sleep(0)  # Cancelled once, and not again.
        return asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    assert asyncio.run(run())


def test_an_inner_deadline_is_not_the_outer_ones() -> None:
    async def run() -> list[str]:
        deadlines, seen = Deadlines(), list[str]()
        try:
            with deadlines.within(3600.0) as outer:
                try:
                    with deadlines.within(0.0):
                        await forever()
                except TimeoutError:
                    seen.append("inner")
                outer.end()
                await forever()
        except TimeoutError:
            seen.append("outer")
        return seen

    assert asyncio.run(run()) == ["inner", "outer"]


def test_whoever_cancels_a_task_cancels_it() -> None:
    async def run() -> None:
        async def wait() -> None:
            with Deadlines().within(3600.0):
                await forever()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_a_block_ends_when_its_caller_leaves_and_quick_ones_do_not_look() -> None:
    async def run() -> int:
        deadlines, looked, leave = Deadlines(), 0, asyncio.Event()

        async def caller_leaves() -> None:
            nonlocal looked
            looked += 1
            await leave.wait()

        for _ in range(100):
            with deadlines.within(3600.0, caller_leaves):
                pass
        assert looked == 0
        with pytest.raises(ConnectionAbortedError), deadlines.within(3600.0, caller_leaves):
            while not looked:
                await asyncio.sleep(0)
            leave.set()
            await forever()
        leave.clear()
        with deadlines.within(3600.0, caller_leaves):
            while looked < 2:
                await asyncio.sleep(0)
        while len(asyncio.all_tasks()) > 1:  # Nobody watches any more.
            await asyncio.sleep(0)
        return looked

    assert asyncio.run(run()) == 2
