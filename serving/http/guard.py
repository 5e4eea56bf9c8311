"""What every request passes first, limits and tokens, and what every answer gets: headers, a count, a line in the log.

Requests under /v1 go on to the data path, those for probes, metrics and documentation to BentoML. There are no others.
"""

import logging
import random
import re
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segue.serving.http.app import refused
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.refusal import Reason, Refusal, internal_error, unavailable
from segue.serving.http.settings import Settings
from segue.serving.http.tokens import Tokens

DATA_PATHS = ("/v1/classify", "/v1/model", "/v1/tradeoff", "/v1/admin/reload")
BENTOML_PATHS = ("/", "/docs.json", "/schema.json", "/livez", "/healthz", "/readyz", "/metrics")
BUSY: frozenset[Reason] = frozenset({"too many requests", "queue full", "teacher full"})
GIVEN_ONCE = (b"authorization", b"content-type", b"content-encoding", b"content-length", b"x-request-id")
LOG_BUSY_EVERY_S = 1.0
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    # Swagger's page has styles in its elements and pictures in its style sheet.
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"),
)

logger = logging.getLogger(__name__)
request_id: ContextVar[str] = ContextVar("request_id", default="")


class Guard:
    """The outermost ASGI app."""

    def __init__(self, data: ASGIApp, bentoml: ASGIApp, bentoml_paths: tuple[str, ...]) -> None:
        """Stand before the data path and before BentoML, whose paths are listed."""
        self._data = data
        self._bentoml = bentoml
        self._bentoml_paths = frozenset(bentoml_paths)
        self._in_flight = 0
        self._told_to_come_back = 0  # Since the last line in the log that says so.
        self._log_busy_at = 0.0

    def begin(self, settings: Settings, tokens: Tokens, monitoring: Monitoring) -> None:
        """Take the settings, once BentoML has started the service."""
        self._settings = settings
        self._tokens = tokens
        self._monitoring = monitoring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        own_id = given if REQUEST_ID.fullmatch(given) else b"%016x" % random.getrandbits(64)
        request_id.set(own_id.decode())
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", own_id), *SECURITY_HEADERS]
            await send(message)

        try:
            self._in_flight += 1
            app, receive_some = self._admit(scope, headers, receive)
            await app(scope, receive_some, send_on)
        except Refusal as refusal:
            scope["segue.refusal"] = refusal.reason
            await refused(refusal)(scope, receive, send_on)
        except Exception:
            logger.exception("internal error")
            scope["segue.refusal"] = "internal error"
            if not status:
                await refused(internal_error())(scope, receive, send_on)
        finally:
            self._in_flight -= 1
        self._record(scope, status, time.perf_counter() - started)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> tuple[ASGIApp, Receive]:
        """Return who answers a request, and how its body is read; a `Refusal` if nobody may."""
        path: str = scope["path"]
        if path in self._bentoml_paths:
            return self._bentoml, receive
        if path not in DATA_PATHS:
            raise Refusal(404, "no such path", "there is nothing at this path; / lists what there is")
        if len(headers) < len(scope["headers"]):
            _refuse_repeated(scope["headers"])
        self._authorize(scope, path, headers.get(b"authorization", b""))
        most, settings = self._settings.max_body_bytes, self._settings
        if self._in_flight > settings.max_requests:
            raise unavailable("too many requests", f"{settings.max_requests} requests are in flight already")
        declared = headers.get(b"content-length", b"")
        if declared.isdigit():
            if int(declared) > most:
                raise Refusal(413, "too large", f"body: expected at most {most} bytes, found {declared[:20].decode()}")
            return self._data, receive
        return self._data, _at_most(most, receive)

    def _authorize(self, scope: Scope, path: str, authorization: bytes) -> None:
        scope["segue.caller"] = None
        if path.startswith("/v1/admin/"):
            if self._tokens.admin is None:
                raise Refusal(403, "no token", "nobody may do this: the server has no token called admin")
            if not self._tokens.is_admin(authorization):
                raise Refusal(401, "no token", "expected the admin's bearer token", {"www-authenticate": "Bearer"})
            scope["segue.caller"] = "admin"
        elif self._tokens.callers:
            caller = self._tokens.caller(authorization)
            if caller is None:
                raise Refusal(401, "no token", "expected a bearer token of this server", {"www-authenticate": "Bearer"})
            scope["segue.caller"] = caller

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        if path not in DATA_PATHS and path not in BENTOML_PATHS:
            path = "other"
        reason = scope.get("segue.refusal")
        self._monitoring.requested(path, status, seconds, reason)
        if reason in BUSY and not self._settings.log_requests:
            self._log_busy(reason)
        elif reason is not None or self._settings.log_requests:
            facts: dict[str, Any] = {
                "path": path,
                "status": status,
                "milliseconds": round(seconds * 1e3, 3),
                "reason": reason,
                "caller": scope.get("segue.caller"),
            }
            logger.info("request", extra={name: fact for name, fact in facts.items() if fact is not None})

    def _log_busy(self, reason: Reason) -> None:
        """Log how many requests were told to come back, once a second: a line each would take longer than they do."""
        self._told_to_come_back += 1
        now = time.monotonic()
        if now >= self._log_busy_at:
            logger.warning("busy", extra={"told_to_come_back": self._told_to_come_back, "reason": reason})
            self._told_to_come_back, self._log_busy_at = 0, now + LOG_BUSY_EVERY_S


def _refuse_repeated(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a request that says one thing twice: whichever we took, its sender may have meant the other."""
    names = [name for name, _ in headers]
    for name in GIVEN_ONCE:
        if names.count(name) > 1:
            raise Refusal(
                400, "bad header", f"{name.decode()}: expected this header once, found it {names.count(name)} times"
            )


def _at_most(most: int, receive: Receive) -> Receive:
    """Read a body of undeclared length, and refuse it where it grows past `most` bytes."""
    found = 0

    async def receive_some() -> Message:
        nonlocal found
        message = await receive()
        found += len(message.get("body", b""))
        if found > most:
            raise Refusal(413, "too large", f"body: expected at most {most} bytes, found more")
        return message

    return receive_some
