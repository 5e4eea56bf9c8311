"""What a worker process is: how many there are, and how they share those who call."""

import asyncio
import socket
from contextlib import ExitStack
from itertools import pairwise

import pytest

from segue.machine import usable_cores
from segue.serving.http import worker as module
from segue.serving.http.settings import Settings
from segue.serving.http.worker import FairLoop, count_workers


def test_there_is_a_worker_a_core_and_one_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_wheels", lambda: {"onnxruntime": "1.31.0"})
    assert (count_workers(Settings()), count_workers(Settings(workers=3))) == (usable_cores(), 3)
    monkeypatch.setattr(module, "installed_wheels", lambda: {"onnxruntime-gpu": "1.31.0"})
    assert [count_workers(Settings(provider=name)) for name in ("auto", "cuda", "cpu")] == [1, 1, usable_cores()]


@pytest.mark.parametrize(("few", "at_once"), [(64, 1), (0, 16)])
def test_a_worker_leaves_the_other_callers_to_the_others_until_it_has_many(
    monkeypatch: pytest.MonkeyPatch, few: int, at_once: int
) -> None:
    monkeypatch.setattr(module, "FEW_CONNECTIONS", few)
    accepted: list[asyncio.Protocol] = []

    class Caller(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(self)

    async def serve() -> list[int]:
        loop, counts = asyncio.get_running_loop(), [0]
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=16))
            for _ in range(16):
                stack.enter_context(socket.create_connection(listening.getsockname()))
            server = await loop.create_server(Caller, sock=listening)
            while len(accepted) < 16:
                await asyncio.sleep(0)
                counts.append(len(accepted))
            server.close()
        return counts

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        counts = runner.run(serve())
    assert max(later - now for now, later in pairwise(counts)) == at_once
