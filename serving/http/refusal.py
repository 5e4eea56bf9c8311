"""A request that is not answered: one status, one reason for the metrics, one message for the caller."""

from typing import Literal

Reason = Literal[
    "malformed body",
    "bad body",
    "bad dial",
    "bad query",
    "bad header",
    "unsupported type",
    "too large",
    "too many songs",
    "no token",
    "no such path",
    "no such method",
    "head too large",
    "head too slow",
    "malformed head",
    "body too slow",
    "too many connections",
    "too many bytes",
    "too many requests",
    "queue full",
    "deadline",
    "caller gone",
    "student failed",
    "teacher failed",
    "teacher full",
    "bad bundle",
    "internal error",
]


class Refusal(Exception):  # noqa: N818 - it is what the service answers, not what went wrong in it.
    """Why a request gets no answer."""

    def __init__(self, status: int, reason: Reason, message: str, headers: dict[str, str] | None = None) -> None:
        """Refuse with an HTTP status, a reason to count, a message to send, and headers to send with it."""
        super().__init__(message)
        self.status = status
        self.reason: Reason = reason
        self.message = message
        self.headers = headers or {}


def unavailable(reason: Reason, message: str) -> Refusal:
    """Return a 503 that says when to try again."""
    return Refusal(503, reason, message, {"retry-after": "1"})


def internal_error() -> Refusal:
    """Return a 500 that says nothing of what went wrong."""
    return Refusal(500, "internal error", "internal error; the log says more under this request's id")
