"""
Redaction of secrets, balances and positions in logs, health answers and error texts.

Three rules: the configured secrets are replaced wherever they occur, in any usual encoding; a value that follows a
sensitive name (`sign=`, `X-BAPI-API-KEY: `, `"walletBalance":`) is replaced; a field with a sensitive name loses its
value.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from urllib.parse import quote, quote_plus
from uuid import UUID

HIDDEN = "<hidden>"
_SHORT_SECRET_LENGTH = 4
_MAX_DEPTH = 8
_PLAIN_TYPES = (bool, int, float, type(None))
_TYPES_SHOWN_AS_TEXT = (Decimal, date, timedelta, PurePath, UUID)

# `position` is the number of a frame in its journal; only the plural refers to an account.
_SENSITIVE = re.compile(
    r"secret|passw|passphrase|credential|authorization|apikey|signature|^sign$|^xbapi(?!limit)"
    r"|balance|wallet|equity|positions|collateralinfo|loaninfo|pnl$"
    r"|^margin$|upl$|usdvalue|(?:initial|maintenance)margin|account[im]mrate|accruedinterest|borrowamount",
)
_IN_TEXT = re.compile(
    r"""(?ix)
    (?P<name>["']? \b(?: x-bapi-(?!limit)[a-z-]{1,40} | api[_-]?(?:key|secret) | sign(?:ature)? | secret | password
        | authorization | \w{0,40}balance | \w{0,40}equity )\b ["']? \s* [:=] \s*)
    (?P<value> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [^\s,;&})\]]+ )
    """
)
_SIGNATURE = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{64}(?![0-9A-Za-z])")


class Redaction:
    """Replaces the given secrets, and text that looks like a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {each for secret in secrets if secret for each in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(_pattern, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        text = self.known(text)
        text = _IN_TEXT.sub(rf"\g<name>{HIDDEN}", text)
        return _SIGNATURE.sub(HIDDEN, text)

    def known(self, text: str) -> str:
        """Return the text without the secrets given to the constructor; nothing else changes."""
        return self._known.sub(HIDDEN, text) if self._known else text

    def value(self, value: object, name: str = "", depth: int = 0) -> object:
        """
        Return the part of a value that may be shown: texts, numbers, lists and maps of them.

        Any other object is shown by its type only, since its `repr` may contain anything.
        """
        if value is not None and _is_sensitive(name):
            return HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, _PLAIN_TYPES):
            return self._number(value)
        if isinstance(value, Enum):
            return self.value(value.value, depth=depth)
        if isinstance(value, _TYPES_SHOWN_AS_TEXT):
            return self.text(str(value))
        if isinstance(value, BaseException):
            return self.text(f"{type(value).__name__}: {value}")
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        return self._container(value, depth)

    def _container(self, value: object, depth: int) -> object:
        if depth >= _MAX_DEPTH:
            return "<too deep>"
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(each, str(key), depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple | Set):
            return [self.value(each, depth=depth + 1) for each in value]
        return f"<{type(value).__name__}>"

    def _number(self, value: object) -> object:
        """Hide a number that is a secret, such as a password of digits."""
        return HIDDEN if self._known and self._known.fullmatch(str(value)) else value


def _is_sensitive(name: str) -> bool:
    return bool(name) and _SENSITIVE.search(name.lower().replace("_", "").replace("-", "")) is not None


def _pattern(spelling: str) -> str:
    # A very short secret is replaced only as a separate word; otherwise most of the text would be hidden.
    escaped = re.escape(spelling)
    return escaped if len(spelling) >= _SHORT_SECRET_LENGTH else rf"(?<!\w){escaped}(?!\w)"


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret unchanged, line by line, and as encoded in URLs, base64, JSON and Python's `repr`."""
    yield secret
    yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= _SHORT_SECRET_LENGTH)
    raw = secret.encode("utf-8", "surrogatepass")
    if len(secret) >= _SHORT_SECRET_LENGTH:
        for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
            yield encoded.decode().rstrip("=")
        yield raw.hex()
    yield quote(raw, safe="")
    yield quote(raw)
    yield quote_plus(raw)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield repr(secret)[1:-1].replace("'", "\\'")
    yield ascii(secret)[1:-1]
    yield repr(raw)[2:-1]
