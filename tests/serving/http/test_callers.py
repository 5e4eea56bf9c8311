"""How the workers of a server share those who call, each worker a process of its own."""

import asyncio
import multiprocessing
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from segue.serving.http import worker as module
from segue.serving.http.callers import Callers
from segue.serving.http.worker import FairLoop

N_CALLERS = 16


def work(listening: socket.socket, path: Path, counts: Any, is_stuck: bool, left_s: float) -> None:
    """Serve until all callers were accepted by somebody, and tell how many were by this worker."""
    module.LEFT_TO_OTHERS_S = left_s
    FairLoop.callers = callers = Callers(path)
    number = callers._place

    class Caller(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            counts[number] += 1

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Caller, sock=listening)
        counts[2] += 1
        if is_stuck:
            time.sleep(left_s * 10 + 1)
        while counts[0] + counts[1] < N_CALLERS:
            await asyncio.sleep(0.001)
        server.close()

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(serve())


def accepted(path: Path, *, is_one_stuck: bool, left_s: float) -> list[int]:
    fork = multiprocessing.get_context("fork")
    counts = fork.Array("i", 3)  # Of the callers of both workers; and how many serve.
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=N_CALLERS))
        listening.setblocking(False)
        workers = []
        for stuck in (False, is_one_stuck):
            workers.append(fork.Process(target=work, args=(listening, path, counts, stuck, left_s)))
            workers[-1].start()
            stack.callback(workers[-1].kill)
        deadline = time.monotonic() + 60
        while counts[2] < len(workers) and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(N_CALLERS):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        for one in workers:
            one.join(60)
        return sorted(counts[:2])


def test_callers_who_come_together_are_shared_evenly(tmp_path: Path) -> None:
    fewer, more = accepted(tmp_path / "callers", is_one_stuck=False, left_s=2.0)
    assert fewer + more == N_CALLERS
    assert more - fewer <= 2


def test_nobody_waits_for_a_worker_that_is_stuck(tmp_path: Path) -> None:
    assert accepted(tmp_path / "callers", is_one_stuck=True, left_s=0.01) == [0, N_CALLERS]


@pytest.mark.parametrize("path", [None, Path("/proc/none/callers")])
def test_a_worker_that_cannot_know_of_others_leaves_nobody_to_them(path: Path | None) -> None:
    callers = Callers(path)
    callers.are(5)
    assert (callers.own, callers.are_more_than_others()) == (5, False)
