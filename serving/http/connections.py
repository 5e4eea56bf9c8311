"""Connections: how many there may be, and how long and how large a request's head may be.

uvicorn reads heads of any size for any time, keeps connections that never ask for anything, and drops the body of a
request with `Upgrade: h2c`. This is its protocol with bounds, which are settings, and without upgrades.
"""

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httptools
import orjson
from uvicorn import config
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from segue.serving.http.callers import Callers
from segue.serving.http.refusal import Refusal, unavailable
from segue.serving.http.settings import Settings

SWEEP_EVERY_S = 1.0
LINGER_S = (
    5.0  # A body whose request has its answer is read and dropped for so long: closed at once, none would see it.
)
MAX_PIPELINED = 16  # Requests that wait on one connection for the answer to another.
SPARE_DESCRIPTORS = 16  # For files, for the other end of a reload, and for connections that are turned away.
TURNED_AWAY_AT_A_TIME = 8
DESCRIPTORS = Path("/proc/self/fd")


class Connections:
    """All connections of a worker. Those that wait for a request's head are closed in time, or to make room."""

    def __init__(
        self, settings: Settings, cut: Callable[[Refusal], None] = lambda _: None, callers: Callers | None = None
    ) -> None:
        """Take the bounds from the settings; `cut` is told why a connection is closed that no request came from.

        How many there are is written to `callers`.
        """
        self.settings = settings
        self.cut = cut
        self._callers = callers or Callers()
        self._most: int | None = None
        self._waiting: dict[Connection, float] = {}  # Until when, in the order in which they began to wait.
        self._turned_away: set[Connection] = set()
        self._all: set[Any] = set()
        self._is_sweeping = False

    def protocol(self, **how: Any) -> "Connection":
        """Return the protocol of a new connection, as uvicorn asks for it."""
        connection = Connection(self, **how)
        self._all = connection.connections  # uvicorn's set of those that are open.
        return connection

    def abandon(self) -> None:
        """Tell everybody who waits for an answer to come back; from any thread, when the event loop is stuck.

        What cannot be written at once is not, and a caller who has not asked yet is only cut off.
        """
        for connection in tuple(self._all):
            connection.abandon()

    @property
    def most(self) -> int:
        """How many there may be: by the settings, and by the descriptors that the process has left."""
        if self._most is None:  # At the first connection, when everything else is open.
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            is_known = soft != resource.RLIM_INFINITY and DESCRIPTORS.is_dir()
            left = (
                soft - len([*DESCRIPTORS.iterdir()]) - SPARE_DESCRIPTORS if is_known else self.settings.max_connections
            )
            self._most = max(min(self.settings.max_connections, left), 1)
        return self._most

    def admit(self, open_now: int) -> bool:
        """Tell whether a new connection may stay; where there are too many, the one that waited longest has to go."""
        if open_now - len(self._turned_away) <= self.most:
            return True
        self.cut(unavailable("too many connections", f"{self.most} connections are open already"))
        oldest = next((one for one in self._waiting if one not in self._turned_away), None)
        if oldest is None:
            return False
        oldest.drop()
        return True

    def turn_away(self, connection: "Connection") -> bool:
        """Tell whether a connection may be told that there are too many; if not, it is better dropped."""
        if len(self._turned_away) >= TURNED_AWAY_AT_A_TIME:
            return False
        self._turned_away.add(connection)
        return True

    def wait(self, connection: "Connection", seconds: float) -> None:
        """Give up the connection in so many seconds, unless it is `busy` before."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = connection.loop.time() + seconds
        if not self._is_sweeping:
            self._is_sweeping = True
            connection.loop.call_later(SWEEP_EVERY_S, self._sweep, connection.loop)

    def busy(self, connection: "Connection") -> None:
        """Let a connection be: a request is there."""
        self._waiting.pop(connection, None)

    def count(self) -> None:
        """Let the other workers know how many there are."""
        self._callers.are(len(self._all))

    def lost(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._waiting.pop(connection, None)
        self._turned_away.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [one for one, until in self._waiting.items() if until <= now]:
            connection.give_up()
        self._is_sweeping = bool(self._waiting)
        if self._is_sweeping:
            loop.call_later(SWEEP_EVERY_S, self._sweep, loop)


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, connections: Connections, **how: Any) -> None:
        """Belong to `connections`; the rest is uvicorn's."""
        super().__init__(**how)
        self.ws_protocol_class = None  # There is nothing to upgrade to.
        self._all = connections
        self._settings = connections.settings
        self._is_turned_away = False
        self._in_head = True
        self._unread_bytes = 0  # Of a head, or of what follows a body, since the last thing that was understood.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, unless there are too many connections."""
        super().connection_made(transport)
        self._all.count()
        # asyncio does that for sockets that say they are TCP's, and those that BentoML hands to its workers do not. An
        # answer in two parts would wait for the caller to acknowledge the first one, which takes 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._all.admit(len(self.connections)):
            self._all.wait(self, self._settings.header_s)
        else:
            self._turn_away(unavailable("too many connections", f"{self._all.most} connections are open already"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._all.lost(self)
        super().connection_lost(exc)
        self._all.count()

    def data_received(self, data: bytes) -> None:
        """Read some bytes; a head that is too large, or not HTTP, is refused."""
        if self._is_turned_away:
            return
        most = self._settings.max_header_bytes
        self._unread_bytes += len(data)
        is_http = True
        try:
            self._feed(data)
        except httptools.HttpParserError:
            is_http = False
        if self._unread_bytes > most:
            self._refuse(Refusal(431, "head too large", f"head: expected at most {most} bytes, found more"))
        elif not is_http:
            self._refuse(Refusal(400, "malformed head", "expected an HTTP/1.1 request, found something else"))
        elif self._in_head and self._is_idle and self._unread_bytes == len(data):  # The first bytes of a head.
            self._all.wait(self, self._settings.header_s)

    def _feed(self, data: bytes) -> None:
        """Parse bytes. Where the parser stops at an upgrade, it is given the same head without it."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserError from None
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _head_without_upgrade(self) -> bytes:
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        return b"".join([first, *kept, b"\r\n"])

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one that follows the body is of no interest."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self.parser.should_upgrade():
            return
        most = self._settings.max_header_bytes
        if self._unread_bytes > most:  # Of head and body. Else the head alone has fewer.
            head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head_bytes > most:
                raise httptools.HttpParserError
        self._unread_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise httptools.HttpParserError
        self._in_head = False
        self._all.busy(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._unread_bytes = 0
        super().on_message_complete()
        if self._is_idle:
            self._all.wait(self, self._settings.idle_s)

    def on_response_complete(self) -> None:
        """Begin the next request, or wait for it; a body that has not come by now is dropped for some seconds."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._all.wait(self, self._settings.idle_s if self._in_head else LINGER_S)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def give_up(self) -> None:
        """Close a connection that waited too long; one that has begun a head is told so."""
        if self._unread_bytes and self._in_head and self._is_idle and not self._is_turned_away:
            seconds = self._settings.header_s
            self._refuse(Refusal(408, "head too slow", f"head: expected it within {seconds:g} seconds, found a part"))
        else:
            self.drop()

    def drop(self) -> None:
        """Close the connection; an answer that nobody reads goes with it."""
        self._all.lost(self)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def abandon(self) -> None:
        """Answer what was asked by now with 503, past the event loop."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        has_asked = not self._is_idle and not self.cycle.response_started
        with suppress(OSError):  # Nothing to read, nobody to read it.
            has_asked |= bool(os.read(descriptor, 2**20))  # What is left unread would take the answer with it.
        if has_asked:
            with suppress(OSError):
                os.write(descriptor, _answer(unavailable("student failed", "a model hangs; this worker starts anew")))

    def _refuse(self, refusal: Refusal) -> None:
        self._all.cut(refusal)
        if self._is_idle:
            self._turn_away(refusal)
        else:  # The answer would be taken for that to an earlier request.
            self.drop()

    def _turn_away(self, refusal: Refusal) -> None:
        """Say why, and read and drop what comes for a while: closed at once, the caller might not see the answer."""
        self.transport.write(_answer(refusal))
        if self._all.turn_away(self):
            self._is_turned_away = True
            self.transport.write_eof()
            self._all.wait(self, LINGER_S)
        else:
            self.drop()


class Exchange(RequestResponseCycle):
    """A request and its answer, as uvicorn's; an answer that is there as a whole goes out as a whole."""

    _start: Any = None  # The first of the two messages that an answer is.

    async def send(self, message: Any) -> None:
        """Take a message of ASGI; write an answer once its body is there."""
        start = self._start
        if start is None and not self.response_started:
            self._start = message
        elif start is None:
            await super().send(message)
        else:
            self._start = None
            if message["type"] == "http.response.body" and not message.get("more_body", False) and _is_plain(start):
                await self._send_whole(start["status"], start["headers"], message.get("body", b""))
            else:
                await super().send(start)
                await super().send(message)

    async def _send_whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.waiting_for_100_continue = False
        self.response_started = self.response_complete = True
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers)]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join([*lines, b"\r\n", b"" if self.scope["method"] == "HEAD" else body]))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _is_plain(start: Any) -> bool:
    """Tell whether an answer that begins so has a length, and nothing that uvicorn had better look at."""
    has_length = False
    for name, value in start["headers"]:
        if name in (b"connection", b"transfer-encoding") or b"\n" in value or b"\r" in value:
            return False
        has_length |= name == b"content-length"
    return has_length


def _answer(refusal: Refusal) -> bytes:
    body = orjson.dumps({"error": refusal.message})
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    lines = [f"{name}: {value}\r\n".encode() for name, value in (headers | refusal.headers).items()]
    return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body])


def serve_with(connections: Connections) -> None:
    """Let the server that uvicorn starts in this process take these connections; BentoML has no setting for it."""
    httptools_impl.RequestResponseCycle = Exchange  # type: ignore[misc]
    config.HTTP_PROTOCOLS["auto"] = connections.protocol  # type: ignore[assignment]
