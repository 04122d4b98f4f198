"""Stock pybit against the exchange: it must work as it does with Bybit."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pybit._http_manager
import pybit.unified_trading
import pytest
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP, WebSocket

from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.market.book_streams import BookStream
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

# pybit loses an answer that arrives before it has recorded its own request; Bybit does not answer that soon.
ANSWER_DELAY_S = 0.1


@pytest.fixture
def addressed(monkeypatch: pytest.MonkeyPatch) -> Callable[[SimulatedExchange], None]:
    """Point pybit, whose addresses and schemes are fixed, at an exchange."""

    def address(exchange: SimulatedExchange) -> None:
        url = f"{exchange.public_ws_url}/{{CHANNEL_TYPE}}"
        monkeypatch.setattr(pybit.unified_trading, "PUBLIC_WSS", url)
        monkeypatch.setattr(pybit._http_manager, "HTTP_URL", exchange.rest_url)

    return address


@pytest.mark.parametrize("category", ["spot", "linear"])
async def test_stock_pybit_receives_every_kind(category: str, addressed: Callable[[SimulatedExchange], None]) -> None:
    """Only the address is patched; pybit parses and merges itself."""
    received: dict[str, Any] = {}

    def keep(message: dict[str, Any]) -> None:
        received[message["topic"]] = message["data"]

    def subscribe() -> WebSocket:
        client = WebSocket(testnet=True, channel_type=category)
        for depth in (1, 50, 200):
            client.orderbook_stream(depth, "BTCUSDT", keep)
        client.ticker_stream("BTCUSDT", keep)
        client.trade_stream("BTCUSDT", keep)
        if category == "linear":
            client.all_liquidation_stream("BTCUSDT", keep)
        return client

    async with running_exchange(answer_delay_s=ANSWER_DELAY_S, liquidations_per_s=20) as exchange:
        addressed(exchange)
        client = await asyncio.to_thread(subscribe)
        try:
            await eventually(lambda: len(received) == (6 if category == "linear" else 5))
            assert float(received["tickers.BTCUSDT"]["lastPrice"]) > 0
            exchange.pause()
            for depth in (1, 50, 200):
                await assert_same_book(exchange, category, f"orderbook.{depth}.BTCUSDT", received)
        finally:
            await asyncio.to_thread(client.exit)


async def assert_same_book(exchange: SimulatedExchange, category: str, channel: str, received: dict[str, Any]) -> None:
    stream = exchange.channels.open(category, channel).stream
    assert isinstance(stream, BookStream)
    await eventually(lambda: received[channel]["u"] == stream.update_id)
    price, size = stream.market.instrument.price, stream.market.instrument.size
    bids, asks = stream.view.levels()
    assert dict(received[channel]["b"]) == {price(ticks): size(lots) for ticks, lots in bids}
    assert dict(received[channel]["a"]) == {price(ticks): size(lots) for ticks, lots in asks}


async def test_stock_pybit_reconnects_after_a_reset(addressed: Callable[[SimulatedExchange], None]) -> None:
    """Its one attempt succeeds when the exchange is available, and it sends the subscription again."""
    counts: list[int] = []

    def subscribe() -> WebSocket:
        client = WebSocket(testnet=True, channel_type="linear")
        client.trade_stream("BTCUSDT", lambda message: counts.append(len(message["data"])))
        return client

    async with running_exchange(answer_delay_s=ANSWER_DELAY_S, rate=100) as exchange:
        addressed(exchange)
        client = await asyncio.to_thread(subscribe)
        try:
            await eventually(lambda: len(counts) > 5)
            exchange.drop_lines()
            await eventually(lambda: exchange.lines.opened_count == 2)
            count = len(counts)
            await eventually(lambda: len(counts) > count + 5)
        finally:
            await asyncio.to_thread(client.exit)


async def test_stock_pybit_reads_the_market_endpoints(addressed: Callable[[SimulatedExchange], None]) -> None:
    """It raises its own error for a refused request."""
    async with running_exchange() as exchange:
        addressed(exchange)
        exchange.publish("spot", "publicTrade.BTCUSDT", 10)
        client = await asyncio.to_thread(HTTP, testnet=True)
        server_time = await asyncio.to_thread(client.get_server_time)
        assert abs(int(server_time["result"]["timeSecond"]) - time.time()) < 5
        tickers = await asyncio.to_thread(client.get_tickers, category="spot", symbol="BTCUSDT")
        book = await asyncio.to_thread(client.get_orderbook, category="spot", symbol="BTCUSDT", limit=5)
        assert tickers["result"]["list"][0]["bid1Price"] == book["result"]["b"][0][0]
        trades = await asyncio.to_thread(client.get_public_trade_history, category="spot", symbol="BTCUSDT")
        assert len(trades["result"]["list"]) >= 10
        rows = await asyncio.to_thread(client.get_instruments_info, category="linear", symbol="ETHUSDT")
        assert rows["result"]["list"][0]["symbol"] == "ETHUSDT"
        with pytest.raises(InvalidRequestError) as refused:
            await asyncio.to_thread(client.get_orderbook, category="spot", symbol="NOPE")
        assert refused.value.status_code == 10001
