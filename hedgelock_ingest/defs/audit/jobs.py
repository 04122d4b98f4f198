"""The job that audits the topics."""

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
