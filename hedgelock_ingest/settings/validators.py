"""Validators of single settings: each returns the normalised value, or raises ValueError with the reason."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from hedgelock_ingest.models.topics import CONTRACTS

_FEED = re.compile(r"tickers|publicTrade|allLiquidation|orderbook\.(1|50|200|1000)")
_SYMBOL = re.compile(r"[A-Z0-9]{2,}(-[A-Z0-9]+)*")
_SHARD = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KAFKA_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ACCOUNT = re.compile(r"[^\s:]{1,128}")
_TYPES = tuple(contract.message.__name__ for contract in CONTRACTS.values())
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):(\d{1,5})")


def split_list(value: object) -> object:
    """Split text at commas and remove duplicates; a list is only deduplicated. The order is kept."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(value))
    return value


def split_routes(value: object) -> object:
    """Write a mapping from types to topics as texts TYPE=TOPIC; text is split at commas."""
    if isinstance(value, Mapping):
        return tuple(f"{kind}={name}" for kind, names in value.items() for name in _names(names))
    return split_list(value) if isinstance(value, str) else value


def _names(value: object) -> Iterator[object]:
    names = split_list(value) if isinstance(value, str) else value
    yield from names if isinstance(names, list | tuple) and names else (value,)


def integer(value: object) -> object:
    """Convert text of digits to a number; any other value is left to the next validator."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def upper(value: object) -> object:
    """Convert text to upper case, so that `info` is accepted for `INFO`."""
    return value.upper() if isinstance(value, str) else value


def symbol(text: str) -> str:
    """Accept a symbol as Bybit writes it."""
    if not _SYMBOL.fullmatch(text):
        hint = f', "{text.upper()}" perhaps' if _SYMBOL.fullmatch(text.upper()) else ""
        raise ValueError(f'"{text}" is no symbol{hint}')
    return text


def feed(text: str) -> str:
    """Accept the part of a channel before the symbol."""
    if not _FEED.fullmatch(text):
        raise ValueError(f'"{text}" is no feed')
    return text


def shard_name(text: str) -> str:
    """Accept a name that can be a folder and a partition of Dagster."""
    if not _SHARD.fullmatch(text):
        raise ValueError(f'"{text}" cannot name a shard')
    return text


def topic_name(text: str) -> str:
    """Accept a topic name that is valid in Kafka."""
    if not _KAFKA_NAME.fullmatch(text) or text in {".", ".."}:
        raise ValueError("Kafka does not take this name")
    return text


def route(text: str) -> str:
    """Accept TYPE=TOPIC: a type of message, and a topic that it is sent to, too."""
    kind, equals, name = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError(f'"{text}" is not TYPE=TOPIC')
    if kind not in _TYPES:
        raise ValueError(f'"{kind}" is no type of message; types: {", ".join(_TYPES)}')
    if not _KAFKA_NAME.fullmatch(name) or name in {".", ".."} or name.startswith("__"):
        raise ValueError(f'"{name}" cannot be the name of a topic for copies')
    return f"{kind}={name}"


def account_id(text: str) -> str:
    """Accept an account's name; a colon separates the parts of a record's key."""
    if not _ACCOUNT.fullmatch(text):
        raise ValueError("this cannot be a part of a record's key")
    return text


def api_key(secret: SecretStr) -> SecretStr:
    """Accept text that is valid in an HTTP header."""
    text = secret.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it holds spaces or characters that no key has")
    return secret


def websocket_url(text: str) -> str:
    """Accept a WebSocket address; a trailing slash is removed."""
    return _address(text, {"ws", "wss"})


def http_url(text: str) -> str:
    """Accept the address of a REST host, without a path."""
    cleaned = _address(text, {"http", "https"})
    if urlsplit(cleaned).path:
        raise ValueError("it has a path, but paths such as /v5/market/time are appended by the client")
    return cleaned


def webhook_url(secret: SecretStr) -> SecretStr:
    """Accept an address for posting messages; it is a secret, since knowing it is enough to post."""
    found = urlsplit(secret.get_secret_value())
    if found.scheme not in {"http", "https"} or not found.hostname:
        raise ValueError("it is no http:// or https:// address")
    return secret


def bootstrap_servers(text: str) -> str:
    """Accept `host:port` of one or more brokers, separated by commas."""
    servers = [part.strip() for part in text.split(",") if part.strip()]
    for server in servers:
        found = _SERVER.fullmatch(server)
        if found is None or not 0 < int(found[2]) < 65536:
            raise ValueError(f'"{server}" is not host:port')
    if not servers:
        raise ValueError("no server is named")
    return ",".join(servers)


def existing_file(path: Path) -> Path:
    """Accept an existing file."""
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def _address(text: str, schemes: set[str]) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("this is no address") from None
    if parts.scheme not in schemes or not parts.hostname or port == 0 or re.search(r"\s", text):
        raise ValueError("this is no such address")
    if parts.username or parts.password:
        raise ValueError("an address must not contain a user or a password")
    if parts.query or parts.fragment:
        raise ValueError("nothing may follow after a ? or #")
    return text.rstrip("/")
