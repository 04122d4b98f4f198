"""The job that audits the topics, and its schedule."""

import dagster as dg

from hedgelock_ingest.defs.audit.checks import AUDIT
from hedgelock_ingest.defs.run_tags import tags_of

JOB_NAME = "check_topics"

check_job = dg.define_asset_job(
    JOB_NAME,
    selection=[AUDIT],
    description="Reads the topics back: gaps, dead letters, completeness.",
    executor_def=dg.in_process_executor,
    tags=tags_of("check", longest_s=900),
)

check_schedule = dg.ScheduleDefinition(
    name="check_every_ten_minutes",
    job=check_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads the last 20 minutes back, and evaluates the checks.",
)
