"""Dagster's real processes restart the stream after every kind of failure, and Kafka holds each record once."""

import asyncio
import os
import signal
from pathlib import Path

import dagster as dg
import psutil
import pytest

from hedgelock_ingest.defs.topics.assets import topic_key
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.defs.dagster_process import DagsterStream
from hedgelock_ingest_tests.defs.dagster_stage import (
    BACK_WITHIN_S,
    HANDED_OVER_WITHIN_S,
    gaps_of,
    has_failed,
    is_gone,
    managed,
    proved,
)
from hedgelock_ingest_tests.processes.stage import eventually, now_ms

pytestmark = pytest.mark.proof

CODE_IS_BACK_WITHIN_S = 110.0
"""Dagster's daemon checks code servers once a minute; the stream continues meanwhile."""


async def test_stream_recovers_from_kills_and_terminate(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A killed worker and Terminate cost seconds, a killed code server almost nothing; no record is lost."""
    async with managed(kafka, topic_prefix, tmp_path, DagsterStream) as (stage, stream):
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

        killed_ms = now_ms()
        with stage.outage():
            code_server = psutil.Process(third.pid).ppid()
            os.kill(code_server, signal.SIGKILL)
            last = await stream.worker(after=third.run_id, timeout_s=CODE_IS_BACK_WITHIN_S)
        await eventually("the run without a code server ended", lambda: is_gone(third.pid))
        assert stream.status_of(third.run_id) is dg.DagsterRunStatus.SUCCESS
        await proved(stage, stream, live=last.run_id)
        longest_ms = max(gap.to_ms - gap.from_ms for gap in await gaps_of(stage) if gap.from_ms >= killed_ms)
        assert longest_ms < HANDED_OVER_WITHIN_S * 1000, "the stream stopped with its code server"


async def test_frozen_run_and_run_marked_as_failed_are_replaced(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A frozen worker is killed by its successor; one that is marked as failed by mistake drains."""
    async with managed(kafka, topic_prefix, tmp_path, DagsterStream) as (stage, stream):
        first = await stream.worker()
        await _figures_of(stream, first.run_id)
        with stage.outage(is_frozen=True):
            os.kill(first.pid, signal.SIGSTOP)
            second = await stream.worker(after=first.run_id, timeout_s=BACK_WITHIN_S)
        assert await has_failed(stream, first.run_id)
        assert await is_gone(first.pid)

        with stage.outage():
            await asyncio.to_thread(stream.mark_as_failed, second.run_id)
            last = await stream.worker(after=second.run_id, timeout_s=BACK_WITHIN_S)
        await eventually("the run marked as failed ended", lambda: is_gone(second.pid))
        await proved(stage, stream, live=last.run_id)


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


async def _is_materialised(stream: DagsterStream, key: dg.AssetKey) -> bool:
    def look() -> bool:
        with stream.instance() as instance:
            return instance.get_latest_materialization_event(key) is not None

    return await asyncio.to_thread(look)
