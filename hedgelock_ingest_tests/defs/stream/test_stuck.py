"""The stream recovers from a run stuck in its start, a full queue and a crash loop."""

import asyncio
import os
import signal
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.defs.run_tags import tags_of
from hedgelock_ingest.errors import JournalLocked
from hedgelock_ingest.journal.lock import JournalLock
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import SHARD, DagsterStream
from hedgelock_ingest_tests.defs.dagster_stage import (
    BACK_WITHIN_S,
    has_failed,
    is_gone,
    managed,
    proved,
)
from hedgelock_ingest_tests.processes.stage import eventually

pytestmark = pytest.mark.proof

QUEUE_WAITS_S = 60
"""How long Dagster's queue waits for the first event of a launched run before it launches another one."""


@dg.job
def something_else() -> None:
    """A job unrelated to the stream."""


async def test_stream_recovers_from_a_run_that_never_starts_and_a_full_queue(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A worker frozen before its first event is replaced, and runs that fill the queue do not block the stream."""
    # With the default, 25 s, it took 40 s, and 55 s on a machine with a sevenfold load.
    async with managed(kafka, topic_prefix, tmp_path, DagsterStream, STREAM_START_TIMEOUT="20") as (stage, stream):
        first = await stream.worker()
        with stage.outage():
            known = {process.pid for process in stream.processes()}
            os.kill(first.pid, signal.SIGKILL)
            os.kill(await stream.next_worker_pid(known), signal.SIGSTOP)
            stuck = stream.runs()[0].dagster_run
            assert stuck.status is dg.DagsterRunStatus.STARTING, "it was stopped too late to prove anything"
            second = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S + QUEUE_WAITS_S)
        assert await has_failed(stream, stuck.run_id)

        polls = await asyncio.to_thread(_fill_queue, stream)
        with stage.outage():
            os.kill(second.pid, signal.SIGKILL)
            last = await stream.worker(after=second.run_id, timeout_s=BACK_WITHIN_S)

        async def are_over() -> bool:
            return all([await has_failed(stream, run_id) for run_id in polls])

        await eventually("the dead polls released their slots", are_over)
        await proved(stage, stream, live=last.run_id)


async def test_crash_loop_backs_off_and_ends_with_its_cause(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """While another program holds the journal each start fails; the ticks state why, and each wait is longer."""
    async with managed(kafka, topic_prefix, tmp_path, DagsterStream) as (stage, stream):
        first = await stream.worker()
        with stage.outage():
            os.kill(first.pid, signal.SIGKILL)
            await eventually("the process has ended", lambda: is_gone(first.pid))
            other_program = await _lock(stream.journal / SHARD / "journal.lock")
            reason = await stream.until_tick_says("3 runs in a row failed early; next start in", timeout_s=90)
            assert f"JournalLocked: journal {stream.journal / SHARD} is owned by process {os.getpid()}" in reason
            other_program.release()
            last = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)
        waits_s = _waits_s(stream)
        assert [wait_s >= least_s for wait_s, least_s in zip(waits_s, (0, 10, 20), strict=True)] == [True] * 3, waits_s
        await proved(stage, stream, live=last.run_id)


async def _lock(path: Path) -> JournalLock:
    """Take a journal's lock; a killed process that waits for the disk may hold it a little longer."""
    taken: list[JournalLock] = []

    async def is_taken() -> bool:
        with suppress(JournalLocked):
            taken.append(JournalLock(path))
        return bool(taken)

    await eventually("its lock is free", is_taken)
    return taken[0]


def _waits_s(stream: DagsterStream) -> list[float]:
    """Return the seconds between the end of each run and the creation of the next."""
    records = reversed(stream.runs())
    return [later.create_timestamp.timestamp() - (earlier.end_time or 0) for earlier, later in pairwise(records)]


def _fill_queue(stream: DagsterStream) -> list[str]:
    """
    Store more started runs than any limit allows, without a process, as a lost machine leaves them.

    Returns: the runs with a short time limit.
    """
    with stream.instance() as instance:
        for _ in range(30):
            _start(instance, {})
        return [_start(instance, tags_of("poll", longest_s=10)) for _ in range(4)]


def _start(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    run = instance.create_run_for_job(something_else, tags=tags)
    began = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=run.job_name)
    instance.report_dagster_event(began, run.run_id)
    return run.run_id
