"""The load generator counts what really happened, whatever the server does."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from segue.bench.generator import BROKE, REFUSED, Address, closed_loop, open_loop
from segue.bench.request_bodies import post
from segue.errors import ConfigError, ServiceError
from segue.serving.http.bodies import RAW
from tests.support.server import free_port

REQUEST = post("/", RAW, b"abc")
STALL_S = 1.0


class Answering(asyncio.Protocol):
    """Answers every request with the next status, in two pieces; hangs up where that is 0."""

    def __init__(self, status: Callable[[], int], body: bytes, head: bytes) -> None:
        self.status, self.body, self.head = status, body, head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        assert data == REQUEST
        status = self.status()
        if not status:
            self.transport.abort()
            return
        self.transport.write(b"HTTP/1.1 %d Fine\r\n%bContent-Le" % (status, self.head))
        rest = b"ngth: %d\r\n\r\n%b" % (len(self.body), self.body)
        asyncio.get_running_loop().call_later(0.001, self._finish, rest)

    def _finish(self, rest: bytes) -> None:
        self.transport.write(rest)
        if b"close" in self.head:
            self.transport.close()


@contextmanager
def answering(status: Callable[[], int] | list[int], body: bytes = b"hello", head: bytes = b"") -> Iterator[Address]:
    """Run a server whose answers have these statuses, over and over, and yield its address."""
    if isinstance(status, list):
        statuses, count = status, iter(range(10**9))
        turn = lambda: statuses[next(count) % len(statuses)]  # noqa: E731
    else:
        turn = status
    port, loop = free_port(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Answering(turn, body, head), "127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_closed_loop_counts_every_answer() -> None:
    with answering([200, 200, 503]) as address:
        found = closed_loop(address, [REQUEST], connections=4, seconds=30, most=300)
    assert found.statuses == {200: 200, 503: 100}
    assert found.errors == {"status 503": 100}
    assert (found.sent, found.failed, len(found.latencies_ms)) == (300, 100, 200)
    assert 1 <= found.quantile_ms(0.5) <= found.quantile_ms(0.99) < found.seconds * 1e3
    assert found.good_per_s == pytest.approx(200 / found.seconds)


def test_an_open_loop_sends_as_many_as_it_was_told_at_random_moments() -> None:
    with answering([200, 503]) as address:
        found = open_loop(address, [REQUEST], per_s=1000, seconds=1)
        some = open_loop(address, [REQUEST], per_s=1000, seconds=1, most=50)
    assert 850 < found.sent < 1150  # Of a Poisson process with 1,000 expected: five standard deviations.
    assert abs(found.statuses[200] - found.statuses[503]) <= 1
    assert len(found.late_ms) == found.sent
    assert not found.unanswered
    assert some.sent == 50


def test_an_open_loop_shows_the_delay_of_a_server_that_stalls_for_a_second() -> None:
    asked = iter(range(10**9))

    def stalling() -> int:
        if next(asked) == 100:
            time.sleep(STALL_S)  # In the server's only thread: nobody is answered meanwhile.
        return 200

    with answering(stalling) as address:
        found = open_loop(address, [REQUEST], per_s=200, seconds=2)
    # Whoever came in the stalled second waited for what was left of it: evenly from all of it to nothing.
    delayed = found.latencies_ms[found.latencies_ms > 100]
    assert found.latencies_ms.max() >= STALL_S * 1e3
    assert len(delayed) >= 0.6 * 200 * STALL_S
    assert np.quantile(delayed, 0.9) >= 0.75 * STALL_S * 1e3
    assert found.failed == 0


def test_a_closed_loop_hides_most_of_that_delay() -> None:
    asked = iter(range(10**9))

    def stalling() -> int:
        if next(asked) == 100:
            time.sleep(STALL_S)
        return 200

    with answering(stalling) as address:
        found = closed_loop(address, [REQUEST], connections=4, seconds=30, most=400)
    assert (found.latencies_ms >= STALL_S * 1e3).sum() <= 4


def test_requests_on_a_connection_that_breaks_are_counted_and_others_are_opened() -> None:
    with answering([200, 0]) as address:
        found = open_loop(address, [REQUEST], per_s=1000, seconds=1, most=100)
        assert found.statuses == {200: 50}
        assert found.errors == {BROKE: 50}
        found = closed_loop(address, [REQUEST], connections=2, seconds=30, most=100)
        assert (found.statuses, found.errors) == ({200: 50}, {BROKE: 50})
    nobody = Address("127.0.0.1", free_port())
    assert open_loop(nobody, [REQUEST], per_s=1000, seconds=1, most=100).errors == {REFUSED: 100}
    with pytest.raises(ServiceError, match=f"127.0.0.1:{nobody.port}: "):
        closed_loop(nobody, [REQUEST], connections=2, seconds=30)


def test_a_server_that_closes_after_each_answer_loses_none() -> None:
    with answering([200], head=b"Connection: close\r\n") as address:
        closed = closed_loop(address, [REQUEST], connections=3, seconds=30, most=60)
        opened = open_loop(address, [REQUEST], per_s=500, seconds=1, most=60)
    assert closed.statuses == opened.statuses == {200: 60}
    assert closed.failed == opened.failed == 0


def test_answers_are_counted_song_by_song() -> None:
    body = (
        b'{"songs":[{"id":"0","answered_by":"student","degraded":false},{"id":"1","answered_by":"teacher",'
        b'"degraded":false},{"id":"2","answered_by":"student","degraded":true},{"id":"3","error":"too loud"}]}'
    )
    with answering([200], body) as address:
        found = closed_loop(address, [REQUEST], connections=2, seconds=30, most=10)
    assert (found.songs, found.by_teacher, found.degraded, found.song_errors) == (30, 10, 10, 10)
    assert found.songs_per_s == pytest.approx(30 / found.seconds)


def test_an_address_is_read_from_a_url() -> None:
    assert Address.of("http://127.0.0.1:3000/x") == Address("127.0.0.1", 3000)
    assert Address.of("https://genres.example") == Address("genres.example", 443, tls=True)
    for wrong in ("127.0.0.1:3000", "ftp://somewhere", "http://"):
        with pytest.raises(ConfigError, match="expected an address such as"):
            Address.of(wrong)
