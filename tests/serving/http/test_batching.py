"""The micro-batcher: everybody gets their own answer, nothing waits in vain, and the queue has an end."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.serving.http.batching import MicroBatcher, QueueFullError, Ran

Numbers = tuple[int, ...]


class Doubler:
    """Doubles numbers, one batch at a time, and only when it may; fails on groups with a 13."""

    def __init__(self) -> None:
        self.batches: list[list[Numbers]] = []
        self.entered = threading.Semaphore(0)
        self.may = threading.Semaphore(0)

    def __call__(self, groups: Sequence[Numbers]) -> list[Numbers | Exception]:
        self.batches.append(list(groups))
        self.entered.release()
        self.may.acquire()
        return [ValueError("13") if 13 in group else tuple(2 * n for n in group) for group in groups]


def batcher(model: Doubler, *, max_waiting: int = 1000, batch_size: int = 100) -> MicroBatcher[Numbers, Numbers]:
    return MicroBatcher("doubler", model, max_waiting=max_waiting, batch_size=batch_size)


async def entered(model: Doubler) -> None:
    """Return when the model has begun a batch."""
    await asyncio.to_thread(model.entered.acquire)


async def queued(*tasks: "asyncio.Task[Numbers]") -> None:
    """Return when tasks that were just made wait for their answers."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


@given(
    st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=9).map(tuple), min_size=1, max_size=30),
    st.integers(1, 12),
)
@settings(max_examples=50, deadline=None)
def test_nobody_gets_the_answer_of_another(groups: list[Numbers], batch_size: int) -> None:
    async def ask() -> list[Numbers | BaseException]:
        queue = MicroBatcher[Numbers, Numbers](
            "doubler",
            lambda some: [ValueError("13") if 13 in group else tuple(2 * n for n in group) for group in some],
            max_waiting=10_000,
            batch_size=batch_size,
        )
        return await asyncio.gather(*map(queue.submit, groups), return_exceptions=True)

    for group, result in zip(groups, asyncio.run(ask()), strict=True):
        if 13 in group:
            assert isinstance(result, ValueError)
        else:
            assert result == tuple(2 * n for n in group)


def test_what_queued_while_the_model_was_busy_is_its_next_batch() -> None:
    async def ask() -> None:
        model = Doubler()
        queue = batcher(model, batch_size=4)
        first = asyncio.create_task(queue.submit((1,)))
        await entered(model)
        others = [asyncio.create_task(queue.submit(group)) for group in ((2,), (3, 4), (5, 6, 7, 8, 9), (10,))]
        await queued(first, *others)
        assert queue.waiting == 9
        for _ in range(4):
            model.may.release()
        found = list(await asyncio.gather(first, *others))
        assert found == [(2,), (4,), (6, 8), (10, 12, 14, 16, 18), (20,)]
        assert model.batches == [[(1,)], [(2,), (3, 4)], [(5, 6, 7, 8, 9)], [(10,)]]
        assert queue.waiting == 0
        assert queue.busy_s == 0

    asyncio.run(ask())


def test_requests_of_the_same_turn_are_one_batch() -> None:
    async def ask() -> None:
        model = Doubler()
        queue = batcher(model)
        model.may.release()
        assert list(await asyncio.gather(queue.submit((1,)), queue.submit((2,)))) == [(2,), (4,)]
        assert model.batches == [[(1,), (2,)]]

    asyncio.run(ask())


def test_a_cancelled_caller_is_dropped_before_the_model_runs() -> None:
    async def ask() -> None:
        model = Doubler()
        queue = batcher(model)
        first = asyncio.create_task(queue.submit((1,)))
        await entered(model)
        leaving, staying = asyncio.create_task(queue.submit((2,))), asyncio.create_task(queue.submit((3,)))
        await queued(leaving, staying)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert queue.waiting == 1
        first.cancel()  # Too late for the model, but nobody is told what it said.
        model.may.release()
        model.may.release()
        assert await staying == (6,)
        assert model.batches == [[(1,)], [(3,)]]
        assert first.cancelled()

    asyncio.run(ask())


def test_a_caller_who_would_wait_past_the_deadline_leaves() -> None:
    async def ask() -> None:
        model = Doubler()
        queue = batcher(model)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await queue.submit((1,))
        assert queue.waiting == 0
        model.may.release()
        assert await queue.submit((2,)) == (4,)
        assert model.batches == [[(2,)]]

    asyncio.run(ask())


def test_a_full_queue_refuses_at_once_but_never_the_first() -> None:
    async def ask() -> None:
        model = Doubler()
        queue = batcher(model, max_waiting=3)
        first = asyncio.create_task(queue.submit((1, 2, 3, 4, 5)))
        await entered(model)
        waiting = asyncio.create_task(queue.submit((6, 7)))
        await queued(first, waiting)
        with pytest.raises(QueueFullError, match="2 are waiting, at most 3 may"):
            await queue.submit((8, 9))
        another = asyncio.create_task(queue.submit((10,)))
        await queued(another)
        model.may.release()
        model.may.release()
        assert list(await asyncio.gather(first, waiting, another)) == [(2, 4, 6, 8, 10), (12, 14), (20,)]

    asyncio.run(ask())


def test_a_run_that_fails_fails_its_whole_batch_and_no_other() -> None:
    def fails_once(groups: Sequence[Numbers]) -> list[Numbers | Exception]:
        if (0,) in groups:
            raise RuntimeError("broken")
        return list(groups)

    async def ask() -> None:
        queue = MicroBatcher[Numbers, Numbers]("broken", fails_once, max_waiting=9, batch_size=9)
        results = await asyncio.gather(queue.submit((0,)), queue.submit((1,)), return_exceptions=True)
        assert [str(result) for result in results] == ["broken", "broken"]
        assert await queue.submit((2,)) == (2,)

    asyncio.run(ask())


def test_every_batch_is_reported() -> None:
    async def ask() -> list[Ran]:
        reports: list[Ran] = []
        queue = MicroBatcher[Numbers, Numbers]("same", list, max_waiting=9, batch_size=9, report=reports.append)
        await asyncio.gather(queue.submit((1, 2)), queue.submit((3,)))
        await queue.submit((4,))
        return reports

    first, second = asyncio.run(ask())
    assert (first.groups, first.size, len(first.queued_s), first.waiting) == (2, 3, 2, 0)
    assert (second.groups, second.size) == (1, 1)
    assert min(first.queued_s) >= 0


def test_the_thread_ends_with_its_batcher() -> None:
    async def ask() -> None:
        await MicroBatcher[Numbers, Numbers]("short-lived", list, max_waiting=9, batch_size=9).submit((1,))

    asyncio.run(ask())
    for thread in threading.enumerate():
        if thread.name == "short-lived":
            thread.join(timeout=30)
            assert not thread.is_alive()
