"""Connections: bounds on heads, waiting and number, and requests that want to be something other than HTTP/1.1."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from uvicorn import Config
from uvicorn.server import ServerState

from segue.serving.http import connections as module
from segue.serving.http.connections import Connections
from segue.serving.http.refusal import Refusal
from segue.serving.http.settings import Settings

HEAD = b"POST /here HTTP/1.1\r\nhost: segue\r\n"


@dataclass
class House:
    """A server that says what it was sent, and the callers of it."""

    port: int
    cuts: list[Refusal]
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own, and return all that comes back until it is closed."""
        reader, writer = await self.open()
        writer.write(request)
        answer = b""
        try:
            while part := await asyncio.wait_for(reader.read(65_536), 30):
                answer += part
        except ConnectionError:  # It has more to say than the server wants to hear.
            pass
        writer.close()
        return answer


async def echo(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope, receive)
    said = {"method": scope["method"], "path": scope["path"], "body": (await request.body()).decode()}
    headers = sorted(name.decode() for name, _ in scope["headers"])
    await Response(json.dumps(said | {"headers": headers}))(scope, receive, send)


@asynccontextmanager
async def house(app: Callable[..., Awaitable[None]] = echo, **settings: Any) -> AsyncIterator[House]:
    loop, cuts = asyncio.get_running_loop(), list[Refusal]()
    config, state = Config(app, lifespan="off"), ServerState()
    config.load()
    connections = Connections(Settings(**settings), cuts.append)
    server = await loop.create_server(
        lambda: connections.protocol(config=config, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
    )
    async with server:
        yield House(server.sockets[0].getsockname()[1], cuts)
        for one in list(state.connections):
            one.transport.abort()


def said(answer: bytes) -> tuple[int, Any]:
    """Return the status and the body of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


UPGRADES = {
    "h2c": b"connection: Upgrade, HTTP2-Settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n",
    "websocket": b"connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n",
    "anything": b"connection: close, upgrade\r\nupgrade: gopher/1, h2c\r\n",
    "none": b"connection: close\r\n",
}


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_a_request_to_upgrade_is_answered_like_any_other(upgrade: str, pieces: int) -> None:
    body = b"x" * 1000

    async def run() -> None:
        async with house() as here:
            for framing in (
                b"content-length: 1000\r\n\r\n" + body,
                b"transfer-encoding: chunked\r\n\r\n"
                + b"".join(b"64\r\n" + body[:100] + b"\r\n" for _ in range(10))
                + b"0\r\n\r\n",
            ):
                request = HEAD + UPGRADES[upgrade] + framing
                reader, writer = await here.open()
                for at in range(0, len(request), -(-len(request) // pieces)):
                    writer.write(request[at : at + -(-len(request) // pieces)])
                    await writer.drain()
                    await asyncio.sleep(0)
                status, found = said(await asyncio.wait_for(reader.read(), 30))
                assert (status, found["method"], found["path"], found["body"]) == (200, "POST", "/here", body.decode())
                assert "upgrade" not in found["headers"]

    asyncio.run(run())


def test_a_connection_outlives_a_request_to_upgrade() -> None:
    first = HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\na"
    last = HEAD + b"connection: close\r\ncontent-length: 1\r\n\r\nb"

    async def run() -> bytes:
        async with house() as here:
            return await here.ask(first + first + last)

    answers = asyncio.run(run())
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.count(b'"body": "a"') == 2
    assert answers.count(b'"body": "b"') == 1


def test_nobody_connects_through_here() -> None:
    async def run() -> tuple[int, Any]:
        async with house() as here:
            return said(await here.ask(b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\n"))

    assert asyncio.run(run()) == (400, {"error": "expected an HTTP/1.1 request, found something else"})


LARGE: dict[str, bytes] = {
    "one header": HEAD + b"x-much: " + b"y" * 3_000_000,
    "one name": HEAD + b"x" * 3_000_000,
    "many headers": HEAD + b"a: b\r\n" * 500_000,
    "a path": b"GET /" + b"p" * 3_000_000,
    "a whole head": HEAD + b"x-much: " + b"y" * 40_000 + b"\r\n\r\n",
    "a whole head before a body": HEAD
    + b"content-length: 300000\r\nx-much: "
    + b"y" * 40_000
    + b"\r\n\r\n"
    + b"z" * 300_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_head_that_is_too_large_is_refused(name: str) -> None:
    async def run() -> tuple[bytes, list[Refusal]]:
        async with house() as here:
            return await here.ask(LARGE[name]), here.cuts

    answer, cuts = asyncio.run(run())
    assert [one.reason for one in cuts] == ["head too large"]
    assert said(answer) == (431, {"error": "head: expected at most 32768 bytes, found more"})


def test_a_head_up_to_the_bound_and_a_large_body_in_one_piece_are_no_fault() -> None:
    request = (
        HEAD + b"content-length: 200000\r\nconnection: close\r\nx-much: " + b"y" * 30_000 + b"\r\n\r\n" + b"z" * 200_000
    )

    async def run() -> tuple[int, Any]:
        async with house() as here:
            return said(await here.ask(request))

    status, found = asyncio.run(run())
    assert (status, len(found["body"])) == (200, 200_000)


@pytest.mark.parametrize("endless", [b"x-trailer: y\r\n", b"x" * 1000])
def test_what_follows_a_chunked_body_is_bounded_too(endless: bytes) -> None:
    async def run() -> list[Refusal]:
        async with house() as here:
            _, writer = await here.open()
            writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
            for _ in range(3000):
                writer.write(endless)
                if writer.is_closing():
                    break
                try:
                    await writer.drain()
                except ConnectionError:
                    break
                await asyncio.sleep(0)
            while not here.cuts:
                await asyncio.sleep(0.01)
            return here.cuts

    assert [one.reason for one in asyncio.run(asyncio.wait_for(run(), 30))] == ["head too large"]


def test_who_waits_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY_S", 0.01)
    monkeypatch.setattr(module, "LINGER_S", 0.02)

    async def run() -> dict[str, bytes]:
        async with house(refuse_unread, header_s=0.05, idle_s=0.1) as here:
            asked = HEAD + b"content-length: 0\r\n\r\n"
            began = {
                "silent": b"",
                "half a head": HEAD,
                "idle": asked,
                "half the next head": asked + HEAD,
                "a body that nobody reads": HEAD + b"content-length: 1000\r\n\r\nx",
            }
            return dict(zip(began, await asyncio.gather(*map(here.ask, began.values())), strict=True))

    answers = asyncio.run(run())
    assert answers["silent"] == b""
    assert said(answers["half a head"]) == (408, {"error": "head: expected it within 0.05 seconds, found a part"})
    for name in ("idle", "half the next head", "a body that nobody reads"):
        assert answers[name].startswith(b"HTTP/1.1 413")


async def refuse_unread(scope: Any, receive: Any, send: Any) -> None:
    await Response("too large", 413)(scope, receive, send)


def test_where_there_are_too_many_connections_the_one_that_waited_longest_goes() -> None:
    async def run() -> None:
        async with house(max_connections=2) as here:
            first, second = await here.open(), await here.open()
            second[1].write(HEAD)
            status, found = said(await here.ask(HEAD + b"connection: close\r\ncontent-length: 1\r\n\r\na"))
            assert (status, found["body"]) == (200, "a")
            assert await first[0].read() == b""
            second[1].write(b"connection: close\r\ncontent-length: 1\r\n\r\nb")
            assert said(await second[0].read())[1]["body"] == "b"
            assert [one.reason for one in here.cuts] == ["too many connections"]

    asyncio.run(run())


def test_where_all_connections_are_busy_a_new_one_is_told_to_come_back() -> None:
    async def run() -> None:
        go_on, begun = asyncio.Event(), asyncio.Semaphore(0)

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            begun.release()
            await go_on.wait()
            await echo(scope, receive, send)

        request = HEAD + b"connection: close\r\ncontent-length: 1\r\n\r\na"
        async with house(slow, max_connections=2) as here:
            busy = [asyncio.create_task(here.ask(request)) for _ in range(2)]
            for _ in busy:
                await begun.acquire()
            turned_away = await here.ask(request)
            assert said(turned_away) == (503, {"error": "2 connections are open already"})
            assert b"retry-after: 1\r\n" in turned_away
            go_on.set()
            assert [said(answer)[0] for answer in await asyncio.gather(*busy)] == [200, 200]

    asyncio.run(run())


def test_what_is_not_http_is_told_so() -> None:
    async def run() -> list[tuple[int, Any]]:
        async with house() as here:
            return [
                said(await here.ask(one)) for one in (b"hello\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(100))
            ]

    expected = (400, {"error": "expected an HTTP/1.1 request, found something else"})
    assert asyncio.run(run()) == [expected] * 3


def test_requests_in_a_row_are_answered_in_their_order_up_to_a_bound() -> None:
    one = b"GET /%d HTTP/1.1\r\nhost: segue\r\n\r\n"

    async def run() -> tuple[bytes, bytes]:
        async with house() as here:
            few = b"".join(one % n for n in range(10)) + HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n"
            return await here.ask(few), await here.ask(one % 0 * 5000)

    few, many = asyncio.run(run())
    assert [int(part.partition(b'"')[0]) for part in few.split(b'"path": "/')[1:11] if part[:1].isdigit()] == [
        *range(10)
    ]
    assert many.count(b"HTTP/1.1") <= module.MAX_PIPELINED + 1
