"""Stock ccxt against the exchange: a second independent client that must work as it does with Bybit."""

import asyncio
from typing import Any

import ccxt
import ccxt.pro
import pytest

from hedgelock_ingest.sandbox.exchange import KEYS, SimulatedExchange
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

SWAP, SPOT = "BTC/USDT:USDT", "BTC/USDT"


def addressed(client: Any, exchange: SimulatedExchange) -> Any:
    """Point a client at an exchange; only its addresses are changed."""
    private = exchange.private_ws_url
    client.urls["api"] = {
        **dict.fromkeys(("spot", "futures", "v2", "public", "private"), exchange.rest_url),
        "ws": {
            "public": {category: f"{exchange.public_ws_url}/{category}" for category in ("spot", "linear")},
            "private": {"spot": {"unified": private, "nonUnified": private}, "contract": private, "usdc": private},
        },
    }
    return client


def credentials(key: str = "read-only") -> dict[str, str]:
    return {"apiKey": KEYS[key].api_key, "secret": KEYS[key].api_secret}


async def test_stock_ccxt_reads_balance_positions_trades_and_orders() -> None:
    """ccxt signs requests itself and returns its own unified structures."""
    async with running_exchange() as exchange:
        order_id = exchange.account.place_order("BTCUSDT", "Buy", "0.01", "60000")
        exchange.set_price("BTCUSDT", 63_000)
        client = addressed(ccxt.bybit(credentials()), exchange)
        balance = await asyncio.to_thread(client.fetch_balance)
        assert (balance["USDT"]["total"], balance["BTC"]["total"]) == (49991.2, 0.5)
        [position] = await asyncio.to_thread(client.fetch_positions)
        assert (position["symbol"], position["side"], position["contracts"]) == (SWAP, "short", 0.25)
        assert (position["entryPrice"], position["unrealizedPnl"]) == (64000, 250)
        [trade] = await asyncio.to_thread(client.fetch_my_trades, SWAP)
        assert trade["id"] == exchange.account.executions[0].exec_id
        assert trade["fee"] == {"currency": "USDT", "cost": 8.8, "rate": 0.00055}
        [order] = await asyncio.to_thread(client.fetch_open_orders, SWAP)
        assert (order["id"], order["status"], order["remaining"]) == (order_id, "open", 0.01)
        book = await asyncio.to_thread(client.fetch_order_book, SPOT, 5)
        assert book["bids"][0][0] < book["asks"][0][0]


@pytest.mark.parametrize(("key", "error"), [("ip-bound", ccxt.PermissionDenied), ("expired", ccxt.AuthenticationError)])
async def test_stock_ccxt_raises_the_right_error_for_a_refused_key(key: str, error: type[Exception]) -> None:
    """It maps Bybit's codes to its errors."""
    async with running_exchange() as exchange:
        client = addressed(ccxt.bybit(credentials(key)), exchange)
        with pytest.raises(error):
            await asyncio.to_thread(client.fetch_balance)


async def test_stock_ccxt_watches_the_market_and_the_account() -> None:
    """Order books, trades, balance, positions and own trades arrive over plain WebSocket."""
    async with running_exchange(rate=100) as exchange:
        client = addressed(ccxt.pro.bybit(credentials()), exchange)
        try:
            book = await client.watch_order_book(SWAP, 50)
            assert book["bids"][0][0] < book["asks"][0][0]
            assert (await client.watch_trades(SPOT))[0]["price"] > 0
            assert [one["contracts"] for one in await client.watch_positions()] == [0.25]
            watching = [
                asyncio.create_task(watched)
                for watched in (client.watch_balance(), client.watch_my_trades(), client.watch_positions())
            ]
            await eventually(lambda: subscribed(exchange) == {"wallet", "execution", "position"})
            [exec_id] = exchange.account.fill("BTCUSDT", "Buy", "0.05")
            async with asyncio.timeout(10):
                balance, trades, positions = await asyncio.gather(*watching)
            assert balance["USDT"]["total"] == float(exchange.account.coins["USDT"].balance)
            assert [trade["id"] for trade in trades] == [exec_id]
            assert [one["contracts"] for one in positions] == [0.2]
        finally:
            await client.close()


def subscribed(exchange: SimulatedExchange) -> set[str]:
    return {channel for line in exchange.lines.select("private") for channel in line.deliveries}
