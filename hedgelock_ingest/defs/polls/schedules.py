"""The schedule of the polls."""

import time

import dagster as dg

from hedgelock_ingest.defs.known_settings import KnownSettings
from hedgelock_ingest.defs.polls.jobs import JOB_NAME, OP_NAME
from hedgelock_ingest.defs.polls.slots import window_of
from hedgelock_ingest.models.times import unix_ms


def schedule(known: KnownSettings) -> dg.ScheduleDefinition:
    """Build the schedule; it is on by default if there is a key."""

    @dg.schedule(
        name="poll_every_minute",
        cron_schedule="* * * * *",
        job_name=JOB_NAME,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if known.settings.has_key else dg.DefaultScheduleStatus.STOPPED,
        description="One run per minute; each run owns its slots, so that every slot belongs to exactly one run.",
    )
    def poll_every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick_ms = unix_ms(context.scheduled_execution_time)
        if (window := window_of(tick_ms)).end_ms <= time.time() * 1000:
            return dg.SkipReason(f"{window} is over")
        config = {"ops": {OP_NAME: {"config": {"tick_ms": tick_ms}}}}
        return dg.RunRequest(run_key=f"{JOB_NAME}:{tick_ms}", run_config=config)

    return poll_every_minute
