"""The job that polls collateral, loans and wallet."""

import dagster as dg

from hedgelock_ingest.defs.polls.window import POLLED_PARTS
from hedgelock_ingest.defs.run_tags import tags_of
from hedgelock_ingest.defs.topics.assets import polled_key

JOB_NAME = "poll_account"
OP_NAME = "poll"

poll_job = dg.define_asset_job(
    JOB_NAME,
    # Polls follow each other without a pause. If their checks were planned, all would always show "in progress".
    selection=dg.AssetSelection.assets(*(polled_key(part) for part in POLLED_PARTS)).without_checks(),
    description="Polls collateral, loans and wallet into account_raw: a minute per scheduled run, otherwise once.",
    executor_def=dg.in_process_executor,
    tags=tags_of("poll", longest_s=300),
)
