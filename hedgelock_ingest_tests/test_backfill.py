"""Backfill: an hour gets what Kafka does not hold of it, once, whoever asks and however often."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from hedgelock_ingest.backfill import Backfill, FeedBackfill, backfill_hour
from hedgelock_ingest.models.account import Execution
from hedgelock_ingest.models.market import Trade
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.account_stage import account_settings, running_shard
from hedgelock_ingest_tests.kafka.reading import read_topic
from hedgelock_ingest_tests.past_hour import an_hour_ago, clock_at, trade
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

LINEAR, SPOT, EXECUTIONS = "linear:publicTrade.BTCUSDT", "spot:publicTrade.BTCUSDT", "private:execution"
MINUTE = timedelta(minutes=1)


async def values(settings: Settings, topic: Topic) -> list[Mapping[str, Any]]:
    found = await read_topic(settings.kafka_bootstrap_servers, settings.topic(topic.value))
    return [json.loads(record.value) for record in found if record.value is not None]


async def trade_ids(settings: Settings) -> list[str]:
    return [value["trade_id"] for value in await values(settings, Topic.MARKET_TRADES)]


async def exec_ids(settings: Settings) -> list[str]:
    return [value["exec_id"] for value in await values(settings, Topic.EXECUTIONS)]


def feed(result: Backfill, name: str) -> FeedBackfill:
    (found,) = [each for each in result.feeds if each.feed == name]
    return found


def fill(exchange: SimulatedExchange, count: int) -> list[str]:
    return exchange.account.fill("BTCUSDT", "Buy", "0.01", fills=count)


async def test_exactly_what_is_missing_is_published(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """What the stream heard of the hour stays as it is, the rest is brought once, and a second run brings nothing."""
    begin = an_hour_ago()
    async with running_exchange(rate=0) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path / "lost")
        with clock_at(exchange, begin - MINUTE):
            trade(exchange, 3)
            fill(exchange, 1)
        with clock_at(exchange, begin + 5 * MINUTE):
            heard, heard_fills = await _heard(exchange, settings)
            missed, missed_fills = trade(exchange, 30), fill(exchange, 2)
        with clock_at(exchange, begin + 61 * MINUTE):
            trade(exchange, 3)
            fill(exchange, 1)
        fresh = settings.model_copy(update={"journal_directory": tmp_path / "fresh"})
        first = await backfill_hour(fresh, begin)
        trades, fills = await values(settings, Topic.MARKET_TRADES), await values(settings, Topic.EXECUTIONS)
        again = await backfill_hour(fresh, begin)

    assert sorted(each["trade_id"] for each in trades) == sorted([*heard, *missed])
    assert set(missed_fills) < {each["exec_id"] for each in fills}
    for value in [Trade.model_validate(each) for each in trades if each["trade_id"] in missed]:
        assert (value.source, value.healed) == ("rest-backfill", True)
        assert begin <= value.timestamp < begin + timedelta(hours=1)
    brought = [Execution.model_validate(each) for each in fills if each["source"] == "rest-backfill"]
    assert {each.exec_id for each in brought} >= set(missed_fills)
    assert {each.exec_id for each in brought}.isdisjoint(heard_fills)
    assert first.published(Topic.MARKET_TRADES) == len(missed)
    assert first.published(Topic.EXECUTIONS) == len(missed_fills)
    assert feed(first, LINEAR).known == len(heard)
    assert feed(first, EXECUTIONS).known == len(heard_fills)
    assert first.shortfalls == []
    assert [each.published for each in again.feeds] == [0, 0]
    assert await trade_ids(settings) == [each["trade_id"] for each in trades]
    assert len(await exec_ids(settings)) == len(fills)


async def _heard(exchange: SimulatedExchange, settings: Settings) -> tuple[list[str], list[str]]:
    """Let a shard hear some trades and fills, and end it."""
    async with running_shard(settings) as shard:
        stats = shard.service.stream.stats
        await eventually(lambda: stats.records[Topic.ACCOUNT_UPDATES] >= 1)
        trades, fills = trade(exchange, 20), fill(exchange, 3)
        await eventually(lambda: stats.records[Topic.MARKET_TRADES] >= len(trades))
        await eventually(lambda: stats.records[Topic.EXECUTIONS] >= len(fills))
        await shard.caught_up()
    return trades, fills
