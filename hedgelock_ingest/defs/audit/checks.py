"""The audit: read the topics back, and check gaps, dead letters and completeness."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest.audit import dead_letters, gaps
from hedgelock_ingest.audit.gaps import FeedVerification
from hedgelock_ingest.defs.audit.silent_keys import AuditWindow, Silence, idle_silences, runs_of, steady_silences
from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.stream.jobs import JOB_NAME as STREAM
from hedgelock_ingest.defs.topics.assets import OWNERS, keys_expected, topic_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.gaps_and_dead_letters import Gap
from hedgelock_ingest.models.topics import STEADY, Topic

AUDIT = dg.AssetKey(["audit"])
"""
The checks belong to this asset, not to the topics: a topic is materialised every minute, and Dagster shows a check as
not evaluated once its asset is newer.
"""

DELIVERY_MARGIN = timedelta(seconds=10)
"""How long a record may take to reach its topic; younger records are not checked."""
WINDOW = timedelta(minutes=20)
"""How far an audit reads back: two intervals of its schedule, so that two audits read each minute."""
FINDINGS_WINDOW = timedelta(hours=1)
"""How long the checks report a gap or a dead letter."""
_COMPLETE = (Topic.MARKET_DATA, Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_LIQUIDATIONS)
_MAX_SHOWN = 10


class AuditConfig(dg.Config):
    """How far back to read; 20 minutes by default."""

    minutes: float | None = Field(default=None, gt=0, le=24 * 60, description="minutes to read back")


def _specs() -> list[dg.AssetCheckSpec]:
    complete = (
        "In the last 20 minutes no record is missing outside the recorded gaps or duplicated, and topics that are "
        "written all the time have records up to now; otherwise an error. A warning if there is nothing to check."
    )
    no_gaps = "No gap ended in the last hour: an unfilled gap is an error, a filled one a warning."
    no_letters = "Every frame of the last hour was decoded; otherwise a warning."
    return [
        dg.AssetCheckSpec("no_holes", asset=AUDIT, description=no_gaps),
        dg.AssetCheckSpec("no_dead_letters", asset=AUDIT, description=no_letters),
        *(dg.AssetCheckSpec(_name(topic), asset=AUDIT, description=complete) for topic in _COMPLETE),
    ]


def _name(topic: Topic) -> str:
    return f"{topic.value.replace('-', '_')}_is_complete"


@dg.asset(
    key=AUDIT,
    deps=[topic_key(topic) for topic in (*_COMPLETE, Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS)],
    check_specs=_specs(),
    description="Result of reading the last 20 minutes of the topics back. Does not need a running stream.",
    group_name="audit",
    owners=OWNERS,
    kinds={"kafka"},
    freshness_policy=dg.FreshnessPolicy.time_window(
        fail_window=timedelta(minutes=35), warn_window=timedelta(minutes=25)
    ),
)
def audit(
    context: dg.AssetExecutionContext, config: AuditConfig, ingest: IngestResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Read the last minutes of the topics back, and evaluate the checks."""
    settings = ingest.settings()
    until = datetime.now(UTC) - DELIVERY_MARGIN
    since = until - (WINDOW if config.minutes is None else timedelta(minutes=config.minutes))
    horizon = min(since, until - FINDINGS_WINDOW)
    up_since, has_run = runs_of(context.instance, STREAM)
    try:
        verification = asyncio.run(gaps.verify(settings, since=since, until=until))
        found_gaps = asyncio.run(gaps.list_gaps(settings, since=horizon))
        letters = asyncio.run(dead_letters.letters(settings))
    except IngestError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    window = AuditWindow(since, until, verification.feeds, up_since, has_run)
    recent = [letter for letter in letters if letter.at >= horizon]
    known = KnownSettings(settings)
    complete = [_completeness_check(topic, window, _silences(topic, known, window, found_gaps)) for topic in _COMPLETE]
    results = [_gaps_check(found_gaps), _dead_letters_check(recent), *complete]
    yield dg.MaterializeResult(
        metadata={
            "records": sum(feed.records for feed in verification.feeds),
            "gaps": len(found_gaps),
            "dead letters": len(recent),
            "failed checks": sum(not result.passed for result in results),
            "window": f"{since:%H:%M:%S} to {until:%H:%M:%S} UTC",
        },
        check_results=results,
    )


def _gaps_check(found: Sequence[Gap]) -> dg.AssetCheckResult:
    unfilled = [gap for gap in found if gap.healed == "no"]
    lines = [
        f"- {gap.from_:%H:%M:%S} to {gap.to:%H:%M:%S} {gap.feed}: {gap.reason}; filled: {gap.healed}" for gap in found
    ]
    return dg.AssetCheckResult(
        check_name="no_holes",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if unfilled else dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} gaps, {len(unfilled)} of them not filled",
        metadata={
            "gaps": len(found),
            "not filled": len(unfilled),
            "last": dg.MetadataValue.md("\n".join(lines[-_MAX_SHOWN:])),
        },
    )


def _dead_letters_check(recent: Sequence[dead_letters.Letter]) -> dg.AssetCheckResult:
    lines = [f"- {letter.at:%H:%M:%S} `{letter.id}` {letter.feed}: {letter.reason}" for letter in recent]
    return dg.AssetCheckResult(
        check_name="no_dead_letters",
        passed=not recent,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(recent)} dead letters; the job replay_dead_letters processes them again",
        metadata={"letters": len(recent), "last": dg.MetadataValue.md("\n".join(lines[-_MAX_SHOWN:]))},
    )


def _silences(topic: Topic, known: KnownSettings, window: AuditWindow, found: Sequence[Gap]) -> list[Silence]:
    keys = keys_expected(known, topic)
    if topic in STEADY:
        return list(steady_silences(topic, keys, window, found))
    return list(idle_silences(topic, keys, window)) if topic is Topic.MARKET_TRADES else []


def _completeness_check(topic: Topic, window: AuditWindow, silences: Sequence[Silence]) -> dg.AssetCheckResult:
    feeds = [feed for feed in window.feeds if feed.topic is topic]
    contradictions = [line for feed in feeds for line in _contradictions(feed)]
    records = sum(feed.records for feed in feeds)
    is_error = bool(contradictions) or any(silence.is_error for silence in silences)
    found = [*contradictions[:_MAX_SHOWN], *(silence.report for silence in silences[:_MAX_SHOWN])]
    first = window.first_of(topic)
    return dg.AssetCheckResult(
        check_name=_name(topic),
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description="; ".join(found) or _complete_text(window, first, records),
        metadata={
            "records": records,
            "keys": len(feeds),
            "from": f"{window.since:%H:%M:%S}",
            "to": f"{window.until:%H:%M:%S}",
            "verified since": f"{max(window.since, first or window.until):%H:%M:%S}",
            "contradictions": len(contradictions),
            "silent keys": len(silences),
        },
    )


def _complete_text(window: AuditWindow, first: datetime | None, records: int) -> str:
    if first is None:
        return f"no record since {window.since:%H:%M:%S} UTC: its feeds are idle, or the settings configure none"
    if first - window.since > timedelta(milliseconds=gaps.LONGEST_SILENCE_MS):
        return f"nothing missing or duplicated since {first:%H:%M:%S} UTC, the first record; {records} records"
    return f"nothing missing or duplicated since {window.since:%H:%M:%S} UTC; {records} records"


def _contradictions(feed: FeedVerification) -> Iterator[str]:
    yield from (f"{feed.key}: {finding}" for finding in feed.unexplained)
    if feed.doubled:
        yield f"{feed.key}: {feed.doubled} duplicated"
    if feed.out_of_order:
        yield f"{feed.key}: {feed.out_of_order} out of order"
