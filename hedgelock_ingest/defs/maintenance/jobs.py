"""Maintenance jobs, started by an operator or a schedule: replay dead letters, delete old runs."""

import asyncio
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from hedgelock_ingest.audit import dead_letters
from hedgelock_ingest.defs.maintenance.old_runs import delete_older_runs
from hedgelock_ingest.defs.resources import IngestResource
from hedgelock_ingest.defs.run_tags import tags_of
from hedgelock_ingest.defs.topics.assets import topic_key
from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.models.topics import Topic

_SUCCEEDED = [dg.DagsterRunStatus.SUCCESS]
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_OTHER_KINDS = ("poll", "check", "backfill", "repair", "upkeep")


class ReplayConfig(dg.Config):
    """Configuration of the replay: the dead letters to select."""

    feed: str | None = Field(default=None, description="only feeds with this prefix, such as linear:publicTrade")


@dg.op(description="Translates dead letters with the present code and publishes the resulting records, once.")
def replay_letters(context: dg.OpExecutionContext, config: ReplayConfig, ingest: IngestResource) -> None:
    """Replay the selected dead letters."""
    settings = ingest.settings()
    try:
        found = asyncio.run(dead_letters.list_dead_letters(settings, feed=config.feed))
        replayed = asyncio.run(dead_letters.replay_letters(settings, found))
    except IngestError as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=error.transient) from error
    context.log_event(
        dg.AssetObservation(
            topic_key(Topic.INGEST_DEAD_LETTERS),
            metadata={
                "dead letters replayed": replayed.letters,
                "records published": replayed.records,
                "dead letters still failing": len(replayed.still_failing),
            },
        )
    )


@dg.job(
    name="replay_dead_letters",
    description="Replays dead letters; safe to repeat.",
    executor_def=dg.in_process_executor,
    tags=tags_of("repair", longest_s=3600),
)
def replay_dead_letters_job() -> None:
    """Replay dead letters."""
    replay_letters()


class ForgetConfig(dg.Config):
    """Configuration of the deletion: the time for which Dagster keeps runs; Kafka and the journals are not touched."""

    stream_days: float = Field(default=3.0, gt=0, description="days to keep runs of the stream")
    other_hours: float = Field(default=6.0, gt=0, description="hours to keep successful runs of other jobs")
    failed_hours: float = Field(default=24.0, gt=0, description="hours to keep unsuccessful runs of other jobs")


@dg.op(description="Deletes old finished runs with their events and logs, which Dagster itself never does.")
def forget_runs(context: dg.OpExecutionContext, config: ForgetConfig) -> None:
    """Delete old runs."""
    now = datetime.now(UTC)
    count = delete_older_runs(context.instance, ["stream"], _FINISHED, now - timedelta(days=config.stream_days))
    count += delete_older_runs(context.instance, _OTHER_KINDS, _SUCCEEDED, now - timedelta(hours=config.other_hours))
    count += delete_older_runs(context.instance, _OTHER_KINDS, _FINISHED, now - timedelta(hours=config.failed_hours))
    context.log.info(f"{count} old finished runs deleted")


@dg.job(
    name="forget_old_runs",
    description="Deletes old runs, so that Dagster's own storage stays bounded.",
    executor_def=dg.in_process_executor,
    tags=tags_of("upkeep", longest_s=900),
)
def forget_old_runs_job() -> None:
    """Delete old runs."""
    forget_runs()
