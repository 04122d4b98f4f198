"""Outages of all lines while REST answers: prices, trades and the account continue, marked with their source."""

from pathlib import Path

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.processes.account import account_staged
from hedgelock_ingest_tests.processes.stage import eventually

TRADES = "publicTrade.BTCUSDT"
FEED_COUNT = 6
"""Trades and tickers of one symbol, and the four feeds of the account."""


async def test_rest_stands_in_for_all_lines(kafka: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """A hedger has prices, balances and positions although no line is open, and afterwards no trade is missing."""
    async with account_staged(kafka, topic_prefix, tmp_path, BYBIT_PUBLIC_FEEDS="publicTrade,tickers") as stage:
        await stage.begun()
        await stage.exchange.fault("sweep", category="linear", channel=TRADES, fills=1)  # the last one before the gap
        await stage.exchange.fault("refuse_connections", how="503")
        await stage.exchange.fault("drop_lines")
        await stage.stream.until_stats("no line", lambda found: len(found["feeds_without_line"]) == FEED_COUNT)
        await stage.exchange.act("fill", symbol="BTCUSDT", side="Buy", qty="0.01")
        await stage.exchange.fault("sweep", category="linear", channel=TRADES, fills=3)
        missed = set(await stage.exchange.sent("linear", TRADES, delivered=False))
        missed -= set(await stage.exchange.sent("linear", TRADES))

        async def stands_in() -> bool:
            tickers, trades = await stage.values(Topic.MARKET_DATA), await stage.values(Topic.MARKET_TRADES)
            of_rest = [one for one in tickers if one["source"] == "rest"]
            return len(of_rest) >= 2 and missed <= {one["trade_id"] for one in trades if one["healed"]}

        await eventually("prices and trades of REST", stands_in)
        view = await stage.view_is_right("while no line is open")
        stats = await stage.stream.stats()
        await stage.exchange.fault("accept_connections")
        await stage.stream.ready()
        await stage.private_gaps_recorded(1)
        gaps = {gap["feed"]: gap for gap in await stage.values(Topic.INGEST_GAPS)}
        assert await stage.values(Topic.INGEST_DEAD_LETTERS) == []

    assert missed
    assert view["source"] == "rest"
    assert stats["stand_in"]["answers"] >= 2
    assert gaps[f"linear:{TRADES}"]["healed"] == "yes", gaps
