"""
How a run comes by its shard's journal while another process still holds it.

Either the owner's session is over and it lets go when it sees that someone waits; or Dagster holds the owner's run
for over, and its process is killed: a frozen one would hold the journal for ever.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil

from hedgelock_ingest.defs.run_guard import Ending, Guard, Verdict
from hedgelock_ingest.defs.stream import heartbeats
from hedgelock_ingest.defs.stream.session import ENDING_S
from hedgelock_ingest.journal import locked_by, owner_of

log = logging.getLogger(__name__)

_HOST_TAG = "hedgelock/host"
_PID_TAG = "hedgelock/pid"
_PROCESS_STARTED_TAG = "hedgelock/process-started"
_PROBE_INTERVAL_S = 0.02
_LOOK_INTERVAL_S = 1.0
_REPORT_INTERVAL_S = 5.0
_DRAINING_S = 15.0
_SAME_START_S = 2.0
_NEEDLESS = "run {} carries this shard already: nothing to do; to restart it, Terminate that one"


def sign_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write on a run which process carries it; its page in the UI shows it."""
    process_started_s = psutil.Process().create_time()
    tags = {
        _HOST_TAG: socket.gethostname(),
        _PID_TAG: str(os.getpid()),
        _PROCESS_STARTED_TAG: f"{process_started_s:.2f}",
    }
    instance.add_run_tags(run_id, tags)


def wait_for_journal(guard: Guard, directory: Path, *, tell: Callable[[str], None]) -> Ending | None:
    """
    Wait until nobody holds the journal in `directory`; say why this run must end instead, if it must.

    While it waits it tells so now and then: what it tells is its sign of life, the owner has the other one.

    Raises:
        JournalLocked: Its owner is no run of Dagster's.
    """
    began_s = time.monotonic()
    look_at_s = began_s
    report_at_s = began_s + _REPORT_INTERVAL_S
    while (owner := owner_of(directory)) is not None:
        now_s = time.monotonic()
        if now_s >= look_at_s:
            look_at_s = now_s + _LOOK_INTERVAL_S
            ending = guard.look()
            if ending is not None:
                return ending
            if not _gives_way(guard, owner, waited_s=now_s - began_s):
                if (carrier := _run_that_carries(guard.instance, owner)) is not None:
                    return Ending(Verdict.HANDED_OVER, _NEEDLESS.format(carrier))
                raise locked_by(directory, owner)
        if now_s >= report_at_s:
            report_at_s = now_s + _REPORT_INTERVAL_S
            tell(f"waiting for process {owner} to let go of the journal, {now_s - began_s:.0f} s so far")
        time.sleep(_PROBE_INTERVAL_S)
    return None


def _gives_way(guard: Guard, owner: int, *, waited_s: float) -> bool:
    sign = heartbeats.find(guard.instance, guard.session.shard)
    drains_s = guard.session.settings.stop_timeout + ENDING_S  # its signs may be held up as long as it drains
    if sign is not None and sign.hands_over and sign.is_fresh(drains_s):
        heartbeats.announce(guard.instance, guard.session.shard, guard.run_id)
        return True
    return end_if_over(guard.instance, owner, shard=guard.session.shard, is_patient=waited_s < _DRAINING_S)


def end_if_over(instance: dg.DagsterInstance, pid: int, *, shard: str, is_patient: bool) -> bool:
    """
    End a process of this host if its run is over or deleted; report whether it is gone, or will be.

    Args:
        instance: Where runs stand.
        pid: The process; it is a run's own only if it was born when the run says.
        shard: Whose journal it holds; a run that was deleted is known by its last sign of life.
        is_patient: Leave it time to drain, unless it is frozen.
    """
    try:
        process = psutil.Process(pid)
        run_id = _run_that_is_over(instance, process, shard)
        if run_id is None:
            return False
        status = process.status()
        if not is_patient or status == psutil.STATUS_STOPPED:
            log.error("unwanted_owner_killed pid=%d run=%s status=%s", pid, run_id, status)
            process.kill()
    except psutil.NoSuchProcess:
        return is_patient  # it ended just now, or it was never a process of this host
    return True


def _run_that_is_over(instance: dg.DagsterInstance, process: psutil.Process, shard: str) -> str | None:
    run = _run_of(instance, process)
    if run is not None:
        return run.run_id if run.is_finished else None
    sign = heartbeats.find(instance, shard)
    if sign is None or (sign.host, sign.pid) != (socket.gethostname(), process.pid):
        return None
    is_same = abs(process.create_time() - sign.process_started_s) < _SAME_START_S
    return sign.run_id if is_same and instance.get_run_by_id(sign.run_id) is None else None


def _run_that_carries(instance: dg.DagsterInstance, pid: int) -> str | None:
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
        if abs(process.create_time() - process_started_s) < _SAME_START_S:
            return run
    return None
