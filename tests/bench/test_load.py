"""The load generator counts what really happened, and the benchmark compares it with the right targets."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from segue.bench.generator import Load, closed_loop, open_loop, post
from segue.bench.load import (
    Bulk,
    Endurance,
    Overload,
    Steady,
    Throughput,
    _requests,
    _requests_in_json,
    load,
    main,
    targets,
)
from segue.bench.servers import ServerName, serving
from segue.data.song import WINDOW
from segue.errors import ConfigError, ServiceError
from segue.serving.http.bodies import JSON, RAW, read
from tests.support.random_songs import random_segments
from tests.support.server import free_port

REQUEST = post("/", RAW, b"abc")
SONGS = np.stack([random_segments(WINDOW, seed=n) for n in range(8)])


class Answering(asyncio.Protocol):
    """Answers every request with the next status, in two pieces; hangs up where that is 0."""

    def __init__(self, status: Callable[[], int]) -> None:
        self.status = status

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        assert data == REQUEST
        status = self.status()
        if not status:
            self.transport.abort()
            return
        self.transport.write(f"HTTP/1.1 {status} Fine\r\nContent-Le".encode())
        asyncio.get_running_loop().call_later(0.001, self.transport.write, b"ngth: 5\r\n\r\nhello")


@contextmanager
def answering(statuses: list[int]) -> Iterator[int]:
    """Run a server whose answers have these statuses, over and over, and yield its port."""
    count = iter(range(10**9))
    port, loop = free_port(), asyncio.new_event_loop()

    def status() -> int:
        return statuses[next(count) % len(statuses)]

    server = loop.run_until_complete(loop.create_server(lambda: Answering(status), "127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_closed_loop_counts_every_answer() -> None:
    with answering([200, 200, 503]) as port:
        found = closed_loop(port, [REQUEST], connections=4, seconds=30, most=300)
    assert found.statuses == {200: 200, 503: 100}
    assert (found.unanswered, found.failed, len(found.latencies_ms)) == (0, 100, 200)
    assert 1 <= found.quantile_ms(0.5) <= found.quantile_ms(0.99) < found.seconds * 1e3
    assert found.good_per_s == pytest.approx(200 / found.seconds)


def test_an_open_loop_sends_as_many_as_it_was_told() -> None:
    with answering([200, 503]) as port:
        found = open_loop(port, [REQUEST], per_s=1000, seconds=0.3)
    assert found.statuses == {200: 150, 503: 150}
    assert found.unanswered == 0


def test_requests_on_a_connection_that_breaks_are_unanswered() -> None:
    with answering([200, 0]) as port:
        found = open_loop(port, [REQUEST], per_s=1000, seconds=0.1)
        assert found.statuses == {200: 50}
        assert found.unanswered == 50
        with pytest.raises(ServiceError, match="the server closed every connection"):
            closed_loop(port, [REQUEST], connections=2, seconds=30)
    assert open_loop(free_port(), [REQUEST], per_s=1000, seconds=0.1).unanswered == 100


def test_the_requests_carry_the_sample() -> None:
    for requests in (_requests("service", SONGS, 4), _requests_in_json(SONGS, 4)):
        bodies = [request.partition(b"\r\n\r\n")[2] for request in requests]
        kind = JSON if bodies[0].startswith(b"{") else RAW
        sound = [read(body, kind, "raw", 4).sound for body in bodies]
        np.testing.assert_array_equal(np.concatenate([np.stack(list(some)) for some in sound]), SONGS)
    assert len(_requests("bare uvicorn", SONGS)) == len(_requests("plain BentoML", SONGS)) == 8


def found(per_s: float = 1500.0, **overload: float) -> dict[str, bool]:
    """Return which targets are met by made-up figures."""
    throughputs = tuple(
        Throughput(name, "raw", rate, 1.0, 2.0, 0)  # type: ignore[arg-type]
        for name, rate in (
            ("service", per_s), ("plain BentoML", 600.0), ("bare uvicorn", 2500.0), ("bare uvicorn, batched", 2500.0)
        )
    )  # fmt: skip
    over = Overload(1000.0, 2000.0, 30.0, 30_000, 30_000, 0, 800.0, 100.0, 100, 110)
    made = targets(
        throughputs,
        Steady(30.0, 1000, 10.0, 40.0, 0),
        Bulk(1000.0, 600.0, 150.0, 0),
        dataclasses.replace(over, **overload),  # type: ignore[arg-type]
        Endurance(10_000, 100, 100_000, 110, 0),
    )
    assert len({one.what for one in made}) == len(made) == 11
    return {one.what: one.met for one in made}


def test_a_target_is_met_at_its_bound_and_not_beyond() -> None:
    assert all(found().values())
    assert [what for what, met in found(per_s=1499).items() if not met] == [
        "one song: requests/s over plain BentoML's",
        "one song: requests/s over bare uvicorn's",
        "one song: requests/s over bare uvicorn's with the service's engine",
    ]
    missed = [what for what, met in found(good_per_s=799, otherwise=1, late_bytes=111).items() if not met]
    assert [what.partition(":")[0] for what in missed] == ["overload"] * 3


def test_what_cannot_be_measured_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected seconds above 0 and at least 1 round, found 0\.0, 30\.0, 3"):
        load(bundle, seconds=0.0)
    assert main([str(bundle / "nothing")]) == 1


def test_a_load_without_answers_has_no_quantile() -> None:
    assert np.isnan(Load(1.0, {}, 3, np.zeros(0)).quantile_ms(0.5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain BentoML", "bare uvicorn, batched"])
def test_a_server_to_compare_with_answers(bundle: Path, name: ServerName) -> None:
    with serving(name, bundle) as server:
        found = closed_loop(server.port, _requests(name, SONGS), connections=2, seconds=60, most=20)
        assert server.resident_bytes() > 10e6
    assert found.statuses == {200: 20}
