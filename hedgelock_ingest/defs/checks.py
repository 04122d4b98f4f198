"""Checks that read the topics themselves: holes, dead letters, completeness. They need no stream to be there."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest import dead_letters, gaps
from hedgelock_ingest.defs.lineage import topic_key
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.streaming import KIND_TAG
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.gaps import FeedProof, Proof
from hedgelock_ingest.models.findings import Gap
from hedgelock_ingest.models.topics import Topic

JOB_NAME = "check_topics"
OP_NAME = "read_topics_back"
_PROVEN = (Topic.MARKET_DATA, Topic.MARKET_TRADES, Topic.MARKET_ORDER_BOOKS, Topic.MARKET_LIQUIDATIONS)
UNDER_WAY = timedelta(seconds=10)
_SHOWN = 10


class CheckConfig(dg.Config):
    """How far back to look."""

    minutes: float = Field(default=10.0, gt=0, le=24 * 60, description="the schedule comes every ten")


def _specs() -> list[dg.AssetCheckSpec]:
    complete = "Nothing is missing or doubled but what the recorded gaps name."
    return [
        dg.AssetCheckSpec("no_holes", asset=topic_key(Topic.INGEST_GAPS), description="No gap; healed ones warn."),
        dg.AssetCheckSpec(
            "no_dead_letters", asset=topic_key(Topic.INGEST_DEAD_LETTERS), description="Every frame was understood."
        ),
        *(dg.AssetCheckSpec("is_complete", asset=topic_key(topic), description=complete) for topic in _PROVEN),
    ]


@dg.multi_asset_check(name=OP_NAME, specs=_specs(), can_subset=True)
def read_topics_back(
    context: dg.AssetCheckExecutionContext, config: CheckConfig, ingest: IngestResource
) -> Iterator[dg.AssetCheckResult]:
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
    chosen = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    yield from (result for result in results if (result.asset_key, result.check_name) in chosen)


def _holes(found: Sequence[Gap]) -> dg.AssetCheckResult:
    is_open = [gap for gap in found if gap.healed == "no"]
    lines = [
        f"- {gap.from_:%H:%M:%S} to {gap.to:%H:%M:%S} {gap.feed}: {gap.reason}; healed: {gap.healed}" for gap in found
    ]
    return dg.AssetCheckResult(
        asset_key=topic_key(Topic.INGEST_GAPS),
        check_name="no_holes",
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_open else dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} gaps, {len(is_open)} of them not healed",
        metadata={"gaps": len(found), "open": len(is_open), "last": dg.MetadataValue.md("\n".join(lines[-_SHOWN:]))},
    )


def _letters(late: Sequence[dead_letters.Letter]) -> dg.AssetCheckResult:
    lines = [f"- {letter.at:%H:%M:%S} `{letter.id}` {letter.feed}: {letter.reason}" for letter in late]
    return dg.AssetCheckResult(
        asset_key=topic_key(Topic.INGEST_DEAD_LETTERS),
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
        asset_key=topic_key(topic),
        check_name="is_complete",
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
    selection=dg.AssetSelection.checks(read_topics_back),
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
