"""Audits read each minute once, leave none out, and tell for an hour what they found."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.defs import checks
from hedgelock_ingest.defs.proven import OVERLAP, Proven, first_unproven, wrong_of
from hedgelock_ingest.defs.resources import BybitResource, IngestResource, KafkaResource
from hedgelock_ingest.gaps import LONGEST_SILENCE_MS
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


async def test_finding_stays_told_while_later_audits_read_on(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who looks half an hour later must not find that all is well."""
    (tmp_path / "collector.yaml").write_text("bybit_testnet: true\n")
    monkeypatch.setenv("HEDGELOCK_CONFIG", str(tmp_path / "collector.yaml"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setattr(checks, "UNDER_WAY", timedelta(0))
    monkeypatch.setattr(checks, "OVERLAP", timedelta(0))
    for topic in Topic:
        monkeypatch.setenv(topic.setting.upper(), topic_prefix + topic.value)
    await ensure_topics(load_settings())
    await published(kafka, topic_prefix + Topic.MARKET_ORDER_BOOKS, [a_book(1, "snapshot"), a_book(2), a_book(5)])
    with dg.DagsterInstance.ephemeral() as instance:
        first, again = await audited(instance), await audited(instance)
        whole = await audited(instance, minutes=60)
    assert (first["records"], again["records"], whole["records"]) == (3, 0, 3)
    for judged in (first, again, whole):
        assert judged["failed"] == ["market_order_books_is_complete"]
        assert "update 5 follows 2" in judged["told"]["market_order_books_is_complete"]
    assert "nothing missing" in again["told"]["market_trades_is_complete"]


def a_book(update_id: int, kind: str = "delta") -> Mapping[str, object]:
    at = datetime.now(UTC).isoformat()
    return {"timestamp": at, "symbol": "B", "category": "linear", "type": kind, "depth": 50, "update_id": update_id}


async def published(kafka: EmbeddedKafka, topic: str, values: Sequence[Mapping[str, object]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, json.dumps(value).encode(), key=b"linear:B")
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
        "failed": [check.check_name for check in judged if not check.passed],
        "told": {check.check_name: check.description for check in judged},
    }
