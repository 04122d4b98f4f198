"""Health and readiness of a shard, some of whose symbols Bybit does not serve."""

from pathlib import Path

import pytest

from hedgelock_ingest import status
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.service import Service
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.account.account_stage import account_settings, running_shard
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

REFUSAL = "error:handler not found"


async def status_of(folder: Path, *, served: list[str], refused: list[str]) -> tuple[status.Readiness, status.Health]:
    """Return the status of a shard that trades these linear symbols, after Bybit's answers to the subscriptions."""
    settings = Settings(
        bybit_spot_symbols=(),
        bybit_linear_symbols=(*served, *refused),
        bybit_public_feeds=("tickers", "publicTrade"),
        journal_directory=folder,
    )
    service = Service(settings, "main")
    try:
        line = LineKey("linear-a", 1)
        [channels] = {each.channels for each in service.plan.lines}
        service.receiver.line_opened(line, channels, lambda channel: None)
        for channel in channels:
            if channel.rpartition(".")[2] in served:
                service.receiver.channel_confirmed(line, channel)
            else:
                service.receiver.channel_rejected(line, channel, REFUSAL)
        return status.readiness(service), status.health(service)
    finally:
        await service.journal.close(clean=True)


async def test_symbol_that_bybit_refuses_makes_a_shard_degraded_and_not_unready(tmp_path: Path) -> None:
    """No restart and no wait would help, and the other symbols flow."""
    readiness, health = await status_of(tmp_path, served=["BTCUSDT", "ETHUSDT"], refused=["NONEUSDT"])

    assert [reason for reason in readiness.reasons if "line" in reason] == []
    assert health.status == "degraded"
    assert f"Bybit refuses tickers, publicTrade of linear NONEUSDT: {REFUSAL}" in health.reasons


async def test_category_all_of_whose_symbols_are_refused_is_not_ready(tmp_path: Path) -> None:
    """It has nothing to publish: someone has to look."""
    readiness, _ = await status_of(tmp_path, served=[], refused=["NONEUSDT", "NOTUSDT"])

    assert len([reason for reason in readiness.reasons if reason.startswith("no live line")]) == 4


@pytest.mark.proof
async def test_one_unknown_symbol_of_fifty_leaves_the_others_flowing(
    kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """The whole shard runs, and names it in `/health` and `/stats`."""
    listed = tuple(f"S{number:02}USDT" for number in range(49))
    async with running_exchange(linear_symbols=listed, rate=1_000) as exchange:
        settings = account_settings(
            exchange, kafka, topic_prefix, tmp_path, key=None, bybit_linear_symbols=(*listed, "NONEUSDT")
        )
        async with running_shard(settings) as shard:
            service = shard.service
            await eventually(lambda: status.readiness(service).status == "ready", timeout_s=30)
            await eventually(lambda: service.stream.stats.records[Topic.MARKET_TRADES] > 500, timeout_s=30)
            health, statistics = status.health(service), status.statistics(service)
        trades = await shard.records(Topic.MARKET_TRADES)

    assert [reason for reason in health.reasons if "NONEUSDT" in reason] == health.reasons
    assert (statistics.feeds_without_line, statistics.reconnects) == ([], 0)
    assert statistics.feeds_refused == ["linear:publicTrade.NONEUSDT"]
    assert {trade["symbol"] for trade in trades} == set(listed)
