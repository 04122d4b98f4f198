"""`hedgelock-ingest check`: every setting with its origin, and whether all external systems answer."""

import asyncio
import math
import os
import tempfile
from collections.abc import Awaitable, Coroutine, Iterator, Sequence, Set
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from hedgelock_ingest.account.service import private_authentication
from hedgelock_ingest.bybit.probe import (
    ClockAnswer,
    Listing,
    probe_clock,
    probe_key,
    probe_symbols,
    probe_websocket,
)
from hedgelock_ingest.clock import SystemClock, wall_ms
from hedgelock_ingest.errors import IngestError, KeyRefused, first_cause
from hedgelock_ingest.journal import bound_in, first_existing, free_bytes_at, owner_of
from hedgelock_ingest.kafka.durability import durability_warnings
from hedgelock_ingest.kafka.probe import probe_kafka
from hedgelock_ingest.kafka.topic_admin import check_topics
from hedgelock_ingest.kafka.topic_reports import HELPFUL_OPERATIONS, REQUIRED_OPERATIONS, TopicReport, denials
from hedgelock_ingest.protocol.api_key_rules import KeyVerdict
from hedgelock_ingest.redaction import Redaction
from hedgelock_ingest.settings import Settings, Shard, origins, secrets
from hedgelock_ingest.settings.proxies import proxy_for

_CLOCK = SystemClock()
TIMEOUT_S = 9.0
# A probe has its own timeout with a more precise error; this one is only a safeguard.
_GRACE_S = 1.0
# Bybit refuses a request stamped 1 s or more ahead of its clock, or older than the receive window.
_CLOCK_AHEAD_LIMIT_S = 1.0
_CLOCK_BEHIND_LIMIT_S = 5.0
_CLOCK_WARNING_S = 0.5


class Severity(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(NamedTuple):
    """Finding of one check; the text includes the action if one is needed."""

    severity: Severity
    subject: str
    text: str


def setting_lines(settings: Settings) -> Iterator[str]:
    """Yield each setting with its value, secrets hidden, and its origin, in columns."""
    rows = [(each.name, each.value or "-", each.origin) for each in origins(settings)]
    name_width = max(len(name) for name, _, _ in rows)
    value_width = min(48, max(len(value) for _, value, _ in rows))
    for name, value, origin in rows:
        yield f"{name:<{name_width}}  {value:<{value_width}}  {origin}"


async def run_checks(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Run all checks concurrently and return their findings; each ends within `timeout_s`."""
    checks = _checks(settings, timeout_s)
    results = await asyncio.gather(*(_guarded(settings, timeout_s, *each) for each in checks))
    warnings = [Finding(Severity.WARNING, "settings", each) for each in settings.warnings]
    return warnings + [finding for result in results for finding in result]


def _checks(settings: Settings, timeout_s: float) -> list[tuple[str, Coroutine[Any, Any, list[Finding]]]]:
    shards = [settings.shard(name) for name in settings.stream_shards]
    checks = [("Kafka", _kafka(settings, timeout_s))]
    for category, symbols in (
        ("spot", {symbol for shard in shards for symbol in shard.spot_symbols}),
        ("linear", {symbol for shard in shards for symbol in shard.linear_symbols}),
    ):
        if symbols:
            checks.append((f"{category} lines", _public_line(settings, category, timeout_s)))
            checks.append((f"{category} symbols", _symbols(settings, category, symbols, timeout_s)))
    if settings.has_key:
        checks.append(("private lines", _private_line(settings, timeout_s)))
    checks.append(("API key", _key(settings, timeout_s)))
    checks.append(("REST", _rest(settings, timeout_s)))
    return checks + [
        (f"journal {shard.name}", asyncio.to_thread(journal_findings, settings, shard)) for shard in shards
    ]


async def _guarded(
    settings: Settings, timeout_s: float, subject: str, check: Awaitable[list[Finding]]
) -> list[Finding]:
    try:
        async with asyncio.timeout(timeout_s + _GRACE_S):
            return await check
    except TimeoutError:
        return [Finding(Severity.FAILED, subject, f"not finished within {timeout_s:g} s")]
    except IngestError as error:
        text = Redaction(secrets(settings)).text(str(error))
        if isinstance(error, KeyRefused):
            text += "; correct BYBIT_API_KEY and BYBIT_API_SECRET; a testnet key needs BYBIT_TESTNET=true"
        return [Finding(Severity.FAILED, subject, text)]
    except Exception as error:  # noqa: BLE001  # a fault of one check must not hide what the others find
        cause = first_cause(error)
        text = Redaction(secrets(settings)).text(f"{type(cause).__name__}: {cause}")
        return [Finding(Severity.FAILED, subject, f"the check itself failed ({text}); please report it")]


async def _kafka(settings: Settings, timeout_s: float) -> list[Finding]:
    answer = await probe_kafka(settings, timeout_s / 2)
    brokers = f"{answer.brokers} broker{'s' if answer.brokers != 1 else ''}"
    found = Finding(Severity.OK, "Kafka", f"{brokers}, {_duration(answer.round_trip_s)} for an answer")
    if answer.unreached is not None:  # it may lead partitions of ours, now or later
        found = Finding(Severity.FAILED, "Kafka", answer.unreached)
    return [found, *await _topics(settings)]


async def _topics(settings: Settings) -> list[Finding]:
    reports = await check_topics(settings)
    return list(topic_findings(reports, settings)) or [
        Finding(Severity.OK, "topics", f"all {len(reports)} are as expected")
    ]


def topic_findings(reports: Sequence[TopicReport], settings: Settings) -> Iterator[Finding]:
    """Yield findings about topics; none if all are as expected."""
    for denial in denials(settings, reports, REQUIRED_OPERATIONS):
        yield Finding(Severity.FAILED, "topics", denial)
    for denial in denials(settings, reports, HELPFUL_OPERATIONS):
        text = f"their configuration is unknown, and Kafka's defaults are assumed: {denial}"
        yield Finding(Severity.WARNING, "topics", text)
    missing = [report.name for report in reports if report.is_missing]
    if missing and settings.kafka_create_topics:
        yield Finding(Severity.OK, "topics", f"{len(missing)} of {len(reports)} are missing and will be created")
    elif missing:
        advice = 'run "hedgelock-ingest topics --create", or set KAFKA_CREATE_TOPICS=true'
        yield Finding(Severity.FAILED, "topics", f"missing: {', '.join(missing)}; {advice}")
    for report in reports:
        if report.exists and report.differences:
            text = f"{report.name}: {', '.join(report.differences)}; topics that exist are never altered"
            yield Finding(Severity.WARNING, "topics", text)
    for warning in durability_warnings(reports, settings):
        yield Finding(Severity.WARNING, "topics", warning)


async def _public_line(settings: Settings, category: str, timeout_s: float) -> list[Finding]:
    url = f"{settings.bybit_public_ws_url}/{category}"
    round_trip_s = await probe_websocket(settings, url, timeout_s)
    return [Finding(Severity.OK, f"{category} lines", f"pong after {_duration(round_trip_s)}{_way(url)}")]


async def _symbols(settings: Settings, category: str, symbols: Set[str], timeout_s: float) -> list[Finding]:
    try:
        listings = await probe_symbols(settings, category, symbols, timeout_s)
    except IngestError as error:
        text = Redaction(secrets(settings)).text(f"not checked, since REST does not list them: {error}")
        return [Finding(Severity.WARNING, f"{category} symbols", text)]
    return list(symbol_findings(category, len(symbols), listings))


def symbol_findings(category: str, count: int, listings: Sequence[Listing]) -> Iterator[Finding]:
    """Yield a finding for each of `count` symbols that is not trading; the others run without it, if there are any."""
    severity = Severity.WARNING if len(listings) < count else Severity.FAILED
    setting = f"BYBIT_{category.upper()}_SYMBOLS"
    for symbol, status, listed_in, is_known in listings:
        if not is_known:
            text = f"{symbol} is not trading, and REST did not report its status: correct {setting}"
        elif status is not None:
            action = "no data before it is listed" if status == "PreLaunch" else f"remove it from {setting}"
            text = f"{symbol} has the status {status}, expected Trading: {action}"
        elif listed_in is not None:
            text = f"Bybit lists {symbol} in {listed_in}, not in {category}: correct {setting}"
        else:
            text = f"Bybit does not list {symbol}: correct {setting}"
        yield Finding(severity, f"{category} symbols", text)


async def _private_line(settings: Settings, timeout_s: float) -> list[Finding]:
    authenticate = private_authentication(settings, partial(wall_ms, _CLOCK))
    url = settings.bybit_private_ws_url
    round_trip_s = await probe_websocket(settings, url, timeout_s, authenticate)
    return [Finding(Severity.OK, "private lines", f"logged in, pong after {_duration(round_trip_s)}{_way(url)}")]


def _way(url: str) -> str:
    proxy = proxy_for(url, os.environ)
    return "" if proxy is None else f" through the proxy {proxy}"


async def _key(settings: Settings, timeout_s: float) -> list[Finding]:
    if not settings.has_key:
        return [Finding(Severity.OK, "API key", "none, so only public feeds run")]
    return key_findings(await probe_key(settings, timeout_s), now_ms=wall_ms(_CLOCK))


def key_findings(verdict: KeyVerdict, *, now_ms: int) -> list[Finding]:
    """Report whether a start accepts the key, and its warnings, if any."""
    if verdict.refusal is not None:
        return [Finding(Severity.FAILED, "API key", verdict.refusal)]
    if verdict.warnings:
        return [Finding(Severity.WARNING, "API key", warning) for warning in verdict.warnings]
    if verdict.expires_at is None:
        return [Finding(Severity.OK, "API key", "read-only, does not expire")]
    days = math.ceil((verdict.expires_at.timestamp() - now_ms / 1000) / 86_400)
    return [Finding(Severity.OK, "API key", f"read-only, expires in {days} days")]


async def _rest(settings: Settings, timeout_s: float) -> list[Finding]:
    answer = await probe_clock(settings, timeout_s)
    text = f"{_duration(answer.round_trip_s)} for an answer{_way(settings.bybit_rest_url)}"
    return [Finding(Severity.OK, "REST", text), clock_finding(answer)]


def clock_finding(answer: ClockAnswer) -> Finding:
    """Judge the difference between our clock and Bybit's; half the round trip is the uncertainty."""
    ahead = answer.ahead_s
    direction = "ahead of" if ahead > 0 else "behind"
    text = f"{_duration(abs(ahead))} {direction} Bybit's, within {_duration(answer.round_trip_s / 2)}"
    if ahead >= _CLOCK_AHEAD_LIMIT_S or -ahead >= _CLOCK_BEHIND_LIMIT_S:
        return Finding(Severity.FAILED, "clock", f"{text}; Bybit refuses signed requests: synchronise it (NTP)")
    if abs(ahead) > _CLOCK_WARNING_S:
        return Finding(Severity.WARNING, "clock", f"{text}; synchronise it (NTP) before Bybit refuses requests")
    return Finding(Severity.OK, "clock", text)


def journal_findings(settings: Settings, shard: Shard) -> list[Finding]:
    """Check that a shard's journal is writable, unlocked and has room up to its bound; leaves no files behind."""
    folder, subject = shard.journal_directory, f"journal {shard.name}"
    owner: int | None = None
    with suppress(OSError):  # a folder that cannot be read is reported below
        owner = owner_of(folder)
    if owner is not None:
        text = f"owned by process {owner or 'unknown'}: this shard is running already"
        return [Finding(Severity.WARNING, subject, text)]
    existing, wanted = folder, settings.journal_max_bytes
    try:
        existing = first_existing(folder)
        with tempfile.TemporaryFile(dir=existing):
            free = free_bytes_at(existing)
        bound = bound_in(folder, max_bytes=wanted)
    except OSError as error:
        advice = "make it writable, or set JOURNAL_DIRECTORY"
        return [Finding(Severity.FAILED, subject, f"{existing}: {error.strerror}; {advice}")]
    text = f"{folder} is writable, {_size(free)} free, room for {_size(bound)} of frames that wait for Kafka"
    if not bound:
        return [Finding(Severity.FAILED, subject, f"{text}; make room, or set JOURNAL_DIRECTORY")]
    if bound < wanted:
        advice = f"less than JOURNAL_MAX_BYTES, {_size(wanted)}: make room or lower it"
        return [Finding(Severity.WARNING, subject, f"{text}; {advice}")]
    return [Finding(Severity.OK, subject, text)]


def worst(findings: Sequence[Finding]) -> Severity:
    """Return the highest severity of all findings."""
    order = [Severity.OK, Severity.WARNING, Severity.FAILED]
    return max((each.severity for each in findings), key=order.index, default=Severity.OK)


def _duration(duration_s: float) -> str:
    return f"{duration_s * 1000:.0f} ms" if duration_s < 10 else f"{duration_s:.0f} s"


def _size(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 / 10 else f"{size / 1024**2:.1f} MiB"
