"""The stream loses nothing while Dagster's storage does not answer."""

import asyncio
from pathlib import Path

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.one_run import OneRun
from hedgelock_ingest_tests.processes.stage import eventually, staged

pytestmark = pytest.mark.proof


async def test_stream_continues_while_dagsters_storage_refuses(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A failed report or heartbeat does not end the run, and the same run reports again afterwards."""
    async with staged(kafka, topic_prefix, tmp_path, rate=300) as stage:
        stage.stream = stream = OneRun(tmp_path, stage.stream.settings)
        stream.start()
        try:
            await stream.ready(timeout_s=60)

            async def has_reported(since: float = 0.0) -> bool:
                report = await asyncio.to_thread(stream.last_report)
                return report is not None and report.timestamp > since

            await eventually("a report", has_reported, timeout_s=30)

            async def has_failed() -> bool:
                log = stream.log_file.read_text()
                return not stream.is_running or ("report_failed" in log and "storage_unusable" in log)

            with stream.storage_refuses():
                await eventually("a report and a heartbeat were refused", has_failed, timeout_s=30)
                goal = (await stream.stats())["journal"]["acknowledged_position"] + 300
                await stream.until_stats("further", lambda now: now["journal"]["acknowledged_position"] > goal)
            last = stream.last_report()
            assert last is not None
            await eventually("a report", lambda: has_reported(last.timestamp), timeout_s=30)

            await stage.all_received()
            await stage.proved()
        finally:
            await asyncio.to_thread(stream.end)
