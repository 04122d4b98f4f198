"""Audits read the last minutes back, and report what is missing."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aiokafka import AIOKafkaProducer

from hedgelock_ingest.defs.audit import assets, schedules, silent_keys
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.kafka.topic_admin import ensure_topics
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import load_settings


@pytest.fixture
async def topics(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EmbeddedKafka:
    """A broker with empty topics for this test, for one linear symbol; an audit reads up to now."""
    (tmp_path / "collector.yaml").write_text("bybit_testnet: true\n")
    monkeypatch.setenv("HEDGELOCK_CONFIG", str(tmp_path / "collector.yaml"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("BYBIT_SPOT_SYMBOLS", "")
    monkeypatch.setenv("BYBIT_LINEAR_SYMBOLS", "BTCUSDT")
    monkeypatch.setenv("BYBIT_PUBLIC_FEEDS", "orderbook.50")
    monkeypatch.setattr(assets, "DELIVERY_MARGIN", timedelta(0))
    for topic in Topic:
        monkeypatch.setenv(topic.setting.upper(), topic_prefix + topic.value)
    await ensure_topics(load_settings())
    return kafka


async def test_each_minute_is_read_by_two_audits(topics: EmbeddedKafka, topic_prefix: str) -> None:
    """If one audit fails, the next one still reports the problem."""
    books = [a_book(1, "snapshot"), a_book(2), a_book(5)]
    await published(topics, topic_prefix + Topic.MARKET_ORDER_BOOKS, books)
    with dg.DagsterInstance.ephemeral() as instance:
        first, again = await audited(instance), await audited(instance)
    for outcome in (first, again):
        assert outcome["records"] == 3
        assert outcome["failed"] == ["market_order_books_is_complete"]
        assert "update 5 follows 2" in outcome["report"]["market_order_books_is_complete"]
        assert "the settings configure none" in outcome["report"]["market_trades_is_complete"]


def test_window_of_an_audit_holds_two_of_its_intervals() -> None:
    """Otherwise an audit that fails would leave minutes unread."""
    assert schedules.check_schedule.cron_schedule == "*/10 * * * *"
    assert timedelta(minutes=20) <= assets.WINDOW


async def test_window_without_a_record_is_not_complete(topics: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first start it is a warning, an error once a run is up; a feed not configured is neither."""
    monkeypatch.setenv("BYBIT_PUBLIC_FEEDS", "tickers,publicTrade")
    with dg.DagsterInstance.ephemeral() as instance:
        never = await audited(instance)
        with monkeypatch.context() as patch:
            patch.setattr(silent_keys, "_START_MS", -1)
            began = _started(instance)
            up = await audited(instance)
    assert never["failed"] == ["market_data_is_complete", "market_trades_is_complete"]
    assert never["errors"] == []
    assert "no record yet" in never["report"]["market_data_is_complete"]
    assert "no run of the job stream is up" in never["report"]["market_data_is_complete"]
    assert up["errors"] == ["market_data_is_complete"]
    since = f"a run of the job stream is up since {began:%Y-%m-%d %H:%M:%S}"
    assert f"linear:BTCUSDT: no record in the last 20 minutes; {since}" in up["report"]["market_data_is_complete"]


async def test_topic_that_fell_silent_is_an_error_until_late_records_arrive(
    topics: EmbeddedKafka, topic_prefix: str
) -> None:
    """A stream that ended some minutes ago leaves a window with records that is not complete."""
    books = topic_prefix + Topic.MARKET_ORDER_BOOKS
    await published(topics, books, [a_book(1, "snapshot")], minutes_ago=[10])
    with dg.DagsterInstance.ephemeral() as instance:
        silent = await audited(instance)
        late = [a_book(number) for number in range(2, 63)]
        await published(topics, books, late, minutes_ago=[(62 - number) / 6 for number in range(2, 63)])
        complete = await audited(instance)
    assert silent["errors"] == ["market_order_books_is_complete"]
    assert "linear:BTCUSDT: no record since" in silent["report"]["market_order_books_is_complete"]
    assert complete["failed"] == [], complete["report"]
    assert complete["records"] == 62


async def test_silence_that_ended_and_has_no_gap_is_an_error(topics: EmbeddedKafka, topic_prefix: str) -> None:
    """New records do not excuse ten minutes without a record."""
    books = topic_prefix + Topic.MARKET_ORDER_BOOKS
    await published(topics, books, [a_book(1, "snapshot"), a_book(2)], minutes_ago=[10, 0])
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = await audited(instance)
    assert outcome["errors"] == ["market_order_books_is_complete"]
    assert "s of silence before" in outcome["report"]["market_order_books_is_complete"]


async def test_stream_that_has_just_begun_is_checked_from_its_first_record(
    topics: EmbeddedKafka, topic_prefix: str
) -> None:
    """Ten minutes of records are checked for ten minutes; nothing before the first start counts as missing."""
    minutes_ago = [10 - n / 6 for n in range(61)]
    books = [a_book(n + 1, "delta" if n else "snapshot") for n in range(61)]
    await published(topics, topic_prefix + Topic.MARKET_ORDER_BOOKS, books, minutes_ago=minutes_ago)
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = await audited(instance)
    assert outcome["failed"] == [], outcome["report"]
    assert "the first record; 61 records" in outcome["report"]["market_order_books_is_complete"]


def _started(instance: dg.DagsterInstance) -> datetime:
    """Store a running run of the stream, and return its start time."""

    @dg.job(name="stream")
    def stream() -> None:
        pass

    run = instance.create_run_for_job(stream)
    starts = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "stream")
    instance.report_dagster_event(starts, run.run_id)
    [record] = instance.get_run_records(dg.RunsFilter(job_name="stream"))
    return datetime.fromtimestamp(record.start_time or 0, UTC)


def a_book(update_id: int, kind: str = "delta") -> Mapping[str, object]:
    at = datetime.now(UTC).isoformat()
    return {
        "timestamp": at,
        "symbol": "BTCUSDT",
        "category": "linear",
        "type": kind,
        "depth": 50,
        "update_id": update_id,
    }


async def published(
    kafka: EmbeddedKafka, topic: str, values: Sequence[Mapping[str, object]], *, minutes_ago: Sequence[float] = ()
) -> None:
    """Publish values with timestamps so many minutes ago."""
    now_s = time.time()
    at_ms = [int((now_s - 60 * minutes) * 1000) for minutes in minutes_ago or [0] * len(values)]
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    try:
        for value, timestamp_ms in zip(values, at_ms, strict=True):
            await producer.send_and_wait(
                topic, json.dumps(value).encode(), key=b"linear:BTCUSDT", timestamp_ms=timestamp_ms
            )
    finally:
        await producer.stop()


async def audited(instance: dg.DagsterInstance, *, minutes: float | None = None) -> dict[str, Any]:
    """Audit once; return the number of records read, and the results of the checks."""
    result = await asyncio.to_thread(
        dg.materialize,
        [assets.audit],
        instance=instance,
        resources={"ingest": IngestResource(bybit=BybitResource(), kafka=KafkaResource())},
        run_config={"ops": {"audit": {"config": {"minutes": minutes}}}},
    )
    (event,) = result.get_asset_materialization_events()
    evaluations = result.get_asset_check_evaluations()
    return {
        "records": event.step_materialization_data.materialization.metadata["records"].value,
        "errors": [
            check.check_name
            for check in evaluations
            if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
        ],
        "failed": [check.check_name for check in evaluations if not check.passed],
        "report": {check.check_name: check.description for check in evaluations},
    }
