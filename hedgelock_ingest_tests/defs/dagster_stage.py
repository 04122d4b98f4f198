"""A scenario whose stream Dagster runs, with helpers of its tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import DagsterStream
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.processes.evidence import RecordedGap, gap_of, published
from hedgelock_ingest_tests.processes.proof import Proved
from hedgelock_ingest_tests.processes.stage import Stage, staged

BACK_WITHIN_S = 60.0
"""Limit for a restart after any failure but a stuck start, whether Dagster was informed of it or not."""
HANDED_OVER_WITHIN_S = 5.0
"""Measured are 0.1 s on an idle machine; a start of a process takes longer than this."""


@asynccontextmanager
async def managed[S: DagsterStream](
    kafka: EmbeddedKafka, prefix: str, folder: Path, make: type[S], **settings: Any
) -> AsyncIterator[tuple[Stage, S]]:
    """Set up a scenario whose stream Dagster runs, and end all its processes."""
    async with staged(kafka, prefix, folder, rate=300, **settings) as stage:
        stream = make(folder, stage.stream.settings)
        stage.stream = stream
        stream.start()
        try:
            yield stage, stream
        finally:
            await asyncio.to_thread(stream.end)


async def proved(stage: Stage, stream: DagsterStream, *, live: str) -> Proved:
    """Verify that nothing was lost or duplicated, and that `live` is the only live run."""
    await stage.all_received()
    found = await stage.proved()
    assert await asyncio.to_thread(stream.live_runs) == [live]
    assert found.in_kafka > 1_000, f"too few records for a proof: {found}"
    return found


async def gaps_of(stage: Stage) -> list[RecordedGap]:
    """Read the recorded gaps."""
    records = await read_topic(stage.kafka.bootstrap_servers, stage.topic(Topic.INGEST_GAPS))
    return [gap_of(record) for record in published(Topic.INGEST_GAPS, records)]


async def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def has_failed(stream: DagsterStream, run_id: str) -> bool:
    """Whether Dagster has a run as failed."""
    return await asyncio.to_thread(stream.status_of, run_id) is dg.DagsterRunStatus.FAILURE
