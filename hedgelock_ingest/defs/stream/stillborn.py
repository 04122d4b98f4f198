"""
A process that was to carry a run and froze before its first word.

Dagster's queue launches one run after another, and waits up to a minute for the first word of each: while one is
frozen nothing is launched, neither the stream's next run. Once it is dead, the queue goes on at once.
"""

import logging
import time

import dagster as dg
import psutil

log = logging.getLogger(__name__)

_COARSE_S = 2.0
"""Linux tells births since a boot whose time it tells in whole seconds."""


def bury(instance: dg.DagsterInstance, run: dg.DagsterRun, *, launched_s: float) -> None:
    """
    Kill the process that the queue waits for, if it is this code server's: sensors run where runs are born.

    Since launches come one after another, nothing else was born since; where something was, nobody knows whose it is,
    and the queue waits. A run that has said a word is not waited for.

    Args:
        instance: Where runs tell what they do.
        run: It was launched, and has not started.
        launched_s: When, in seconds since 1970.
    """
    if instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        return
    workers = [child for child in psutil.Process().children() if _was_born_since(child, launched_s)]
    if len(workers) == 1:
        (worker,) = workers
        age_s = time.time() - worker.create_time()
        log.error("stillborn_worker_killed run=%s pid=%d age_s=%.0f", run.run_id, worker.pid, age_s)
        worker.kill()


def _was_born_since(child: psutil.Process, at_s: float) -> bool:
    try:
        return child.create_time() > at_s - _COARSE_S and any("spawn_main" in word for word in child.cmdline())
    except psutil.Error:
        return False
