"""The asset `audit`: the topics, read back and checked."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest.audit import dead_letters, gaps
from hedgelock_ingest.audit.gaps import VERIFIED_TOPICS
from hedgelock_ingest.defs.audit.checks import (
    AUDIT,
    check_specs,
    completeness_check,
    dead_letters_check,
    gaps_check,
)
from hedgelock_ingest.defs.audit.silent_keys import AuditWindow, Silence, idle_silences, runs_of, steady_silences
from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.stream.jobs import JOB_NAME as STREAM
from hedgelock_ingest.defs.topics.assets import OWNERS, keys_expected, topic_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.gaps_and_dead_letters import Gap
from hedgelock_ingest.models.topics import STEADY, Topic

DELIVERY_MARGIN = timedelta(seconds=10)
"""Time that a record may take to reach its topic; younger records are not checked."""
WINDOW = timedelta(minutes=20)
"""Time span of an audit: two intervals of its schedule, so that two audits read each minute."""
FINDINGS_WINDOW = timedelta(hours=1)
"""Time for which the checks report a gap or a dead letter."""


class AuditConfig(dg.Config):
    """Configuration of the audit: the time span to read back, 20 minutes by default."""

    minutes: float | None = Field(
        default=None,
        gt=0,
        le=24 * 60,
        description="minutes to read back; gaps and dead letters are reported for an hour at least",
    )


@dg.asset(
    key=AUDIT,
    deps=[topic_key(topic) for topic in (*VERIFIED_TOPICS, Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS)],
    check_specs=check_specs(),
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
        found_gaps = gaps.select(asyncio.run(gaps.list_gaps(settings)), since=horizon)
        letters = asyncio.run(dead_letters.list_dead_letters(settings))
    except IngestError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    window = AuditWindow(since, until, verification.feeds, up_since, has_run)
    recent = [letter for letter in letters if letter.at >= horizon]
    known = KnownSettings(settings)
    complete = [
        completeness_check(topic, window, _silences(topic, known, window, found_gaps)) for topic in VERIFIED_TOPICS
    ]
    results = [gaps_check(found_gaps), dead_letters_check(recent), *complete]
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


def _silences(topic: Topic, known: KnownSettings, window: AuditWindow, found: Sequence[Gap]) -> list[Silence]:
    keys = keys_expected(known, topic)
    if topic in STEADY:
        return list(steady_silences(topic, keys, window, found))
    return list(idle_silences(topic, keys, window)) if topic is Topic.MARKET_TRADES else []
