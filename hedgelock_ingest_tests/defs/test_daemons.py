"""The stream survives the end of its daemon, a second daemon, and the loss of the machine."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import DagsterStream
from hedgelock_ingest_tests.defs.dagster_stage import (
    BACK_WITHIN_S,
    gaps_of,
    is_gone,
    managed,
    proved,
)
from hedgelock_ingest_tests.processes.stage import eventually

pytestmark = pytest.mark.proof


async def test_run_continues_through_failures_of_the_daemons(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """
    The end of a daemon loses nothing, the run of a lost machine is replaced, and one successor carries the shard.

    Two daemons may launch one run twice; Dagster fails it then, and the next run follows. Both may also request a
    successor at the same time; then the second one ends, since the first carries the shard.
    """
    async with managed(kafka, topic_prefix, tmp_path, DagsterStream) as (stage, stream):
        first = await stream.worker()
        for number in (signal.SIGKILL, signal.SIGTERM):
            await asyncio.to_thread(stream.end_daemon, number)
            stream.start()
            await stream.until_tick_says(f"run {first.run_id[:8]} is started")
        assert not await is_gone(first.pid)
        assert not await gaps_of(stage), "the end of a daemon interrupted the stream"

        with stage.outage():
            await asyncio.to_thread(stream.kill_all)
            assert stream.status_of(first.run_id) is dg.DagsterRunStatus.STARTED, "the run was marked as ended"
            stream.start()
            second = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)

        log_file = stream.start_another()
        await eventually("the second daemon is at work", lambda: _evaluates(log_file, second.run_id), timeout_s=60)
        with stage.outage():
            os.kill(second.pid, signal.SIGKILL)
            last = await stream.worker(after=second.run_id, timeout_s=2 * BACK_WITHIN_S)
            while stream.launches(last.run_id) > 1:
                last = await stream.worker(after=last.run_id, timeout_s=2 * BACK_WITHIN_S)
        await stream.until_tick_says(f"run {last.run_id[:8]} is started")
        await eventually("one live run", lambda: _alone(stream, last.run_id), timeout_s=60)
        runs = [record.dagster_run for record in stream.runs()]
        successions = Counter(run.tags["dagster/run_key"] for run in runs)
        assert max(successions.values()) <= 2, successions  # one per daemon
        if len(successions) == len(runs) == sum(stream.launches(run.run_id) for run in runs):  # else more outages
            await proved(stage, stream, live=last.run_id)


async def _alone(stream: DagsterStream, run_id: str) -> bool:
    return await asyncio.to_thread(stream.live_runs) == [run_id]


async def _evaluates(log_file: Path, run_id: str) -> bool:
    """Whether a daemon monitors the run; the other daemon may take all of the sensor's ticks."""
    return f"Checking run {run_id}" in await asyncio.to_thread(log_file.read_text)
