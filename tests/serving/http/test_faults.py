"""Faults of a real server under load: every answer that is given is right, or says that it is not what it should be."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segue.data.song import N_FEATURES, WINDOW, Floats, Songs
from segue.errors import ServiceError
from segue.serving.bundle.load import load_bundle
from segue.serving.bundle.write import write_manifest
from segue.serving.cascade import open_cascade
from segue.serving.client import SegueClient
from segue.serving.http.bodies import RAW
from segue.serving.predictions import Answer
from tests.support.bundles import CLASSES
from tests.support.random_songs import random_segments
from tests.support.server import Server, environment, free_port, serving

pytestmark = pytest.mark.slow

SONGS = np.stack([random_segments(WINDOW, seed=n) for n in range(32)])
CALLERS = 8
FAILS, HANGS = 12345.0, 54321.0  # Values of timbre_1 in the middle of a song; see `faulty_teacher`.


class Callers:
    """Callers that ask about songs of their own, over and over, and check every answer."""

    def __init__(self, url: str, bundle: Path, retries: int) -> None:
        self.answered = 0
        self.failures: list[str] = []  # Requests without an answer.
        self.wrong: list[str] = []  # Answers that are not what they should be.
        self._url, self._retries = url, retries
        self._expected = open_cascade(load_bundle(bundle), threads=1).answer(Songs.of(SONGS), -1.0)
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Return once so many more requests were answered."""
        least = self.answered + more
        eventually(lambda: self.answered >= least)

    def _call(self, number: int) -> None:
        rows = range(number, len(SONGS), CALLERS)
        with SegueClient(self._url, retries=self._retries) as client:
            while not self._end.is_set():
                try:
                    found = client.classify(SONGS[list(rows)], mode="accurate").answers
                except ServiceError as error:
                    self.failures.append(str(error))
                    self._end.wait(0.01)
                    continue
                self.answered += 1
                self.wrong += self._wrong(found, rows)

    def _wrong(self, found: Sequence[Answer], rows: Sequence[int]) -> Iterator[str]:
        for one, row in zip(found, rows, strict=True):
            cross_entropy = self._expected.cross_entropy_nats[row]
            genre = CLASSES[self._expected.choice[row]]
            if one.genre != genre or abs(one.cross_entropy_nats - cross_entropy) > 1e-5 or one.degraded:
                yield f"song {row}: expected {genre} at {cross_entropy}, found {one}"


def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metric(server: Server, series: str) -> float:
    """Return the value of a series, all workers together; 0 where there is none."""
    lines = httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} "))


def workers(server: Server) -> set[int]:
    """Return the processes that answer."""
    children = [
        int(child)
        for listed in Path(f"/proc/{server.process.pid}/task").glob("*/children")
        for child in listed.read_text().split()
    ]
    found: set[int] = set()
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has just ended.
            if b"worker.service" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(child)
    return found


@pytest.fixture(scope="module")
def changing(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that may be changed."""
    folder = tmp_path_factory.mktemp("faults") / "bundle"
    shutil.copytree(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def two_workers(changing: Path) -> Iterator[Server]:
    """Return a server of two workers, for the tests below in their order: the last one stops it."""
    port, home = free_port(), changing.parent
    env = environment(home / "home") | {"SEGUE_TOKENS": "admin=root", "SEGUE_LEAST_BODY_RATE": "1"}
    words = ["segue", "serve", str(changing), "--port", str(port), "--workers", "2"]
    with serving(words, port, home, env) as server:
        eventually(lambda: metric(server, "segue_workers_with_teacher") == 2)
        yield server


def test_a_corrupt_bundle_is_refused_under_load(two_workers: Server, bundle: Path, changing: Path) -> None:
    (changing / "teacher.onnx").write_bytes(b"damaged")
    with Callers(two_workers.url, bundle, retries=0) as callers:
        callers.wait_for(20)
        os.kill(two_workers.process.pid, signal.SIGHUP)
        eventually(lambda: metric(two_workers, 'segue_reloads_total{result="refused"}') == 2)
        head = {"authorization": "Bearer root"}
        reload = httpx.post(f"{two_workers.url}/v1/admin/reload", headers=head, timeout=30)
        callers.wait_for(20)
    assert callers.failures == callers.wrong == []
    assert reload.status_code == 409
    assert "the old bundle stays: bundle/teacher.onnx: expected sha256" in reload.json()["error"]
    shutil.copy(bundle / "teacher.onnx", changing)


def test_a_killed_worker_costs_its_own_requests_at_most_and_comes_back(two_workers: Server, bundle: Path) -> None:
    before = workers(two_workers)
    assert len(before) == 2
    victim = min(before)
    with Callers(two_workers.url, bundle, retries=0) as callers:
        callers.wait_for(20)
        os.kill(victim, signal.SIGKILL)
        callers.wait_for(50)  # Of the other worker.
        eventually(lambda: len(workers(two_workers) - before) == 1)
        eventually(lambda: metric(two_workers, "segue_workers_with_teacher") == 2)
        callers.wait_for(20)
    assert len(callers.failures) <= CALLERS
    assert callers.wrong == []


def test_sigterm_under_load_loses_no_request_that_was_begun(two_workers: Server, bundle: Path) -> None:
    body = SONGS[:2].tobytes()
    head = f"POST /v1/classify HTTP/1.1\r\nhost: segue\r\ncontent-type: {RAW}\r\ncontent-length: {len(body)}\r\n"
    address = ("127.0.0.1", int(two_workers.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        idle, busy = (
            [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(CALLERS)]
            for _ in range(2)
        )
        for one in idle:
            one.sendall(b"GET /livez HTTP/1.1\r\nhost: segue\r\n\r\n")
            assert one.recv(65_536)
        for one in busy:
            one.sendall(f"{head}expect: 100-continue\r\n\r\n".encode())
            assert one.recv(100).startswith(b"HTTP/1.1 100")  # The service has begun to read.
        with Callers(two_workers.url, bundle, retries=0) as callers:
            callers.wait_for(20)
            two_workers.process.send_signal(signal.SIGTERM)
            sent = 0
            while not select.select(idle, [], [], 1)[0]:  # Until one is closed: a worker is draining.
                for one in busy:
                    one.sendall(body[sent : sent + 10])  # As fast as a body must come.
                sent += 10
            for one in busy:  # Before the callers end: one may wait for a worker that accepts nobody any more.
                one.sendall(body[sent:])
        for one in busy:
            found = b"".join(iter(lambda one=one: one.recv(65_536), b""))  # type: ignore[misc]
            assert found.startswith(b"HTTP/1.1 200")
            assert len(json.loads(found.partition(b"\r\n\r\n")[2])["songs"]) == 2
    assert callers.wrong == []
    assert not [failure for failure in callers.failures if ": 5" in failure]  # They were closed, not failed.
    assert two_workers.process.wait(60) == 0


@contextmanager
def serving_faulty(folder: Path, **settings: str) -> Iterator[Server]:
    port = free_port()
    env = environment(folder / "home") | settings
    with serving(["segue", "serve", str(folder / "bundle"), "--port", str(port)], port, folder, env) as server:
        yield server


def faulty_teacher(bundle: Path, folder: Path) -> None:
    """Copy a bundle to `folder/bundle`; its teacher fails on songs with FAILS in their middle, and hangs on HANGS."""
    here = folder / "bundle"
    shutil.copytree(bundle, here)
    model = onnx.load(here / "teacher.onnx")
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["sound" if name == "logits" else name for name in node.output]

    def constant(name: str, value: object, dtype: type[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    timbre = WINDOW // 2 * N_FEATURES
    graph.node.extend(
        [
            helper.make_node("Reshape", ["segments", constant("flat", [-1, WINDOW * N_FEATURES], np.int64)], ["all"]),
            helper.make_node("Gather", ["all", constant("middle", timbre, np.int64)], ["values"], axis=1),
            helper.make_node("ReduceMax", ["values"], ["largest"], keepdims=0),
            helper.make_node("Equal", ["largest", constant("fails", FAILS, np.float32)], ["is_failure"]),
            helper.make_node("Cast", ["is_failure"], ["row"], to=TensorProto.INT64),
            # Row 1 of an array of one row: an error as the model runs.
            helper.make_node("Gather", [constant("one_row", [0.0], np.float32), "row"], ["nothing"]),
            helper.make_node("Equal", ["largest", constant("hangs", HANGS, np.float32)], ["is_hang"]),
            helper.make_node(
                "Where", ["is_hang", constant("ever", 2**60, np.int64), constant("never", 0, np.int64)], ["turns"]
            ),
            helper.make_node("Loop", ["turns", "", "nothing"], ["nothing_again"], body=_do_nothing()),
            helper.make_node("Add", ["sound", "nothing_again"], ["logits"]),
        ]
    )
    onnx.save(model, here / "teacher.onnx")
    write_manifest(here, load_bundle(bundle).manifest)


def _do_nothing() -> onnx.GraphProto:
    scalar = helper.make_tensor_value_info
    inputs = [scalar("turn", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []), scalar("in", 1, [])]
    outputs = [scalar("go_on", TensorProto.BOOL, []), scalar("out", 1, [])]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["in"], ["out"])]
    return helper.make_graph(nodes, "do_nothing", inputs, outputs)


def troubled(value: float) -> Floats:
    """Return four songs, the third of which brings the teacher into trouble."""
    songs = SONGS[:4].copy()
    songs[2, WINDOW // 2, 0] = value
    return songs


def test_a_teacher_that_fails_on_a_song_or_hangs_leaves_the_students_answers(bundle: Path, tmp_path: Path) -> None:
    faulty_teacher(bundle, tmp_path)
    cascade = open_cascade(load_bundle(bundle), threads=1)
    with serving_faulty(tmp_path, SEGUE_TEACHER_TIMEOUT_S="1") as server, SegueClient(server.url, retries=0) as client:

        def degraded(songs: Floats) -> list[bool]:
            """Ask, check every answer against that of the model that had to give it, and return which are degraded."""
            found = client.classify(songs, mode="accurate").answers
            expected = {flag: cascade.answer(Songs.of(songs), np.inf if flag else -1.0) for flag in (True, False)}
            for row, one in enumerate(found):
                assert one.genre == CLASSES[expected[one.degraded].choice[row]]
                assert one.answered_by == expected[one.degraded].answered_by(row)
            return [one.degraded for one in found]

        with Callers(server.url, bundle, retries=0) as callers:
            callers.wait_for(20)
            assert degraded(troubled(FAILS)) == [False, False, True, False]
            callers.wait_for(20)
        assert callers.failures == callers.wrong == []
        assert degraded(SONGS[:4]) == [False] * 4

        assert degraded(troubled(HANGS)) == [True] * 4
        assert degraded(SONGS[:4]) == [True] * 4
        assert [one.degraded for one in client.classify(SONGS, mode="fast").answers] == [False] * len(SONGS)
        eventually(lambda: metric(server, 'segue_without_teacher_total{trouble="timeout"}') == 8)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == 0
