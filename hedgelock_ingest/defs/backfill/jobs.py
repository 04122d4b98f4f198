"""The job that backfills one past hour."""

import dagster as dg

from hedgelock_ingest.defs.run_tags import tags_of
from hedgelock_ingest.defs.topics.assets import BACKFILLED

JOB_NAME = "backfill"

job = dg.define_asset_job(
    JOB_NAME,
    selection=[BACKFILLED],
    description="Publishes trades and executions of an hour that Kafka lacks, from REST. Safe to repeat.",
    executor_def=dg.in_process_executor,
    tags=tags_of("backfill", longest_s=3600),
)
