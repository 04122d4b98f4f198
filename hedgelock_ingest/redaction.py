"""
Keep secrets, balances and positions out of whatever people can read: logs, health answers, error texts.

Three nets: the configured secrets are replaced wherever they stand, in any usual spelling; what follows a telling
name (`sign=`, `X-BAPI-API-KEY: `, `"walletBalance":`) is replaced; a field with a telling name loses its value.
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
_SHORT = 4
_DEEPEST = 8
_AS_IT_IS = (bool, int, float, type(None))
_AS_TEXT = (Decimal, date, timedelta, PurePath, UUID)

# `position` is the number of a frame in its journal, so only the plural tells of an account.
_SENSITIVE = re.compile(
    r"secret|passw|passphrase|credential|authorization|apikey|signature|^sign$|^xbapi(?!limit)"
    r"|balance|wallet|equity|positions|collateralinfo|loaninfo|pnl$",
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
    """Replaces the given secrets, and whatever looks like one."""

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
        """Return the text without the secrets given at the start; nothing else changes."""
        return self._known.sub(HIDDEN, text) if self._known else text

    def value(self, value: object, name: str = "", depth: int = 0) -> object:
        """
        Return what may be shown of a value: only texts, numbers, lists and maps of them.

        Of any other object only the type is shown, since its `repr` may hold anything.
        """
        if value is not None and _is_sensitive(name):
            return HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, _AS_IT_IS):
            return self._number(value)
        if isinstance(value, Enum):
            return self.value(value.value, depth=depth)
        if isinstance(value, _AS_TEXT):
            return self.text(str(value))
        if isinstance(value, BaseException):
            return self.text(f"{type(value).__name__}: {value}")
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        return self._container(value, depth)

    def _container(self, value: object, depth: int) -> object:
        if depth >= _DEEPEST:
            return "<too deep>"
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(each, str(key), depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple | Set):
            return [self.value(each, depth=depth + 1) for each in value]
        return f"<{type(value).__name__}>"

    def _number(self, value: object) -> object:
        """A password of digits may be logged as a number."""
        return HIDDEN if self._known and self._known.fullmatch(str(value)) else value


def _is_sensitive(name: str) -> bool:
    return bool(name) and _SENSITIVE.search(name.lower().replace("_", "").replace("-", "")) is not None


def _pattern(spelling: str) -> str:
    # A very short secret is only replaced where it stands alone, or it would blot out whole lines.
    escaped = re.escape(spelling)
    return escaped if len(spelling) >= _SHORT else rf"(?<!\w){escaped}(?!\w)"


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, line by line, and as URLs, base64, JSON and Python's `repr` would write it."""
    yield secret
    yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= _SHORT)
    raw = secret.encode("utf-8", "surrogatepass")
    if len(secret) >= _SHORT:
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
