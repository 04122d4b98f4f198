"""The streaming op: one run carries one shard, as the same service that `hedgelock-ingest run` starts."""

import contextlib
import time

import dagster as dg
import structlog
from pydantic import Field

from hedgelock_ingest import logs
from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.run_tags import KIND_TAG
from hedgelock_ingest.defs.stream import handover
from hedgelock_ingest.defs.stream.checks import Reporter, report_end
from hedgelock_ingest.defs.stream.report import due, materialization
from hedgelock_ingest.defs.stream.run_guard import CHECK_INTERVAL_S, EndKind, Guard, RunEnd
from hedgelock_ingest.defs.stream.session import StreamSession
from hedgelock_ingest.defs.topics.assets import topics_of
from hedgelock_ingest.errors import IngestError, first_cause
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.status import Statistics

log = structlog.get_logger(__name__)

JOB_NAME = "stream"
_FIRST_REPORT_S = 10.0


_ABOUT = """
Bybit's WebSockets into Kafka: one run per shard, which lasts a day and then hands over. The sensor `keep_streaming`
starts and replaces runs; no other action is needed.

- **Status:** one run is Started, and the last line of its page begins with "Data flows". The check `data_flows` of
  asset `kafka/market-data` shows the same.
- **Restart:** Terminate the run. It drains and ends as Canceled (Dagster shows the step of a terminated run as failed),
  and the next run starts within half a minute.
- **Stop permanently:** switch `keep_streaming` off, then Terminate.
- **No start:** the ticks of `keep_streaming` state the reason.
"""


class StreamConfig(dg.Config):
    """Configuration of a run: its length, and the interval of its reports; the defaults suit nearly all deployments."""

    session_hours: float | None = Field(
        default=None, gt=0, description="hours until the run hands over to the next; STREAM_SESSION_HOURS by default"
    )
    report_interval_s: float = Field(default=60.0, ge=1, description="seconds between two materialisations of a topic")


@dg.op(
    description="Carries one shard from Bybit into Kafka, and reports its state every minute.",
    tags={"kind": "kafka"},
)
def carry_shard(context: dg.OpExecutionContext, config: StreamConfig, ingest: IngestResource) -> None:
    """Carry one shard until the run is asked to end, or cannot continue."""
    settings = ingest.settings().model_copy(update={"bybit_polls": False})  # scheduled assets poll
    logs.configure(settings)
    shard = context.partition_key if context.has_partition_key else settings.stream_shards[0]
    try:
        _carry(context, config, settings, shard)
    except BaseException:
        with contextlib.suppress(Exception):  # a failed report must not change how the run ends
            report_end(context, shard, settings.stream_shards)
        raise


def _carry(context: dg.OpExecutionContext, config: StreamConfig, settings: Settings, shard: str) -> None:
    session = StreamSession(settings, shard)
    session_s = (config.session_hours or settings.stream_session_hours) * 3600
    guard = Guard(context.instance, context.run_id, session, session_s)
    run_end = _wait_for_journal(context, guard)
    if run_end is not None:
        _conclude(context, run_end)
        return
    session.start()
    try:
        run_end = _watch(context, session, guard, config.report_interval_s)
    finally:
        has_ended = guard.drain()
        if has_ended and session.error is None:
            with contextlib.suppress(Exception):  # a failed log line must not change how the run ends
                context.log.info(
                    f"the stream ended; Kafka holds all up to position {session.position}; the next run continues there"
                )
    if session.error is not None:
        raise _failure(session.error) from session.error
    if not has_ended:
        raise dg.Failure("the stream did not end in time; the journal keeps the undelivered frames")
    _conclude(context, run_end)


def _wait_for_journal(context: dg.OpExecutionContext, guard: Guard) -> RunEnd | None:
    handover.tag_run(context.instance, context.run_id)
    try:
        shard = guard.session.settings.shard(guard.session.shard)
        return handover.wait_for_journal(guard, shard.journal_directory, report=context.log.info)
    except IngestError as error:
        raise _failure(error) from error


def _watch(context: dg.OpExecutionContext, session: StreamSession, guard: Guard, interval_s: float) -> RunEnd | None:
    reported: dict[Topic, Statistics] = {}
    reporter = Reporter(context, session.settings.stream_shards)
    report_at_s = time.monotonic() + min(_FIRST_REPORT_S, interval_s)
    while not session.wait(CHECK_INTERVAL_S):
        run_end = guard.check()
        if run_end is not None:
            return run_end
        now, now_s = session.statistics() if session.is_live else None, time.monotonic()
        if now is None:
            continue
        try:
            if is_time := now_s >= report_at_s:
                report_at_s = now_s + interval_s
                _report(context, session, now, reported)
            reporter.report(now, now_s, writes_line=is_time)  # last, since a run's page opens at its end
        except Exception as error:  # noqa: BLE001  # as in `Guard`: the stream continues without Dagster's storage
            log.warning("report_failed", cause=type(error).__name__)
    return None


def _report(
    context: dg.OpExecutionContext, session: StreamSession, now: Statistics, reported: dict[Topic, Statistics]
) -> None:
    shard = session.settings.shard(session.shard)
    topics = topics_of(session.feeds, has_private=session.settings.has_key and shard.carries_private_feeds)
    for topic in due(topics, now, reported):
        context.log_event(materialization(topic, now, reported.get(topic)))
        reported[topic] = now


def _failure(error: BaseException) -> dg.Failure:
    cause = first_cause(error)
    return dg.Failure(f"{type(cause).__name__}: {cause}", allow_retries=False)


def _conclude(context: dg.OpExecutionContext, run_end: RunEnd | None) -> None:
    match run_end:
        case RunEnd(EndKind.HANDED_OVER, reason):
            context.log.info(reason)
        case RunEnd(EndKind.CANCELED, _):
            raise dg.DagsterExecutionInterruptedError
        case RunEnd(EndKind.FAILED, reason):
            raise dg.Failure(reason, allow_retries=False)
        case None:
            raise dg.Failure("the stream ended without being asked to", allow_retries=False)


def job(known: KnownSettings) -> dg.JobDefinition:
    """Build the job, with one partition per shard."""

    @dg.job(
        name=JOB_NAME,
        description=_ABOUT,
        partitions_def=dg.StaticPartitionsDefinition(list(known.shards)),
        executor_def=dg.in_process_executor,
        tags={KIND_TAG: "stream", "dagster/priority": "10"},
    )
    def stream() -> None:
        carry_shard()

    return stream
