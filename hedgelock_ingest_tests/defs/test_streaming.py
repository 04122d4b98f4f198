"""Dagster's real processes keep the stream alive through every kind of death, and Kafka holds each record once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dagster as dg
import psutil

from hedgelock_ingest.defs.lineage import topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import DagsterStream
from hedgelock_ingest_tests.scenarios.stage import Stage, eventually, staged

BACK_WITHIN_S = 60.0


@asynccontextmanager
async def managed(kafka: EmbeddedKafka, prefix: str, folder: Path) -> AsyncIterator[tuple[Stage, DagsterStream]]:
    """Set a scenario up whose stream Dagster runs, and take all its processes down."""
    async with staged(kafka, prefix, folder, rate=300) as stage:
        stream = DagsterStream(folder, stage.stream.settings)
        stage.stream = stream
        stream.start()
        try:
            yield stage, stream
        finally:
            await asyncio.to_thread(stream.end)


async def test_stream_comes_back_from_death_and_terminate(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A killed worker, Terminate and a killed code server each cost seconds and lose and double nothing."""
    async with managed(kafka, topic_prefix, tmp_path) as (stage, stream):
        first = await stream.worker()

        with stage.outage():
            os.kill(first.pid, signal.SIGKILL)
            second = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)
        assert stream.status_of(first.run_id) is dg.DagsterRunStatus.FAILURE

        with stage.outage():
            await asyncio.to_thread(stream.cancel, second.run_id)
            third = await stream.worker(after=second.run_id, timeout_s=BACK_WITHIN_S)
        assert stream.status_of(second.run_id) is dg.DagsterRunStatus.CANCELED
        assert '"event": "stream_stopped"' in stream.log(10_000), "it did not drain"

        with stage.outage():
            code_server = psutil.Process(third.pid).ppid()
            os.kill(code_server, signal.SIGKILL)
            last = await stream.worker(after=third.run_id, timeout_s=BACK_WITHIN_S)
        await eventually("the orphan ended", lambda: _is_gone(third.pid))
        assert stream.status_of(third.run_id) is dg.DagsterRunStatus.FAILURE

        await stage.all_received()
        proved = await stage.proved()
        live = [record for record in stream.runs() if not record.dagster_run.is_finished]
        assert [record.dagster_run.run_id for record in live] == [last.run_id]
    assert proved.in_kafka > 1_000, f"too little to prove anything: {proved}"


async def test_run_that_only_looks_alive_is_replaced(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """A frozen worker shows no life: it is held for failed, ends itself when it wakes, and the next one goes on."""
    async with managed(kafka, topic_prefix, tmp_path) as (stage, stream):
        first = await stream.worker()
        await _figures_of(stream, first.run_id)
        with stage.outage():
            os.kill(first.pid, signal.SIGSTOP)
            try:
                await eventually("it was held for failed", lambda: _has_failed(stream, first.run_id), timeout_s=50)
            finally:
                os.kill(first.pid, signal.SIGCONT)
            await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)
        assert await _is_gone(first.pid)
        await stage.all_received()
        await stage.proved()


async def _figures_of(stream: DagsterStream, run_id: str) -> None:
    key = topic_key(Topic.MARKET_ORDER_BOOKS)
    await eventually("figures", lambda: _is_materialised(stream, key), timeout_s=30)
    with stream.instance() as instance:
        event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.run_id == run_id
    assert event.asset_materialization is not None
    figures = event.asset_materialization.metadata
    assert {"records", "latency p99 ms", "lag frames", "gaps", "dead letters", "last position"} <= set(figures)
    assert float(str(figures["records per s"].value)) > 0


async def _is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def _has_failed(stream: DagsterStream, run_id: str) -> bool:
    return await asyncio.to_thread(stream.status_of, run_id) is dg.DagsterRunStatus.FAILURE


async def _is_materialised(stream: DagsterStream, key: dg.AssetKey) -> bool:
    def look() -> bool:
        with stream.instance() as instance:
            return instance.get_latest_materialization_event(key) is not None

    return await asyncio.to_thread(look)
