"""The schedule of the maintenance."""

import dagster as dg

from hedgelock_ingest.defs.maintenance.jobs import forget_old_runs_job

forget_schedule = dg.ScheduleDefinition(
    name="forget_every_hour",
    job=forget_old_runs_job,
    cron_schedule="7 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes old runs every hour.",
)
