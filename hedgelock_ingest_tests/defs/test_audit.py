"""Audits read each minute once, leave none out, and tell for an hour what they found."""

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
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.audit.gaps import LONGEST_SILENCE_MS
from hedgelock_ingest.defs.audit import checks, silence
from hedgelock_ingest.defs.audit.proven import OVERLAP, Proven, first_unproven, wrong_of
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.kafka.topics import ensure_topics
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import load_settings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTES = st.integers(min_value=0, max_value=60)
SPANS = st.lists(st.tuples(MINUTES, MINUTES).map(sorted), max_size=8)


def a_span(begin: int, end: int, **wrong: list[str]) -> Proven:
    """Build what an audit left, in minutes after noon."""
    return Proven(NOON + timedelta(minutes=begin), NOON + timedelta(minutes=end), wrong)


@given(spans=SPANS, since=MINUTES)
def test_next_audit_begins_at_the_first_minute_that_none_has_read(spans: list[list[int]], since: int) -> None:
    """Whatever was audited by hand in between, no minute is left out, and none is read twice without need."""
    audited = [a_span(begin, end) for begin, end in sorted(spans)]
    begins = first_unproven(audited, since=NOON + timedelta(minutes=since))
    read = {minute for begin, end in spans for minute in range(begin, end)}
    expected = next(minute for minute in range(since, 62) if minute not in read)
    assert begins == NOON + timedelta(minutes=expected)


def test_seam_of_two_audits_is_wider_than_a_feed_may_be_silent() -> None:
    """Else a hole that lies across it would be in neither."""
    assert timedelta(milliseconds=LONGEST_SILENCE_MS) < OVERLAP


def test_finding_of_two_audits_is_told_once() -> None:
    """What lies in the overlap is one fact."""
    spans = [a_span(0, 10, trades=["a", "b"]), a_span(9, 20, trades=["b"], books=["c"])]
    assert wrong_of("trades", spans) == ["a", "b"]
    assert wrong_of("prices", spans) == []


@pytest.fixture
async def topics(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EmbeddedKafka:
    """A broker with empty topics of the test's own, for one linear symbol; an audit reads up to now."""
    (tmp_path / "collector.yaml").write_text("bybit_testnet: true\n")
    monkeypatch.setenv("HEDGELOCK_CONFIG", str(tmp_path / "collector.yaml"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("BYBIT_SPOT_SYMBOLS", "")
    monkeypatch.setenv("BYBIT_LINEAR_SYMBOLS", "BTCUSDT")
    monkeypatch.setenv("BYBIT_PUBLIC_FEEDS", "orderbook.50")
    monkeypatch.setattr(checks, "UNDER_WAY", timedelta(0))
    for topic in Topic:
        monkeypatch.setenv(topic.setting.upper(), topic_prefix + topic.value)
    await ensure_topics(load_settings())
    return kafka


@pytest.mark.proof
async def test_finding_stays_told_while_later_audits_read_on(
    topics: EmbeddedKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who looks half an hour later must not find that all is well."""
    monkeypatch.setattr(checks, "OVERLAP", timedelta(0))
    await published(topics, topic_prefix + Topic.MARKET_ORDER_BOOKS, [a_book(1, "snapshot"), a_book(2), a_book(5)])
    with dg.DagsterInstance.ephemeral() as instance:
        first, again = await audited(instance), await audited(instance)
        whole = await audited(instance, minutes=60)
    assert (first["records"], again["records"], whole["records"]) == (3, 0, 3)
    for judged in (first, again, whole):
        assert judged["failed"] == ["market_order_books_is_complete"]
        assert "update 5 follows 2" in judged["told"]["market_order_books_is_complete"]
    assert "the settings ask for none" in again["told"]["market_trades_is_complete"]


async def test_hour_without_a_record_is_not_complete(topics: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first start it is a warning, an error once a run of the stream is up; an unasked feed is neither."""
    monkeypatch.setenv("BYBIT_PUBLIC_FEEDS", "tickers,publicTrade")
    with dg.DagsterInstance.ephemeral() as instance:
        never = await audited(instance)
        with monkeypatch.context() as patch:
            patch.setattr(silence, "_START_MS", 0)
            began = _started(instance)
            up = await audited(instance)
    assert never["failed"] == ["market_data_is_complete", "market_trades_is_complete"]
    assert never["errors"] == []
    assert "no record yet" in never["told"]["market_data_is_complete"]
    assert "no run of the job stream is up" in never["told"]["market_data_is_complete"]
    assert up["errors"] == ["market_data_is_complete"]
    told = up["told"]["market_data_is_complete"]
    assert f"linear:BTCUSDT: no record at all; a run of the job stream is up since {began:%Y-%m-%d %H:%M:%S}" in told


async def test_topic_that_fell_silent_is_an_error_until_what_is_late_has_come(
    topics: EmbeddedKafka, topic_prefix: str
) -> None:
    """A stream that died half an hour ago leaves an hour with records in it, and it is not complete."""
    books = topic_prefix + Topic.MARKET_ORDER_BOOKS
    await published(topics, books, [a_book(1, "snapshot")], minutes_ago=[30])
    with dg.DagsterInstance.ephemeral() as instance:
        silent, again = await audited(instance), await audited(instance)
        late = [a_book(number) for number in range(2, 183)]
        await published(topics, books, late, minutes_ago=[(182 - number) / 6 for number in range(2, 183)])
        whole = await audited(instance)
    for judged in (silent, again):
        assert judged["errors"] == ["market_order_books_is_complete"]
        assert "linear:BTCUSDT: no record since" in judged["told"]["market_order_books_is_complete"]
    assert whole["failed"] == [], whole["told"]
    assert whole["records"] == 182, "what was silent was not read again"


async def test_silence_that_ended_and_has_no_gap_stays_told(topics: EmbeddedKafka, topic_prefix: str) -> None:
    """A topic that flows again does not make up for half an hour without a record."""
    books = topic_prefix + Topic.MARKET_ORDER_BOOKS
    await published(topics, books, [a_book(1, "snapshot")], minutes_ago=[30])
    with dg.DagsterInstance.ephemeral() as instance:
        await audited(instance)
        await published(topics, books, [a_book(2)])
        judged = [await audited(instance), await audited(instance)]
    for each in judged:
        assert each["errors"] == ["market_order_books_is_complete"]
        assert "s of silence before" in each["told"]["market_order_books_is_complete"]


async def test_stream_that_began_in_the_hour_is_judged_from_its_first_record(
    topics: EmbeddedKafka, topic_prefix: str
) -> None:
    """Ten minutes of records are proven for ten minutes, and what was before the first start is not missing."""
    minutes_ago = [10 - n / 6 for n in range(61)]
    books = [a_book(n + 1, "delta" if n else "snapshot") for n in range(61)]
    await published(topics, topic_prefix + Topic.MARKET_ORDER_BOOKS, books, minutes_ago=minutes_ago)
    with dg.DagsterInstance.ephemeral() as instance:
        judged = await audited(instance)
    assert judged["failed"] == [], judged["told"]
    told = judged["told"]["market_order_books_is_complete"]
    assert "the first record of the hour; 61 records" in told


def _started(instance: dg.DagsterInstance) -> datetime:
    """Leave a run of the stream that is up, and say since when."""

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
    """Publish values, each as of so many minutes ago."""
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
    """Audit once; give how many records were read, and what the checks say."""
    result = await asyncio.to_thread(
        dg.materialize,
        [checks.audit],
        instance=instance,
        resources={"ingest": IngestResource(bybit=BybitResource(), kafka=KafkaResource())},
        run_config={"ops": {"audit": {"config": {"minutes": minutes}}}},
    )
    (event,) = result.get_asset_materialization_events()
    judged = result.get_asset_check_evaluations()
    return {
        "records": event.step_materialization_data.materialization.metadata["records"].value,
        "errors": [
            check.check_name for check in judged if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
        ],
        "failed": [check.check_name for check in judged if not check.passed],
        "told": {check.check_name: check.description for check in judged},
    }
