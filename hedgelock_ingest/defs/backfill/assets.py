"""The asset `backfilled_hours`: trades and executions of one past hour, one partition per hour."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta

import dagster as dg

from hedgelock_ingest import logs
from hedgelock_ingest.backfill.hour import Backfill, FeedBackfill, backfill_hour
from hedgelock_ingest.defs.backfill.jobs import JOB_NAME
from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.topics.assets import BACKFILLED, BACKFILLED_TOPICS, OWNERS, backfill_sources, topic_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.times import utc_text

CHECK_NAME = "hour_is_complete"


def asset(known: KnownSettings) -> dg.AssetsDefinition:
    """Build the asset; an hour becomes a partition when it is over."""
    begin = datetime.combine(known.settings.bybit_backfill_since, time(), UTC)

    @dg.asset(
        key=BACKFILLED,
        deps=backfill_sources(known),
        partitions_def=dg.HourlyPartitionsDefinition(begin, timezone="UTC"),
        check_specs=[
            dg.AssetCheckSpec(
                CHECK_NAME,
                asset=BACKFILLED,
                description="Bybit returned the complete hour of the last backfill, and nothing is left to publish.",
            )
        ],
        pool=JOB_NAME,  # one run at a time, however it was launched
        retry_policy=dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL),
        description="Hours, UTC, whose trades and executions were requested over REST; records that Kafka lacked were "
        "published to `market-trades` and `executions`, once, marked `healed`. Safe to repeat.",
        group_name="repair",
        owners=OWNERS,
        kinds={"bybit", "rest", "kafka"},
    )
    def backfilled_hours(
        context: dg.AssetExecutionContext, ingest: IngestResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        """Backfill one hour: the partition, or the last past hour if there is no partition."""
        settings = ingest.settings()
        logs.configure(settings)
        begin = context.partition_time_window.start if context.has_partition_key else _last_hour()
        try:
            done = asyncio.run(backfill_hour(settings, begin))
        except IngestError as error:
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
        if not context.has_partition_key:
            context.log_event(dg.AssetMaterialization(BACKFILLED, partition=_name(begin), metadata=_figures(done)))
        for event in _written(done):
            context.log_event(event)
        yield dg.MaterializeResult(metadata=_figures(done), check_results=[_check(done)])

    return backfilled_hours


def _last_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


def _name(hour: datetime) -> str:
    return f"{hour:%Y-%m-%d-%H:%M}"


def _written(done: Backfill) -> Iterator[dg.AssetMaterialization]:
    for topic in BACKFILLED_TOPICS:
        feeds = [feed for feed in done.feeds if feed.answer.topic is topic]
        if done.published(topic):
            yield dg.AssetMaterialization(
                topic_key(topic),
                description=f"{done.published(topic)} records of the hour {_name(done.begin)}, from REST",
                metadata={f"backfill: {name}": value for name, value in _sums(feeds).items()}
                | {"hour": _name(done.begin)},
            )


def _figures(done: Backfill) -> dict[str, int | str | dg.MarkdownMetadataValue]:
    return {
        "hour": _name(done.begin),
        **_sums(done.feeds),
        "shortfalls": "; ".join(done.shortfalls) or "none",
        "feeds": dg.MetadataValue.md(_table(done)),
    }


def _sums(feeds: list[FeedBackfill]) -> dict[str, int]:
    return {
        "rows from REST": sum(feed.answer.row_count for feed in feeds),
        "in the hour": sum(len(feed.answer.events) for feed in feeds),
        "already in Kafka": sum(feed.known for feed in feeds),
        "published": sum(feed.published for feed in feeds),
        "left to the stream": sum(feed.left for feed in feeds),
    }


def _table(done: Backfill) -> str:
    rows = [
        "| feed | rows from REST | in the hour | already in Kafka | published | left to the stream | REST begins at |",
        "|---|---|---|---|---|---|---|",
    ]
    for feed in done.feeds:
        rest = feed.answer
        reach = "nothing" if rest.reaches_ms is None else utc_text(rest.reaches_ms)
        counts = (rest.row_count, len(rest.events), feed.known, feed.published, feed.left)
        rows.append(f"| {rest.feed} | {' | '.join(map(str, counts))} | {reach} |")
    return "\n".join(rows)


def _check(done: Backfill) -> dg.AssetCheckResult:
    summary = "; ".join(done.shortfalls) or "Bybit returned the complete hour"
    return dg.AssetCheckResult(
        check_name=CHECK_NAME,
        passed=not done.shortfalls,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{_name(done.begin)}: {summary}",
        metadata={"hour": _name(done.begin), "published": sum(feed.published for feed in done.feeds)},
    )
