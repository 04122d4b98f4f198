"""A process that holds a journal is ended only if its run is finished or deleted."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from hedgelock_ingest.defs.stream import handover, heartbeats
from hedgelock_ingest.defs.stream.run_guard import EndKind, Guard
from hedgelock_ingest.defs.stream.session import StreamSession
from hedgelock_ingest.journal import owner_of
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.processes.stage import eventually

_OWNER = """
import sys, time
from pathlib import Path
from dagster import DagsterInstance
from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream import handover
from hedgelock_ingest.journal import Journal
journal = Journal.open(Path(sys.argv[1]), max_bytes=2**20)
instance = DagsterInstance.from_config(sys.argv[2])
handover.tag_run(instance, sys.argv[3])
heartbeats.write(instance, "main", heartbeats.Heartbeat.of_this_process(sys.argv[3]))
print("ready", flush=True)
time.sleep(600)
"""


@dg.job
def nothing() -> None:
    """Stand-in for the stream's job."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Create storage that several processes use."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


@pytest.fixture
def owner(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[tuple[dg.DagsterRun, int]]:
    """Start a process that holds a journal for a run, and does not drain."""
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    program = [sys.executable, "-c", _OWNER, str(tmp_path / "journal"), str(tmp_path), run.run_id]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield run, process.pid
    finally:
        process.kill()
        process.communicate()


def test_owner_of_a_journal_is_known_while_it_runs(owner: tuple[dg.DagsterRun, int], tmp_path: Path) -> None:
    """Reading the owner does not take the lock; a free journal has no owner."""
    assert [owner_of(tmp_path / "journal") for _ in range(2)] == [owner[1], owner[1]]
    psutil.Process(owner[1]).kill()
    psutil.Process(owner[1]).wait()
    assert owner_of(tmp_path / "journal") is None
    assert owner_of(tmp_path / "no journal") is None


async def test_process_of_a_finished_run_may_drain_and_is_then_killed(
    instance: dg.DagsterInstance, owner: tuple[dg.DagsterRun, int], tmp_path: Path
) -> None:
    """A hanging process would block the stream forever."""
    run, pid = owner
    instance.report_run_failed(run)
    assert handover.end_if_over(instance, pid, shard="main", may_drain=True)
    assert owner_of(tmp_path / "journal") == pid
    assert handover.end_if_over(instance, pid, shard="main", may_drain=False)

    async def is_free() -> bool:
        return owner_of(tmp_path / "journal") is None

    await eventually("the journal is free", is_free)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_frozen_process_of_a_finished_run_is_killed(
    instance: dg.DagsterInstance, owner: tuple[dg.DagsterRun, int], is_deleted: bool
) -> None:
    """It can neither drain nor see that its run is finished, and would hold the journal forever."""
    run, pid = owner
    process = psutil.Process(pid)
    process.suspend()
    if is_deleted:
        instance.delete_run(run.run_id)
    else:
        instance.report_run_failed(run)
    assert handover.end_if_over(instance, pid, shard="main", may_drain=True)
    process.wait(10)


@pytest.mark.parametrize("change", [{"process_started_s": 1.0}, {"host": "another"}, {"pid": 1}])
def test_process_without_a_matching_heartbeat_of_a_deleted_run_is_left_alone(
    instance: dg.DagsterInstance, owner: tuple[dg.DagsterRun, int], change: dict[str, Any]
) -> None:
    """The owner may be a process of the command line, or have the reused pid of an ended run."""
    run, pid = owner
    instance.delete_run(run.run_id)
    heartbeat = heartbeats.find(instance, "main")
    assert heartbeat is not None
    heartbeats.write(instance, "main", dataclasses.replace(heartbeat, **change))
    assert not handover.end_if_over(instance, pid, shard="main", may_drain=False)


def test_process_of_an_unfinished_run_is_left_alone(
    instance: dg.DagsterInstance, owner: tuple[dg.DagsterRun, int], tmp_path: Path
) -> None:
    """A second run, launched by hand, must not kill the first."""
    assert not handover.end_if_over(instance, owner[1], shard="main", may_drain=False)
    assert owner_of(tmp_path / "journal") == owner[1]


def test_second_run_ends_and_names_the_run_that_carries_the_shard(
    instance: dg.DagsterInstance, owner: tuple[dg.DagsterRun, int], tmp_path: Path
) -> None:
    """A hint to stop the owner of the journal would make an operator stop a working run."""
    second = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    guard = Guard(instance, second.run_id, StreamSession(Settings(), "main"), session_s=3600)
    run_end = handover.wait_for_journal(guard, tmp_path / "journal", report=print)
    assert run_end is not None
    assert run_end.kind is EndKind.HANDED_OVER, "a failure would count as a crash of the stream"
    assert run_end.reason.startswith(f"run {owner[0].run_id} carries this shard already: nothing to do")


def test_process_with_a_reused_pid_is_left_alone(
    instance: dg.DagsterInstance, owner: tuple[dg.DagsterRun, int], tmp_path: Path
) -> None:
    """Linux reuses pids; the start time distinguishes the processes."""
    run, pid = owner
    instance.report_run_failed(run)
    instance.add_run_tags(run.run_id, {"hedgelock/process-started": f"{psutil.Process(pid).create_time() - 60:.2f}"})
    assert not handover.end_if_over(instance, pid, shard="main", may_drain=False)
    assert owner_of(tmp_path / "journal") == pid
