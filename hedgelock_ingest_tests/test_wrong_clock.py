"""A machine whose clock differs from Bybit's: gaps are recorded and filled as usual."""

from pathlib import Path

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.account.account_stage import RunningShard, account_settings, running_shard
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

TRADES = "linear:publicTrade.BTCUSDT"


async def _gaps_reach(shard: RunningShard, count: int) -> None:
    await eventually(lambda: shard.service.stream.stats.records[Topic.INGEST_GAPS] >= count)


@pytest.mark.parametrize("ahead_s", [30, pytest.param(-30, marks=pytest.mark.proof)])
@pytest.mark.parametrize("key", [KEYS["read-only"], pytest.param(None, marks=pytest.mark.proof)])
async def test_trades_of_two_gaps_are_filled_with_a_wrong_clock(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, ahead_s: int, key: ApiKey | None
) -> None:
    """The gap ends at Bybit's time of the first frame after it, not at this machine's time."""
    async with running_exchange() as exchange:
        exchange.pause()
        exchange.shift_clock(ahead_s)
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key, bybit_lines=1, bybit_polls=False)
        async with running_shard(settings) as shard:
            await eventually(lambda: not shard.service.receiver.without_line)
            exchange.publish("linear", "publicTrade.BTCUSDT", 3)
            await eventually(lambda: shard.service.stream.stats.records[Topic.MARKET_TRADES] >= 3)
            for gaps in (1, 2):
                exchange.refuse_connections()
                exchange.drop_lines("linear")
                await eventually(lambda: TRADES in shard.service.receiver.without_line)
                exchange.publish("linear", "publicTrade.BTCUSDT", 3)
                exchange.accept_connections()
                await _gaps_reach(shard, gaps)
            await shard.caught_up()
            sent = exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False)
        trades = await shard.records(Topic.MARKET_TRADES)
    assert [trade["trade_id"] for trade in trades] == sent


@pytest.mark.parametrize("key", [KEYS["read-only"], pytest.param(None, marks=pytest.mark.proof)])
async def test_trades_of_a_restart_are_filled_with_a_wrong_clock(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, key: ApiKey | None
) -> None:
    """A process that starts does not know Bybit's time yet, so it requests it."""
    async with running_exchange() as exchange:
        exchange.pause()
        exchange.shift_clock(30)
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key, bybit_lines=1, bybit_polls=False)
        async with running_shard(settings) as shard:
            await eventually(lambda: not shard.service.receiver.without_line)
            exchange.publish("linear", "publicTrade.BTCUSDT", 3)
            await eventually(lambda: shard.service.stream.stats.records[Topic.MARKET_TRADES] >= 3)
        exchange.publish("linear", "publicTrade.BTCUSDT", 3)
        async with running_shard(settings) as shard:
            await eventually(lambda: shard.service.stream.stats.records[Topic.MARKET_TRADES] >= 3)
            await shard.caught_up()
            sent = exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False)
        trades = await shard.records(Topic.MARKET_TRADES)
    assert [trade["trade_id"] for trade in trades] == sent


@pytest.mark.parametrize("ahead_s", [30, pytest.param(-30, marks=pytest.mark.proof)])
async def test_fills_of_two_gaps_are_filled_with_a_wrong_clock(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, ahead_s: int
) -> None:
    """REST is requested from Bybit's time of the last frame on, not from this machine's time."""
    async with running_exchange() as exchange:
        exchange.pause()
        exchange.shift_clock(ahead_s)
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_lines=1, bybit_polls=False)
        async with running_shard(settings) as shard:
            stats = shard.service.stream.stats
            await eventually(lambda: stats.records[Topic.ACCOUNT_UPDATES] >= 1)
            unseen = []
            for _ in range(2):
                gaps = stats.records[Topic.INGEST_GAPS]
                exchange.refuse_connections()
                exchange.drop_lines("private")
                await eventually(lambda: "private:execution" in shard.service.receiver.without_line)
                unseen += exchange.account.fill("BTCUSDT", "Sell", "0.02", fills=2)
                exchange.accept_connections()
                await _gaps_reach(shard, gaps + 4)
            await shard.caught_up()
        executions = await shard.records(Topic.EXECUTIONS)
    found = [each["exec_id"] for each in executions]
    assert found[-4:] == unseen
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("kind", ["status", pytest.param("silence", marks=pytest.mark.proof)])
async def test_lines_open_although_bybit_does_not_report_its_time(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path, kind: str
) -> None:
    """New frames must not be missed while the end of the gap before them is uncertain."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=None, bybit_lines=1)
        for _ in range(2):
            async with running_shard(settings) as shard:
                await eventually(lambda: not shard.service.receiver.without_line, timeout_s=5)
            exchange.fail_rest(kind, count=None, seconds=60)
