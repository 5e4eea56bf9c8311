"""What every request passes first, limits and tokens, and what every answer gets: headers, a count, a line in the log.

A request under /v1 goes to its endpoint once its body is complete, and is in flight only then: who sends slowly takes
nobody's place. Those for probes, metrics and documents go to BentoML. There are no others.
"""

import logging
import random
import re
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segue.serving.http.bundle_slot import BundleSlot
from segue.serving.http.deadlines import Deadlines
from segue.serving.http.endpoints.endpoint import Asked, Endpoint, Response, by_path, json_response
from segue.serving.http.receiving import Bodies
from segue.serving.http.refusal import Reason, Refusal, internal_error, unavailable
from segue.serving.http.tokens import Tokens

BENTOML_PATHS = ("/", "/docs.json", "/schema.json", "/livez", "/healthz", "/readyz", "/metrics")
# Many come at a time: a line in the log for each would take longer than they do.
BUSY: frozenset[Reason] = frozenset(
    {"too many requests", "too many bytes", "too many connections", "queue full", "teacher full",
     "head too large", "head too slow", "malformed head"}
)  # fmt: skip
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

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        slot: BundleSlot,
        tokens: Tokens,
        bentoml: ASGIApp,
        bentoml_paths: Sequence[str] = BENTOML_PATHS,
    ) -> None:
        """Stand before the endpoints, which answer with what is in `slot`, and before BentoML's paths."""
        self._endpoints = by_path(endpoints)
        self._slot = slot
        self._settings = slot.settings
        self._monitoring = slot.monitoring
        self._tokens = tokens
        self._bentoml = bentoml
        self._bentoml_paths = frozenset(bentoml_paths)
        self._deadlines = Deadlines()
        folder = self._settings.server_folder
        self._bodies = Bodies(
            max_body_bytes=self._settings.max_body_bytes,
            least_rate=self._settings.least_body_rate,
            deadlines=self._deadlines,
            lock=folder and folder / "large-bodies",
        )
        self._in_flight = 0
        self._busy: dict[Reason, int] = {}  # Since the last line in the log that says so.
        self._log_busy_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        own_id = given if given and REQUEST_ID.fullmatch(given) else b"%016x" % random.getrandbits(64)
        request_id.set(own_id.decode())
        ours = ((b"x-request-id", own_id), *SECURITY_HEADERS)
        status = 0
        reason: Reason | None = None

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        try:
            if scope["path"] in self._bentoml_paths:
                await self._bentoml(scope, receive, send_on)
            else:
                response = await self._answer(scope, headers, receive)
                status = response.status
                await _send(response, ours, send)
        except Refusal as refusal:
            reason, status = refusal.reason, refusal.status
            await _send(refused(refusal), ours, send)
        except (ClientDisconnect, ConnectionError):
            reason, status = "caller gone", 499
        except Exception:
            logger.exception("internal error")
            reason = "internal error"
            if not status:
                status = 500
                await _send(refused(internal_error()), ours, send)
        self._record(scope, status, time.perf_counter() - started, reason)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Response:
        """Return an endpoint's answer; a `Refusal` if there is none."""
        endpoint = self._endpoint(scope)
        self._authorize(scope, endpoint, headers)
        query = _query(endpoint, scope["query_string"]) if scope["query_string"] else {}
        settings = self._settings
        self._refuse_if_full()
        body = b""
        if endpoint.body is not None:
            declared = headers.get(b"content-length", b"")
            if declared.isdigit() and int(declared) > settings.max_body_bytes:
                most = settings.max_body_bytes
                raise Refusal(413, "too large", f"body: expected at most {most} bytes, found {declared[:20].decode()}")
            body = await self._bodies.receive(receive)
            self._refuse_if_full()
        accept = ", ".join([value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"])
        self._in_flight += 1
        try:
            return await endpoint.answer(
                Asked(headers, accept, query, body, self._slot, self._bodies, self._deadlines, receive)
            )
        finally:
            self._in_flight -= 1

    def _endpoint(self, scope: Scope) -> Endpoint:
        methods = self._endpoints.get(scope["path"])
        if methods is None:
            raise Refusal(404, "no such path", "there is nothing at this path; / lists what there is")
        endpoint = methods.get(scope["method"])
        if endpoint is None:
            allowed = ", ".join(methods)
            raise Refusal(405, "no such method", f"method: expected {allowed}, found another", {"allow": allowed})
        return endpoint

    def _authorize(self, scope: Scope, endpoint: Endpoint, headers: dict[bytes, bytes]) -> None:
        if len(headers) < len(scope["headers"]):
            _refuse_repeated(scope["headers"])
        authorization = headers.get(b"authorization", b"")
        scope["segue.caller"] = None
        if endpoint.role == "admin":
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

    def _refuse_if_full(self) -> None:
        most = self._settings.max_requests
        if self._in_flight >= most:
            raise unavailable("too many requests", f"{most} requests are in flight already")

    def cut(self, refusal: Refusal) -> None:
        """Count and log a connection that was closed before a request came from it."""
        self._monitoring.requested("other", refusal.status, 0.0, refusal.reason)
        self._log_busy(refusal.reason)

    def _record(self, scope: Scope, status: int, seconds: float, reason: Reason | None) -> None:
        path = scope["path"]
        if path not in self._endpoints and path not in BENTOML_PATHS:
            path = "other"
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
        """Log how many were told to come back, or were closed, and why, once a second."""
        self._busy[reason] = self._busy.get(reason, 0) + 1
        now = time.monotonic()
        if now >= self._log_busy_at:
            logger.warning("busy", extra={"told_to_come_back": sum(self._busy.values()), "reasons": self._busy})
            self._busy, self._log_busy_at = {}, now + LOG_BUSY_EVERY_S


def refused(refusal: Refusal) -> Response:
    """Return the answer that a refusal is."""
    return json_response({"error": refusal.message}, refusal.status, refusal.headers)


async def _send(response: Response, ours: Sequence[tuple[bytes, bytes]], send: Send) -> None:
    """Send a whole answer, with headers of ours."""
    headers = [
        (b"content-type", response.media_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *((name.encode(), value.encode()) for name, value in response.headers.items()),
        *ours,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _query(endpoint: Endpoint, query: bytes) -> dict[str, str]:
    """Return the parameters of a query; a `Refusal` if the endpoint does not know one, or one is there twice."""
    values: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in endpoint.query:
            expected = " or ".join(endpoint.query) or "nothing"
            raise Refusal(422, "bad query", f"query: expected {expected}, found {name!r:.80}")
        if name in values:
            raise Refusal(422, "bad query", f"query: expected {name} once, found it twice")
        values[name] = value
    return values


def _refuse_repeated(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a request that says one thing twice: whichever we took, its sender may have meant the other."""
    names = [name for name, _ in headers]
    for name in GIVEN_ONCE:
        if (found := names.count(name)) > 1:
            raise Refusal(400, "bad header", f"{name.decode()}: expected this header once, found it {found} times")
