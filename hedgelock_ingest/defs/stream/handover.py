"""
Handover of a shard's journal to a new run while another process still holds it.

Either the owner's session is over, and it releases the journal when it sees that a successor waits; or the owner's run
is finished in Dagster's storage, and its process is killed, since a frozen process would hold the journal forever.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import structlog

from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.run_guard import EndKind, Guard, RunEnd
from hedgelock_ingest.defs.stream.session import SHUTDOWN_GRACE_S
from hedgelock_ingest.journal import locked_by, owner_of

log = structlog.get_logger(__name__)

_HOST_TAG = "hedgelock/host"
_PID_TAG = "hedgelock/pid"
_PROCESS_STARTED_TAG = "hedgelock/process-started"
_POLL_INTERVAL_S = 0.02
_CHECK_INTERVAL_S = 1.0
_REPORT_EVERY_S = 5.0
_DRAIN_GRACE_S = 15.0
_START_TIME_TOLERANCE_S = 2.0
_ALREADY_CARRIED = "run {} carries this shard already: nothing to do; to restart the stream, terminate that run"


def tag_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run with the process that carries it; its page in the UI shows the tags."""
    process_started_s = psutil.Process().create_time()
    tags = {
        _HOST_TAG: socket.gethostname(),
        _PID_TAG: str(os.getpid()),
        _PROCESS_STARTED_TAG: f"{process_started_s:.2f}",
    }
    instance.add_run_tags(run_id, tags)


def wait_for_journal(guard: Guard, directory: Path, *, report: Callable[[str], None]) -> RunEnd | None:
    """
    Wait until the journal in `directory` is free; return why this run must end instead, if it must.

    Reports every few seconds while it waits, since the heartbeat is the owner's: the sensor reads these events instead.

    Raises:
        JournalLocked: The owner is not a run of Dagster's.
    """
    began_s = time.monotonic()
    check_at_s = began_s
    report_at_s = began_s + _REPORT_EVERY_S
    while (owner := owner_of(directory)) is not None:
        now_s = time.monotonic()
        if now_s >= check_at_s:
            check_at_s = now_s + _CHECK_INTERVAL_S
            run_end = guard.check()
            if run_end is not None:
                return run_end
            if not _releases_journal(guard, owner, waited_s=now_s - began_s):
                if (carrier := _live_run_of(guard.instance, owner)) is not None:
                    return RunEnd(EndKind.HANDED_OVER, _ALREADY_CARRIED.format(carrier))
                raise locked_by(directory, owner)
        if now_s >= report_at_s:
            report_at_s = now_s + _REPORT_EVERY_S
            report(f"waiting for process {owner} to release the journal, {now_s - began_s:.0f} s so far")
        time.sleep(_POLL_INTERVAL_S)
    return None


def _releases_journal(guard: Guard, owner: int, *, waited_s: float) -> bool:
    heartbeat = heartbeats.find(guard.instance, guard.session.shard)
    drains_s = guard.session.settings.stop_timeout + SHUTDOWN_GRACE_S  # heartbeats may be delayed while it drains
    if heartbeat is not None and heartbeat.hands_over and heartbeat.is_fresh(drains_s):
        heartbeats.announce(guard.instance, guard.session.shard, guard.run_id)
        return True
    return end_if_over(guard.instance, owner, shard=guard.session.shard, may_drain=waited_s < _DRAIN_GRACE_S)


def end_if_over(instance: dg.DagsterInstance, pid: int, *, shard: str, may_drain: bool) -> bool:
    """
    End a process of this host if its run is finished or deleted; return whether it has ended, or will end.

    Args:
        instance: Dagster's storage of runs.
        pid: The process; it belongs to a run only if its start time is the one in the run's tags.
        shard: The shard whose journal it holds; a deleted run is identified by its last heartbeat.
        may_drain: Give it time to drain, unless it is frozen.
    """
    try:
        process = psutil.Process(pid)
        run_id = _finished_run_of(instance, process, shard)
        if run_id is None:
            return False
        status = process.status()
        if not may_drain or status == psutil.STATUS_STOPPED:
            log.error("journal_owner_killed", pid=pid, run=run_id, status=status)
            process.kill()
    except psutil.NoSuchProcess:
        return may_drain  # it has just ended, or was never a process of this host
    return True


def _finished_run_of(instance: dg.DagsterInstance, process: psutil.Process, shard: str) -> str | None:
    run = _run_of(instance, process)
    if run is not None:
        return run.run_id if run.is_finished else None
    heartbeat = heartbeats.find(instance, shard)
    if heartbeat is None or (heartbeat.host, heartbeat.pid) != (socket.gethostname(), process.pid):
        return None
    is_same = abs(process.create_time() - heartbeat.process_started_s) < _START_TIME_TOLERANCE_S
    return heartbeat.run_id if is_same and instance.get_run_by_id(heartbeat.run_id) is None else None


def _live_run_of(instance: dg.DagsterInstance, pid: int) -> str | None:
    try:
        run = _run_of(instance, psutil.Process(pid))
    except psutil.NoSuchProcess:
        return None
    return run.run_id if run is not None and not run.is_finished else None


def _run_of(instance: dg.DagsterInstance, process: psutil.Process) -> dg.DagsterRun | None:
    tags = {_HOST_TAG: socket.gethostname(), _PID_TAG: str(process.pid)}
    for run in instance.get_runs(dg.RunsFilter(tags=tags), limit=5):
        try:
            process_started_s = float(run.tags[_PROCESS_STARTED_TAG])
        except (KeyError, ValueError):
            continue
        if abs(process.create_time() - process_started_s) < _START_TIME_TOLERANCE_S:
            return run
    return None
