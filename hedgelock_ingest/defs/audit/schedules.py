"""The schedule of the audit."""

import dagster as dg

from hedgelock_ingest.defs.audit.jobs import check_job

check_schedule = dg.ScheduleDefinition(
    name="check_every_ten_minutes",
    job=check_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads the last 20 minutes back, and evaluates the checks.",
)
