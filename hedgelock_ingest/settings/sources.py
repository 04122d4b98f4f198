"""Sources of the settings: the environment and a YAML file, read alike; all errors are reported at once."""

import difflib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.settings.authorities import authority_problems
from hedgelock_ingest.settings.conflicts import conflicts
from hedgelock_ingest.settings.model import Settings, shown_value
from hedgelock_ingest.settings.proxies import is_any_set, no_proxy, proxy_for

DEFAULT_FILE = Path("config/collector.yaml")
ENVIRONMENT = "environment"
_OUR_PREFIXES = ("BYBIT_", "KAFKA_", "JOURNAL_", "MONITORING_", "STREAM_", "ORDER_BOOK_")
_MAY_BE_EMPTY = {"bybit_spot_symbols", "bybit_linear_symbols", "bybit_public_feeds"}
_ADDRESSES = ("bybit_public_ws_url", "bybit_private_ws_url", "bybit_rest_url")
_MAX_SHOWN_CHARACTERS = 100
_SIMILAR = 0.81
"""Similarity from which a name is proposed: BYBIT_KEY is similar to BYBIT_API_KEY, BYBIT_TYPO not to BYBIT_POLLS."""
_STRAIGHT_QUOTES = frozenset("\"'`")
_CURVED_QUOTES = frozenset("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a")
_NAMES = {name.upper(): name for name in Settings.model_fields}
_SECRETS = {name for name, declared in Settings.model_fields.items() if SecretStr.__name__ in str(declared.annotation)}
_EXACT = _SECRETS | {"kafka_sasl_username"}
"""Settings whose value is not cut: a space at its beginning or end may be a part of it, or a mistake to report."""
_KEYS = {"bybit_api_key", "bybit_api_secret", "alert_webhook_url"}
"""Those of them whose value never begins or ends with a quote or a space."""


@dataclass(slots=True)
class _Found:
    """Values of the sources by field, and the problems found while reading them."""

    value_by_field: dict[str, Any] = field(default_factory=dict)
    origin_by_field: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, name: str, value: Any, origin: str) -> None:
        """
        Keep a value, replacing that of an earlier source; an empty one counts as not set, except in lists.

        Whitespace around a value is dropped. Where it may be a part of the value, only the end of the line is.
        """
        setting = _NAMES[name]
        if isinstance(value, str) and setting not in Settings.NOT_IN_ENVIRONMENT:
            value = value.strip("\r\n")
            value = value if value.strip() and setting in _EXACT else value.strip()
            reason = _stray_characters(setting, value, origin)
            if reason is not None:
                self.refused.add(setting)
                self.problems.append(f"{name} ({origin}): {_with_value(setting, value, reason)}")
                return
        if value != "" or setting in _MAY_BE_EMPTY:
            self.value_by_field[setting] = value
            self.origin_by_field[setting] = origin


def _stray_characters(field_name: str, value: str, origin: str) -> str | None:
    """
    Describe what in a value is probably no part of it, and the action to take, without the value; None if nothing is.

    In the file, YAML has removed its own quotes: straight ones and spaces that are left are meant.
    """
    is_from_file = origin != ENVIRONMENT
    quotes = _CURVED_QUOTES if is_from_file else _CURVED_QUOTES | _STRAIGHT_QUOTES
    may_be_meant = field_name in _EXACT - _KEYS
    other = "; if it is meant, choose another value" if may_be_meant else ""
    in_file = ", or set it in the file, where YAML removes its own quotes" if may_be_meant else ""
    if not _is_utf8(value):
        return "it is not UTF-8 text; correct its encoding"
    ends = {value[:1], value[-1:]}
    if ends <= quotes and ends & _CURVED_QUOTES:
        return (
            f"it begins and ends with a quote, a typographic one, which YAML does not remove; remove both quotes{other}"
        )
    if ends <= quotes and len(ends) == 1:
        return (
            "it begins and ends with a quote, which an env file passes on as a part of the value; remove both quotes"
            f"{other}{in_file}"
        )
    if not is_from_file and value and not (_is_visible(value[0]) and _is_visible(value[-1])):
        return f"it begins or ends with a space or an invisible character; remove it{other}{in_file}"
    return None


def _with_value(field_name: str, value: str, reason: str) -> str:
    """Add the value found and the allowed values to a reason; of a secret neither."""
    if field_name in _SECRETS:
        return reason
    return f"found {_found_text(field_name, value)}; {reason}; {_allowed_text(field_name)}"


def _is_utf8(value: str) -> bool:
    """Return whether a value can be encoded; Python keeps other bytes of the environment as surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_visible(character: str) -> bool:
    return character.isprintable() and not character.isspace()


def load_settings(environ: Mapping[str, str] | None = None, config_file: Path | None = None) -> Settings:
    """
    Read the settings from the environment and the YAML file; the environment wins.

    Args:
        environ: Replaces the environment of the process.
        config_file: Replaces the file named by `HEDGELOCK_CONFIG`, or `config/collector.yaml`.

    Raises:
        SettingsInvalid: A setting is invalid; the message lists every invalid setting, and no secret.
    """
    environ = os.environ if environ is None else environ
    found = _Found()
    _read_file(found, _config_path(environ, config_file))
    _read_environment(found, environ)
    settings, broken = _validate(found)
    if settings is not None:
        not_judged = broken | found.refused
        found.problems += [each.problem for each in conflicts(settings) if not each.fields & not_judged]
        settings._proxy_secrets = _read_proxies(found, settings, environ)
        if any(getattr(settings, name).startswith(("https:", "wss:")) for name in _ADDRESSES):
            found.problems += authority_problems(environ)
    if settings is None or found.problems:
        raise SettingsInvalid(found.problems + [f"note: {each}" for each in found.warnings])
    settings._origin_by_field = found.origin_by_field
    settings._warnings = tuple(found.warnings)
    return settings


def _config_path(environ: Mapping[str, str], config_file: Path | None) -> Path | None:
    if config_file is not None:
        return config_file
    named = environ.get("HEDGELOCK_CONFIG", "").strip()
    if named:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _read_environment(found: _Found, environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        if name in _NAMES and _NAMES[name] not in Settings.NOT_IN_ENVIRONMENT:
            found.take(name, value, ENVIRONMENT)
        elif name.startswith(_OUR_PREFIXES):
            found.warnings.append(f"{name} in the environment is no setting{_nearest(name)}")


def _read_proxies(found: _Found, settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Check the proxies of the environment that apply to Bybit's addresses, and return their secrets."""
    secrets: list[str] = []
    problems: dict[str, None] = {}
    if (reason := _no_proxy_problem(environ)) is not None:
        problems[reason] = None
    for field_name in _ADDRESSES:
        url = getattr(settings, field_name)
        try:
            proxy = proxy_for(url, environ)
        except ValueError as error:
            problems[f"{error}; correct it, or exempt Bybit's hosts by NO_PROXY"] = None
            continue
        if proxy is None:
            continue
        secrets += proxy.secrets
        if proxy.scheme == "https" and url.startswith("ws") and settings.bybit_websocket_client == "pybit":
            problems[
                f"{proxy.variable} (environment): pybit cannot use an https:// proxy; use http:// or a SOCKS proxy, or "
                "set BYBIT_WEBSOCKET_CLIENT=websockets"
            ] = None
    found.problems += problems
    return tuple(secrets)


def _no_proxy_problem(environ: Mapping[str, str]) -> str | None:
    """Describe what in NO_PROXY would silently match no host; None without a proxy, since it is not used then."""
    if not is_any_set(environ):
        return None
    name, value = no_proxy(environ)
    stray = _stray_characters(name, value.strip(), ENVIRONMENT)
    if stray is not None:
        return f"{name} (environment): {stray}"
    if "://" in value:
        return f'{name} (environment): it has an entry with "://"; write the host alone, such as bybit.com'
    if (_STRAIGHT_QUOTES | _CURVED_QUOTES) & set(value):
        return f"{name} (environment): it has an entry with a quote; write the host alone, such as bybit.com"
    return None


def _read_file(found: _Found, path: Path | None) -> None:
    if path is None:
        return
    try:
        # BaseLoader keeps every value as text, so a file and the environment are read alike
        # and a secret such as 0123 stays unchanged.
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        found.problems.append(
            f"settings file {path}: {reason}; correct HEDGELOCK_CONFIG, or leave it out to use the environment alone"
        )
    except yaml.MarkedYAMLError as error:
        # The library's message quotes the text around the error, which may be a secret.
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        found.problems.append(f"settings file {path}: not YAML{place}; put values with : # * & ! in quotes")
    except yaml.YAMLError:
        found.problems.append(f"settings file {path}: not YAML; it holds characters that YAML forbids")
    else:
        found.problems += [f"{name} occurs twice in {path}; remove one" for name in _repeated_names(text)]
        _read_document(found, path, document)


def _read_document(found: _Found, path: Path, document: object) -> None:
    if document in (None, ""):
        return
    if not isinstance(document, dict):
        found.problems.append(f"settings file {path}: expected lines of the form NAME: value")
        return
    for key, value in document.items():
        name = str(key).upper()
        if name in _NAMES:
            found.take(name, _lower_keys(value) if name == "SHARDS" else value, str(path))
        else:
            found.problems.append(f"{key} in {path} is no setting{_nearest(name)}")


def _repeated_names(text: str) -> list[str]:
    """
    List names that occur more than once; of two equal keys YAML silently takes the last.

    Names of settings are compared in any case, those inside of a setting as they are: `KAFKA_ROUTES.OrderUpdate`.
    """
    root = yaml.compose(text, Loader=yaml.BaseLoader)
    settings = root.value if isinstance(root, yaml.MappingNode) else []
    names = []
    for key, value in settings:
        name = str(key.value).upper()
        inside = value.value if isinstance(value, yaml.MappingNode) else []
        names += [name, *(f"{name}.{each.value}" for each, _ in inside)]
    return [name for name, count in Counter(names).items() if count > 1]


def _lower_keys(shards: object) -> object:
    """Convert the names inside `shards` to lower case; an empty entry changes nothing."""
    if not isinstance(shards, dict):
        return shards
    return {
        name: {str(key).lower(): value for key, value in contents.items()}
        if isinstance(contents, dict)
        else contents or {}
        for name, contents in shards.items()
    }


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=_SIMILAR)
    return f"; did you mean {near[0]}?" if near else "; docs/settings.md lists all"


def _validate(found: _Found) -> tuple[Settings | None, frozenset[str]]:
    """Build the settings; invalid ones are reported and keep their defaults, so that the rest is checked as well."""
    try:
        return Settings(**found.value_by_field), frozenset()
    except ValidationError as error:
        details = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
    broken = frozenset(str(each["loc"][0]) for each in details)
    found.problems += [_problem(found, each) for each in details]
    valid = {name: value for name, value in found.value_by_field.items() if name not in broken}
    return Settings(**valid), broken


def _problem(found: _Found, error: ErrorDetails) -> str:
    """Describe the value found, the allowed values and the action to take."""
    setting, *inside = error["loc"]
    field_name = str(setting)
    origin = found.origin_by_field[field_name]
    place = f"{field_name.upper()} ({origin})"
    if field_name == "shards":
        return _shard_problem(place, inside, error)
    reason = f"; {error['ctx']['error']}" if error["type"] == "value_error" else ""
    found_text = _found_text(field_name, found.value_by_field[field_name])
    return f"{place}: found {found_text}{reason}; {_allowed_text(field_name)}"


def _allowed_text(field_name: str) -> str:
    declared = Settings.model_fields[field_name]
    extra = declared.json_schema_extra
    assert isinstance(extra, dict)
    default = extra.get("default") or shown_value(declared.default) or "none"
    return f"allowed: {extra['allowed']}; correct it, or leave it out for the default: {default}"


def _shard_problem(place: str, inside: list[int | str], error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in inside if isinstance(part, str))
    known = "BYBIT_SPOT_SYMBOLS, BYBIT_LINEAR_SYMBOLS, BYBIT_PUBLIC_FEEDS, PRIVATE_FEEDS"
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
    elif error["type"] == "extra_forbidden":
        reason = "unknown name"
    else:
        reason = error["msg"]
    return f"{place}: {where or 'the value'}: {reason}; allowed: under each shard's name any of {known}"


def _found_text(field_name: str, value: object) -> str:
    # Text with @ may be an address with a password in it.
    if field_name in _SECRETS or "@" in str(value):
        return "<hidden>"
    if isinstance(value, Mapping):
        value = [f"{key}={each}" for key, each in value.items()]
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    # Python keeps bytes of the environment that are no text as surrogates, which no output accepts.
    text = text.encode(errors="backslashreplace").decode()
    return f'"{text}"' if len(text) <= _MAX_SHOWN_CHARACTERS else f'"{text[:_MAX_SHOWN_CHARACTERS]}..."'
