"""The streaming op: one run carries one shard, as the same service that `hedgelock-ingest run` starts."""

import contextlib
import logging
import time

import dagster as dg
from pydantic import Field

from hedgelock_ingest import logs
from hedgelock_ingest.defs.known_settings import Known
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.run_guard import LOOK_INTERVAL_S, Ending, Guard, Verdict
from hedgelock_ingest.defs.stream import handover
from hedgelock_ingest.defs.stream.checks import Reporter, report_end
from hedgelock_ingest.defs.stream.report import due, materialization
from hedgelock_ingest.defs.stream.session import Session
from hedgelock_ingest.defs.topics.assets import topics_of
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.status import Statistics

log = logging.getLogger(__name__)

JOB_NAME = "stream"
KIND_TAG = "hedgelock/kind"
_FIRST_REPORT_S = 10.0


_ABOUT = """
Bybit's WebSockets into Kafka: one run a shard, which goes on for a day and hands over. The sensor `keep_streaming`
starts and replaces runs; nobody else needs to.

- **Is it well?** One run is Started, and the last line of its page begins with "Data flows". The check `data_flows` of
  asset `kafka/market-data` says the same.
- **Restart:** Terminate its run. It drains, ends as Canceled (its step as failed: so Dagster shows what was told to
  end), and the next one starts within half a minute.
- **Stop for good:** switch `keep_streaming` off, then Terminate.
- **It does not start:** the ticks of `keep_streaming` say why, in a sentence.
"""


class StreamConfig(dg.Config):
    """How long one run lasts, and how often it reports; the defaults are right for nearly everybody."""

    session_hours: float | None = Field(
        default=None, gt=0, description="then the run hands over to the next; without it STREAM_SESSION_HOURS says"
    )
    report_interval_s: float = Field(default=60.0, ge=1, description="seconds between two materialisations of a topic")


@dg.op(
    description="Carries one shard from Bybit into Kafka, and says each minute how it is.",
    tags={"kind": "kafka"},
)
def carry_shard(context: dg.OpExecutionContext, config: StreamConfig, ingest: IngestResource) -> None:
    """Carry one shard until it is told to end, or cannot go on."""
    settings = ingest.settings().model_copy(update={"bybit_polls": False})  # scheduled assets poll
    logs.configure(settings)
    shard = context.partition_key if context.has_partition_key else settings.stream_shards[0]
    try:
        _carry(context, config, settings, shard)
    except BaseException:
        with contextlib.suppress(Exception):  # how the run ends is not for this to decide
            report_end(context, shard, settings.stream_shards)
        raise


def _carry(context: dg.OpExecutionContext, config: StreamConfig, settings: Settings, shard: str) -> None:
    session = Session(settings, shard)
    session_s = (config.session_hours or settings.stream_session_hours) * 3600
    guard = Guard(context.instance, context.run_id, session, session_s)
    ending = _come_by_journal(context, guard)
    if ending is not None:
        _tell(context, ending)
        return
    session.start()
    try:
        ending = _hold(context, session, guard, config.report_interval_s)
    finally:
        has_ended = guard.drain()
        if has_ended and session.error is None:
            with contextlib.suppress(Exception):  # how the run ends is not for this line to decide
                context.log.info(
                    f"the stream ended; Kafka holds all up to position {session.position}, the next run goes on"
                )
    if session.error is not None:
        raise _failure(session.error) from session.error
    if not has_ended:
        raise dg.Failure("the stream did not end in time; the journal keeps what was not delivered")
    _tell(context, ending)


def _come_by_journal(context: dg.OpExecutionContext, guard: Guard) -> Ending | None:
    handover.sign_run(context.instance, context.run_id)
    try:
        shard = guard.session.settings.shard(guard.session.shard)
        return handover.wait_for_journal(guard, shard.journal_directory, tell=context.log.info)
    except IngestError as error:
        raise _failure(error) from error


def _hold(context: dg.OpExecutionContext, session: Session, guard: Guard, interval_s: float) -> Ending | None:
    told: dict[Topic, Statistics] = {}
    reporter = Reporter(context, session.settings.stream_shards)
    report_at_s = time.monotonic() + min(_FIRST_REPORT_S, interval_s)
    while not session.wait(LOOK_INTERVAL_S):
        ending = guard.look()
        if ending is not None:
            return ending
        now, now_s = session.statistics() if session.is_live else None, time.monotonic()
        if now is None:
            continue
        try:
            if is_time := now_s >= report_at_s:
                report_at_s = now_s + interval_s
                _report(context, session, now, told)
            reporter.tell(now, now_s, also=is_time)  # last, since a run's page opens at its end
        except Exception as error:  # noqa: BLE001  # as in `Guard`: the stream goes on without Dagster's storage
            log.warning("report_failed cause=%s", type(error).__name__)
    return None


def _report(context: dg.OpExecutionContext, session: Session, now: Statistics, told: dict[Topic, Statistics]) -> None:
    shard = session.settings.shard(session.shard)
    topics = topics_of(session.feeds, has_private=session.settings.has_key and shard.carries_private_feeds)
    for topic in due(topics, now, told):
        context.log_event(materialization(topic, now, told.get(topic)))
        told[topic] = now


def _failure(error: BaseException) -> dg.Failure:
    return dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False)


def _tell(context: dg.OpExecutionContext, ending: Ending | None) -> None:
    match ending:
        case Ending(Verdict.HANDED_OVER, reason):
            context.log.info(reason)
        case Ending(Verdict.CANCELED, _):
            raise dg.DagsterExecutionInterruptedError
        case Ending(Verdict.FAILED, reason):
            raise dg.Failure(reason, allow_retries=False)
        case None:
            raise dg.Failure("the stream ended by itself", allow_retries=False)


def job(known: Known) -> dg.JobDefinition:
    """Make the job, with one partition a shard."""

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
