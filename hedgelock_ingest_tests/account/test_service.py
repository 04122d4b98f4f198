"""A shard with an account: private lines, gap filling, polls, and the key gate."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from hedgelock_ingest.account.scheduled_polls import Poller
from hedgelock_ingest.bybit.key_gate import KeyState
from hedgelock_ingest.errors import KeyRefused
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.account.account_stage import account_settings, running_shard
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange


async def test_account_is_published_completely(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Snapshots and polls deliver every part, so the merged view has the exchange's figures."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        async with running_shard(settings) as shard:
            await eventually(lambda: shard.service.stream.stats.records[Topic.ACCOUNT_UPDATES] >= 2)
            exchange.account.fill("BTCUSDT", "Buy", "0.01", fills=2)
            await eventually(lambda: shard.service.stream.stats.records[Topic.EXECUTIONS] >= 3)
            await shard.caught_up()
            books = exchange.account.books()
        update = (await shard.records(Topic.ACCOUNT_UPDATES))[-1]
        executions = await shard.records(Topic.EXECUTIONS)

    assert {name: Decimal(amount) for name, amount in update["balances"].items()} == {
        name: Decimal(amount) for name, amount in books["balances"].items()
    }
    assert update["ltv"] == books["loans"]["ltv"]
    assert [Decimal(each["size"]) for each in update["positions"]] == [Decimal("0.24")]
    assert len({each["exec_id"] for each in executions}) == len(executions) == 3  # with the one at the start
    assert await shard.records(Topic.INGEST_DEAD_LETTERS) == []


async def test_fills_without_a_live_line_are_filled_from_rest(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Events of the account between two connections are requested, published once, and noted in the gap."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_polls=False)
        async with running_shard(settings) as shard:
            stats = shard.service.stream.stats
            await eventually(lambda: stats.records[Topic.ACCOUNT_UPDATES] >= 1)
            [seen] = exchange.account.fill("BTCUSDT", "Buy", "0.01")
            await eventually(lambda: stats.records[Topic.EXECUTIONS] >= 2)
            exchange.refuse_connections()
            exchange.drop_lines("private")
            await eventually(lambda: "private:execution" in shard.service.receiver.without_line)
            unseen = exchange.account.fill("BTCUSDT", "Sell", "0.02", fills=2)
            exchange.accept_connections()
            await eventually(lambda: stats.records[Topic.INGEST_GAPS] >= 4)
            await shard.caught_up()
        executions = await shard.records(Topic.EXECUTIONS)
        gaps = {gap["feed"]: gap for gap in await shard.records(Topic.INGEST_GAPS)}

    healed_by_id = {each["exec_id"]: each["healed"] for each in executions}
    assert len(healed_by_id) == len(executions)
    assert [healed_by_id[each] for each in (seen, *unseen)] == [False, True, True]
    assert gaps["private:execution"]["healed"] == "yes"
    assert {gaps[f"private:{name}"]["healed"] for name in ("wallet", "position", "order")} == {"partly"}


async def test_trades_without_a_live_line_are_filled_from_rest(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Every trade of the exchange is in Kafka once, although the lines were down for some of them."""
    async with running_exchange(rate=200) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=None)
        async with running_shard(settings) as shard:
            stats = shard.service.stream.stats
            await eventually(lambda: stats.records[Topic.MARKET_TRADES] > 20)
            exchange.refuse_connections()
            exchange.drop_lines("linear")
            lost_from = len(exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False))
            await eventually(
                lambda: len(exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False)) > lost_from + 20
            )
            exchange.accept_connections()
            await eventually(lambda: stats.records[Topic.INGEST_GAPS] == 1)
            exchange.pause()
            await shard.caught_up()
            sent = exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False)
        trades = await shard.records(Topic.MARKET_TRADES)
        [gap] = await shard.records(Topic.INGEST_GAPS)

    assert sorted(trade["trade_id"] for trade in trades) == sorted(sent)
    assert (gap["healed"], gap["healed_by"]) == ("yes", "rest")
    assert any(trade.get("healed") for trade in trades)


async def test_trades_that_rest_cannot_deliver_are_noted_in_the_gap(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Without REST the gap stays, and its record states why."""
    async with running_exchange(rate=200) as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, key=None)
        async with running_shard(settings) as shard:
            stats = shard.service.stream.stats
            await eventually(lambda: stats.records[Topic.MARKET_TRADES] > 20)
            exchange.fail_rest("forbidden", count=None)
            exchange.drop_lines("linear")
            await eventually(lambda: stats.records[Topic.INGEST_GAPS] == 1)
        [gap] = await shard.records(Topic.INGEST_GAPS)

    assert gap["healed"] == "no"
    assert "403" in gap["missing"]


@pytest.mark.parametrize(
    ("name", "words"), [("trading", "BYBIT_ALLOW_TRADING_KEY"), ("expired", "expired"), ("ip-bound", "IP addresses")]
)
async def test_key_that_is_refused_at_start_opens_nothing(name: str, words: str, tmp_path: Path) -> None:
    """A key that may trade must not be used at all; the message names the action."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, None, "", tmp_path, key=KEYS[name])
        with pytest.raises(KeyRefused, match=words):
            async with running_shard(settings) as shard:
                await shard.task
        assert list(exchange.lines.select(None, None)) == []


async def test_trading_key_is_used_where_that_is_allowed(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The operator may allow it, and is warned."""
    async with running_exchange() as exchange:
        settings = account_settings(
            exchange, kafka, topic_prefix, tmp_path, key=KEYS["trading"], bybit_allow_trading_key=True
        )
        async with running_shard(settings) as shard:
            await eventually(lambda: not shard.service.receiver.without_line)
            assert any("may trade" in warning for warning in shard.service.rest_service.gate.status.warnings)


async def test_public_lines_run_while_the_key_is_unknown(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Private lines wait for Bybit's answer about the key, public ones do not, and all are up after it."""
    async with running_exchange() as exchange:
        exchange.fail_rest("status", path="/v5/user", count=None)
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path)
        async with running_shard(settings) as shard:
            receiver = shard.service.receiver
            await eventually(lambda: "linear:publicTrade.BTCUSDT" not in receiver.without_line)
            assert shard.service.rest_service.gate.status.state is KeyState.UNKNOWN
            assert "private:wallet" in receiver.without_line
            exchange.restore_rest()
            await eventually(lambda: not receiver.without_line, timeout_s=30)


async def test_polls_of_an_orchestrator_reach_the_merged_view(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The stream reads the polls of others, keeps its view of the loan current, and repeats none of their messages."""
    async with running_exchange() as exchange:
        settings = account_settings(exchange, kafka, topic_prefix, tmp_path, bybit_polls=False)
        async with running_shard(settings) as shard, Poller(settings) as poller:
            stats = shard.service.stream.stats
            await eventually(lambda: shard.service.rest_service.gap_fill.stats.answers == 12)
            await shard.caught_up()
            exchange.account.loans.repay("USDT", "100")
            before, own = stats.records[Topic.ACCOUNT_UPDATES], stats.records[Topic.ACCOUNT_RAW]
            async with asyncio.timeout(20):
                while stats.records[Topic.ACCOUNT_UPDATES] == before:  # it may not read the topic yet
                    polled = await poller.collateral()
                    await asyncio.sleep(0.2)
            await shard.caught_up()
            assert stats.records[Topic.ACCOUNT_RAW] == own
        update = (await shard.records(Topic.ACCOUNT_UPDATES))[-1]

    assert polled.message.collateral_info is not None
    assert update["loan_amount"] == str(polled.message.collateral_info.borrowed_amount)
