"""Checks evaluate the records in Kafka, and old runs are deleted from Dagster."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs.audit import assets, jobs
from hedgelock_ingest.defs.maintenance.old_runs import delete_older_runs, delete_run
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.defs.run_tags import KIND_TAG
from hedgelock_ingest.sandbox.demo import dagster_home
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.stage import staged


@pytest.mark.proof
async def test_checks_distinguish_gaps_from_incompleteness(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """After a kill the gaps are reported, and nothing else is missing."""
    async with staged(kafka, topic_prefix, tmp_path, rate=500) as stage:
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy", lambda found: found["frames_acknowledged"] > 500)
        await stage.stream.kill()
        stage.stream.start()
        await stage.stream.ready()
        await stage.stream.until_stats("busy again", lambda found: found["frames_acknowledged"] > 500)
        # While the stream is up: a stopped one leaves topics without records, which is an error.
        results = await asyncio.to_thread(_checked, kafka, stage.stream.environment())
    failed = [check.check_name for check in results if not check.passed]
    assert failed == ["no_holes"], results
    assert sum(check.check_name.endswith("_is_complete") for check in results) == 4


def _checked(kafka: EmbeddedKafka, environment: dict[str, str]) -> list[dg.AssetCheckEvaluation]:

    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setattr(assets, "DELIVERY_MARGIN", timedelta(0))
        for name, value in environment.items():
            patch.setenv(name, value)
        servers = KafkaResource(bootstrap_servers=kafka.bootstrap_servers)
        ingest = IngestResource(bybit=BybitResource(), kafka=servers)
        job = dg.Definitions(assets=[assets.audit], jobs=[jobs.check_job], resources={"ingest": ingest})
        result = job.resolve_job_def(jobs.JOB_NAME).execute_in_process(instance=instance)
    return list(result.get_asset_check_evaluations())


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the storage of `dagster_home.yaml`."""
    dagster_home.prepare_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


def test_old_runs_are_deleted_and_young_ones_kept(stored: dg.DagsterInstance) -> None:
    """Only finished, old runs of the given kinds are deleted."""
    ours, another = _a_job({KIND_TAG: "poll"}), _a_job({})
    ours.execute_in_process(instance=stored)
    another.execute_in_process(instance=stored)
    now = datetime.now(UTC)
    assert delete_older_runs(stored, ["poll"], ENDED_WELL, now - timedelta(hours=1)) == 0
    assert delete_older_runs(stored, ["check"], ENDED_WELL, now + timedelta(hours=1)) == 0
    assert delete_older_runs(stored, ["poll"], [dg.DagsterRunStatus.FAILURE], now + timedelta(hours=1)) == 0
    assert delete_older_runs(stored, ["check", "poll"], ENDED_WELL, now + timedelta(hours=1)) == 1
    assert [run.tags.get(KIND_TAG) for run in stored.get_runs()] == [None]


def test_nothing_is_left_of_a_deleted_run(stored: dg.DagsterInstance, tmp_path: Path) -> None:
    """A run per minute that leaves files behind would fill a disk in weeks."""
    job = _a_job({KIND_TAG: "poll"})
    runs = [job.execute_in_process(instance=stored).run_id for _ in range(2)]
    assert all(_traces(tmp_path, run_id) >= {"event log", "log files", "results of checks"} for run_id in runs)
    delete_run(stored, runs[0])
    assert _traces(tmp_path, runs[0]) == set()
    assert _traces(tmp_path, runs[1]) >= {"event log", "log files", "results of checks"}, "another run's were deleted"


ENDED_WELL = [dg.DagsterRunStatus.SUCCESS]


def _a_job(tags: dict[str, str]) -> dg.JobDefinition:
    """Build a job that materialises an asset and checks it."""

    @dg.asset(check_specs=[dg.AssetCheckSpec("well", asset="looked_at")])
    def looked_at() -> Iterator[dg.MaterializeResult[None]]:
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

    job = dg.define_asset_job("look", selection=[looked_at], tags=tags, executor_def=dg.in_process_executor)
    return dg.Definitions(assets=[looked_at], jobs=[job]).resolve_job_def("look")


def _traces(folder: Path, run_id: str) -> set[str]:
    """Return what the storage holds of a run, by a search of every file and every column."""
    found = {"log files" for path in folder.rglob(run_id) if path.is_dir() and any(path.iterdir())}
    for path in folder.rglob("*.db*"):
        if path.name.startswith(run_id):
            found.add("event log")
        elif path.suffix == ".db":
            found |= _tables_with(path, run_id)
    return {"results of checks" if each == "asset_check_executions" else each for each in found}


def _tables_with(database: Path, run_id: str) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name
            for name in names
            if any(run_id in str(row) for row in connection.execute(f'SELECT * FROM "{name}"'))  # noqa: S608
        }
