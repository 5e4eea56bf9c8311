"""Bearer tokens: who may classify, and who may reload."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Self

from segue.errors import ConfigError
from segue.serving.http.settings import Settings

ADMIN = "admin"


@dataclass(frozen=True)
class Tokens:
    """The sha256 of every token, by its holder's name."""

    callers: dict[str, bytes]  # Empty: anybody may classify.
    admin: bytes | None  # None: nobody may reload.

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the tokens of the settings and of their file; a `ConfigError` says which line is not one."""
        lines = {f"SEGUE_TOKENS, entry {n}": line for n, line in enumerate(settings.tokens, 1)}
        if settings.tokens_file is not None:
            try:
                text = settings.tokens_file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{settings.tokens_file}: expected a file of tokens: {error}") from None
            lines |= {f"{settings.tokens_file}, line {n}": line for n, line in enumerate(text.splitlines(), 1)}
        found: dict[str, bytes] = {}
        for where, line in lines.items():
            if not line.strip() or line.startswith("#"):
                continue
            name, separator, token = (part.strip() for part in line.partition("="))
            if not (name and separator and token):
                raise ConfigError(f"{where}: expected name=token, found something else")
            if name in found:
                raise ConfigError(f"{where}: there is another token called {name!r}")
            found[name] = _digest(token.encode())
        admin = found.pop(ADMIN, None)
        return cls(found, admin)

    def caller(self, authorization: bytes) -> str | None:
        """Return the name of whose token an Authorization header carries; None if nobody's."""
        found = None
        for name, digest in self.callers.items():
            if _matches(authorization, digest):  # Every token is compared, so that the time taken tells nothing.
                found = name
        return found

    def is_admin(self, authorization: bytes) -> bool:
        """Tell whether an Authorization header carries the admin's token."""
        return self.admin is not None and _matches(authorization, self.admin)


def _matches(authorization: bytes, digest: bytes) -> bool:
    scheme, _, token = authorization.partition(b" ")
    return hmac.compare_digest(_digest(token.strip()), digest) and scheme.lower() == b"bearer"


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
