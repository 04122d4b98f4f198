"""The audit: topics are read back, and holes, dead letters and completeness are judged by checks."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest import dead_letters, gaps
from hedgelock_ingest.defs.lineage import OWNERS, topic_key
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.streaming import KIND_TAG
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.gaps import FeedProof, Proof
from hedgelock_ingest.models.findings import Gap
from hedgelock_ingest.models.topics import Topic

JOB_NAME = "check_topics"
AUDIT = dg.AssetKey(["audit"])
"""
The checks are this asset's, not the topics': a topic is materialised every minute, and Dagster holds a check for not
evaluated as soon as its asset is newer.
"""

UNDER_WAY = timedelta(seconds=10)
_PROVEN = (Topic.MARKET_DATA, Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_LIQUIDATIONS)
_SHOWN = 10


class AuditConfig(dg.Config):
    """How far back to look."""

    minutes: float = Field(default=10.0, gt=0, le=24 * 60, description="the schedule comes every ten")


def _specs() -> list[dg.AssetCheckSpec]:
    complete = "Nothing is missing or doubled but what the recorded gaps name."
    return [
        dg.AssetCheckSpec("no_holes", asset=AUDIT, description="No gap is recorded; healed ones warn."),
        dg.AssetCheckSpec("no_dead_letters", asset=AUDIT, description="Every frame was understood."),
        *(dg.AssetCheckSpec(_name(topic), asset=AUDIT, description=complete) for topic in _PROVEN),
    ]


def _name(topic: Topic) -> str:
    return f"{topic.value.replace('-', '_')}_is_complete"


@dg.asset(
    key=AUDIT,
    deps=[topic_key(topic) for topic in (*_PROVEN, Topic.INGEST_GAPS, Topic.INGEST_DEAD_LETTERS)],
    check_specs=_specs(),
    description="What reading the topics back says of the last minutes. Needs no stream to be there.",
    group_name="audit",
    owners=OWNERS,
    kinds={"kafka"},
)
def audit(config: AuditConfig, ingest: IngestResource) -> Iterator[dg.MaterializeResult[None]]:
    """Read what was published lately, and judge it."""
    settings = ingest.settings()
    until = datetime.now(UTC) - UNDER_WAY
    since = until - timedelta(minutes=config.minutes)
    try:
        proof = asyncio.run(gaps.verify(settings, since=since, until=until))
        letters = asyncio.run(dead_letters.letters(settings))
    except IngestError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    late = [letter for letter in letters if letter.at >= since]
    results = [_holes(proof.gaps), _letters(late), *(_complete(topic, proof) for topic in _PROVEN)]
    yield dg.MaterializeResult(
        metadata={
            "records": sum(feed.records for feed in proof.feeds),
            "gaps": len(proof.gaps),
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


def _complete(topic: Topic, proof: Proof) -> dg.AssetCheckResult:
    feeds = [feed for feed in proof.feeds if feed.topic is topic]
    wrong = [line for feed in feeds for line in _contradictions(feed)]
    records = sum(feed.records for feed in feeds)
    return dg.AssetCheckResult(
        check_name=_name(topic),
        passed=not wrong,
        description="; ".join(wrong[:_SHOWN]) or f"{records} records, nothing missing or doubled",
        metadata={
            "records": records,
            "keys": len(feeds),
            "from": f"{proof.since:%H:%M:%S}",
            "to": f"{proof.until:%H:%M:%S}",
        },
    )


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
    tags={KIND_TAG: "check"},
)

check_schedule = dg.ScheduleDefinition(
    name="check_every_ten_minutes",
    job=check_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
