"""The stream outlives its daemon, bears a second one, and comes back after the whole machine was lost."""

import asyncio
import os
import signal
from pathlib import Path

import dagster as dg

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import DagsterStream
from hedgelock_ingest_tests.defs.dagster_stage import (
    BACK_WITHIN_S,
    NOTICED_WITHIN_S,
    holes,
    is_gone,
    managed,
    proved,
)
from hedgelock_ingest_tests.scenarios.stage import eventually


async def test_one_run_lives_whatever_happens_to_the_daemons(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A daemon's end costs nothing, two start one successor, and a lost machine's run is not waited for."""
    async with managed(kafka, topic_prefix, tmp_path, DagsterStream) as (stage, stream):
        first = await stream.worker()
        for number in (signal.SIGKILL, signal.SIGTERM):
            await asyncio.to_thread(stream.end_daemon, number)
            stream.start()
            await stream.until_told(f"run {first.run_id[:8]} is started")
        assert not await is_gone(first.pid)
        assert not await holes(stage), "the stream noticed"

        log_file = stream.start_another()
        await eventually("the second daemon looks", lambda: _looks(log_file), timeout_s=60)
        with stage.outage():
            os.kill(first.pid, signal.SIGKILL)
            second = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)
        await stream.until_told(f"run {second.run_id[:8]} is started")
        assert stream.live_runs() == [second.run_id]

        with stage.outage():
            await asyncio.to_thread(stream.kill_all)
            assert stream.status_of(second.run_id) is dg.DagsterRunStatus.STARTED, "somebody told of its death"
            stream.start()
            last = await stream.worker(after=second.run_id, timeout_s=NOTICED_WITHIN_S)
        await proved(stage, stream, live=last.run_id)


async def _looks(log_file: Path) -> bool:
    return "Checking for new runs for sensor: keep_streaming" in await asyncio.to_thread(log_file.read_text)
