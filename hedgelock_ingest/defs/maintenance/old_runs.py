"""Deletion of old finished runs, with all their files on the disk."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import dagster as dg
from sqlalchemy import text

from hedgelock_ingest.defs.run_tags import KIND_TAG

_PAGE = 200


def delete_older_runs(
    instance: dg.DagsterInstance, kinds: Sequence[str], statuses: Sequence[dg.DagsterRunStatus], before: datetime
) -> int:
    """Delete the runs of these kinds that entered one of these statuses before a time; return their number."""
    old = dg.RunsFilter(statuses=list(statuses), tags={KIND_TAG: list(kinds)}, updated_before=before)
    count = 0
    while records := instance.get_run_records(old, limit=_PAGE):
        for record in records:
            delete_run(instance, record.dagster_run.run_id)
        count += len(records)
    return count


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """
    Delete a run, its events, its log files and the results of its checks.

    Dagster's own `delete_run` leaves the last two, and on SQLite the file of the events, 150 kB a run, and offers no
    other way to delete them: a storage without the two attributes checked here keeps them.
    """
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    if hasattr(storage, "index_connection"):
        with storage.index_connection() as connection:
            connection.execute(text("DELETE FROM asset_check_executions WHERE run_id = :run_id"), {"run_id": run_id})
    if hasattr(storage, "path_for_shard"):
        for end in ("", "-wal", "-shm"):
            Path(storage.path_for_shard(run_id) + end).unlink(missing_ok=True)
