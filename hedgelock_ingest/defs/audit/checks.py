"""The audit: topics are read back, and holes, dead letters and completeness are judged by checks."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest.audit import dead_letters, gaps
from hedgelock_ingest.audit.gaps import FeedProof
from hedgelock_ingest.defs.audit.silence import Silence, Window, resting_silences, runs_of, steady_silences
from hedgelock_ingest.defs.known_settings import Known
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.run_tags import tags_of
from hedgelock_ingest.defs.stream.jobs import JOB_NAME as STREAM
from hedgelock_ingest.defs.topics.assets import OWNERS, keys_expected, topic_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.findings import Gap
from hedgelock_ingest.models.topics import STEADY, Topic

JOB_NAME = "check_topics"
AUDIT = dg.AssetKey(["audit"])
"""
The checks are this asset's, not the topics': a topic is materialised every minute, and Dagster holds a check for not
evaluated as soon as its asset is newer.
"""

UNDER_WAY = timedelta(seconds=10)
"""How long a record may take to the topic after its time; what is younger is not judged."""
WINDOW = timedelta(minutes=20)
"""How far an audit reads back: two intervals of its schedule, so that each minute is read by two audits."""
FINDINGS = timedelta(hours=1)
"""For how long gaps and dead letters stay in the checks."""
_COMPLETE = (Topic.MARKET_DATA, Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_LIQUIDATIONS)
_SHOWN = 10


class AuditConfig(dg.Config):
    """How far back to read; 20 minutes where nothing is set."""

    minutes: float | None = Field(default=None, gt=0, le=24 * 60, description="read back so far")


def _specs() -> list[dg.AssetCheckSpec]:
    complete = (
        "In the last 20 minutes nothing is missing or doubled but what the recorded gaps name, and what never rests "
        "has records up to now; else an error. A warning where there is nothing to judge."
    )
    holes = "No gap ended in the last hour: an open one is an error, a healed one a warning."
    letters = "Every frame of the last hour was understood; else a warning."
    return [
        dg.AssetCheckSpec("no_holes", asset=AUDIT, description=holes),
        dg.AssetCheckSpec("no_dead_letters", asset=AUDIT, description=letters),
        *(dg.AssetCheckSpec(_name(topic), asset=AUDIT, description=complete) for topic in _COMPLETE),
    ]


def _name(topic: Topic) -> str:
    return f"{topic.value.replace('-', '_')}_is_complete"


@dg.asset(
    key=AUDIT,
    deps=[topic_key(topic) for topic in (*_COMPLETE, Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS)],
    check_specs=_specs(),
    description="What reading the topics back says of the last 20 minutes. Needs no stream to be there.",
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
    """Read the last minutes of the topics back, and judge them."""
    settings = ingest.settings()
    until = datetime.now(UTC) - UNDER_WAY
    since = until - (WINDOW if config.minutes is None else timedelta(minutes=config.minutes))
    horizon = min(since, until - FINDINGS)
    up_since, has_run = runs_of(context.instance, STREAM)
    try:
        proof = asyncio.run(gaps.verify(settings, since=since, until=until))
        found_gaps = asyncio.run(gaps.list_gaps(settings, since=horizon))
        letters = asyncio.run(dead_letters.letters(settings))
    except IngestError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    window = Window(since, until, proof.feeds, up_since, has_run)
    late = [letter for letter in letters if letter.at >= horizon]
    known = Known(settings)
    complete = [_complete(topic, window, _silences(topic, known, window, found_gaps)) for topic in _COMPLETE]
    results = [_holes(found_gaps), _letters(late), *complete]
    yield dg.MaterializeResult(
        metadata={
            "records": sum(feed.records for feed in proof.feeds),
            "gaps": len(found_gaps),
            "dead letters": len(late),
            "failed checks": sum(not result.passed for result in results),
            "span": f"{since:%H:%M:%S} to {until:%H:%M:%S} UTC",
        },
        check_results=results,
    )


def _holes(found: Sequence[Gap]) -> dg.AssetCheckResult:
    is_open = [gap for gap in found if gap.healed == "no"]
    lines = [
        f"- {gap.from_:%H:%M:%S} to {gap.to:%H:%M:%S} {gap.feed}: {gap.reason}; healed: {gap.healed}" for gap in found
    ]
    return dg.AssetCheckResult(
        check_name="no_holes",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_open else dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} gaps, {len(is_open)} of them not healed",
        metadata={"gaps": len(found), "open": len(is_open), "last": dg.MetadataValue.md("\n".join(lines[-_SHOWN:]))},
    )


def _letters(late: Sequence[dead_letters.Letter]) -> dg.AssetCheckResult:
    lines = [f"- {letter.at:%H:%M:%S} `{letter.id}` {letter.feed}: {letter.reason}" for letter in late]
    return dg.AssetCheckResult(
        check_name="no_dead_letters",
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(late)} dead letters; the job replay_dead_letters tries them again",
        metadata={"letters": len(late), "last": dg.MetadataValue.md("\n".join(lines[-_SHOWN:]))},
    )


def _silences(topic: Topic, known: Known, window: Window, found: Sequence[Gap]) -> list[Silence]:
    keys = keys_expected(known, topic)
    if topic in STEADY:
        return list(steady_silences(topic, keys, window, found))
    return list(resting_silences(topic, keys, window)) if topic is Topic.MARKET_TRADES else []


def _complete(topic: Topic, window: Window, silences: Sequence[Silence]) -> dg.AssetCheckResult:
    feeds = [feed for feed in window.feeds if feed.topic is topic]
    wrong = [line for feed in feeds for line in _contradictions(feed)]
    records = sum(feed.records for feed in feeds)
    is_error = bool(wrong) or any(silence.is_error for silence in silences)
    found = [*wrong[:_SHOWN], *(silence.report for silence in silences[:_SHOWN])]
    first = window.first_of(topic)
    return dg.AssetCheckResult(
        check_name=_name(topic),
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description="; ".join(found) or _well(window, first, records),
        metadata={
            "records": records,
            "keys": len(feeds),
            "from": f"{window.since:%H:%M:%S}",
            "to": f"{window.until:%H:%M:%S}",
            "proven since": f"{max(window.since, first or window.until):%H:%M:%S}",
            "contradictions": len(wrong),
            "silent": len(silences),
        },
    )


def _well(window: Window, first: datetime | None, records: int) -> str:
    if first is None:
        return f"no record since {window.since:%H:%M:%S} UTC: its feeds rest, or the settings ask for none"
    if first - window.since > timedelta(milliseconds=gaps.LONGEST_SILENCE_MS):
        return f"nothing missing or doubled since {first:%H:%M:%S} UTC, the first record; {records} records"
    return f"nothing missing or doubled since {window.since:%H:%M:%S} UTC; {records} records"


def _contradictions(feed: FeedProof) -> Iterator[str]:
    yield from (f"{feed.key}: {hole}" for hole in feed.holes)
    if feed.doubled:
        yield f"{feed.key}: {feed.doubled} doubled"
    if feed.out_of_order:
        yield f"{feed.key}: {feed.out_of_order} out of order"


check_job = dg.define_asset_job(
    JOB_NAME,
    selection=[AUDIT],
    description="Reads the topics back: holes, dead letters, completeness.",
    executor_def=dg.in_process_executor,
    tags=tags_of("check", longest_s=900),
)

check_schedule = dg.ScheduleDefinition(
    name="check_every_ten_minutes",
    job=check_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads the last 20 minutes back, and judges them.",
)
