"""Market endpoints of the exchange."""

from typing import Any

import aiohttp
import pytest

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest_tests.sandbox.exchange_fixtures import connected, eventually, running_exchange


async def get(exchange: SimulatedExchange, path: str, **query: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{exchange.rest_url}/v5/market/{path}", params=query) as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


async def test_the_time_is_returned_in_seconds_nanoseconds_and_milliseconds() -> None:
    """Clients measure their clock's error with it."""
    async with running_exchange() as exchange:
        answer = await get(exchange, "time")
    assert list(answer) == ["retCode", "retMsg", "result", "retExtInfo", "time"]
    assert answer["retCode"] == 0
    assert answer["result"]["timeNano"].startswith(answer["result"]["timeSecond"])
    assert abs(int(answer["result"]["timeNano"]) / 1e6 - answer["time"]) < 5_000


async def test_spot_ticker_rows_have_best_bid_and_ask_and_linear_rows_the_dated_fields() -> None:
    """The rows differ from the stream's, as Bybit's do."""
    async with running_exchange() as exchange:
        spot = (await get(exchange, "tickers", category="spot", symbol="BTCUSDT"))["result"]
        linear = (await get(exchange, "tickers", category="linear"))["result"]
    assert spot["category"] == "spot"
    assert len(spot["list"]) == 1
    assert float(spot["list"][0]["bid1Price"]) < float(spot["list"][0]["ask1Price"])
    assert [row["symbol"] for row in linear["list"]] == ["BTCUSDT", "ETHUSDT"]
    assert (linear["list"][0]["deliveryTime"], linear["list"][0]["basis"]) == ("0", "")


@pytest.mark.parametrize(("category", "levels"), [("spot", 1), ("linear", 25)])
async def test_an_order_book_has_the_requested_levels(category: str, levels: int) -> None:
    """Without a limit it has Bybit's default."""
    async with running_exchange() as exchange:
        usual = (await get(exchange, "orderbook", category=category, symbol="BTCUSDT"))["result"]
        deep = (await get(exchange, "orderbook", category=category, symbol="BTCUSDT", limit="200"))["result"]
    assert list(usual) == ["s", "a", "b", "ts", "u", "seq", "cts"]
    assert len(usual["a"]) == len(usual["b"]) == levels
    assert len(deep["a"]) == 200
    assert deep["a"][:levels] == usual["a"]


async def test_an_order_book_is_that_of_the_1000_level_stream() -> None:
    """`u` of REST is the stream's, so a client can continue from it."""
    channel = "orderbook.1000.BTCUSDT"
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", channel) as client,
    ):
        await eventually(lambda: len(client.data(channel)) > 3)
        exchange.pause()
        answer = (await get(exchange, "orderbook", category="linear", symbol="BTCUSDT", limit="1000"))["result"]
        await eventually(lambda: client.data(channel)[-1]["data"]["u"] == answer["u"])
    assert client.data(channel)[-1]["data"]["seq"] == answer["seq"]


@pytest.mark.parametrize(("category", "most"), [("spot", 60), ("linear", 1000)])
async def test_recent_trades_are_those_of_the_stream_under_other_names(category: str, most: int) -> None:
    """Trades missed on the stream can be recovered from it, as far as it reaches back."""
    channel = "publicTrade.BTCUSDT"
    async with (
        running_exchange(rate=0) as exchange,
        connected(exchange.public_ws_url, category, channel) as client,
    ):
        exchange.publish(category, channel, 1_200)
        await eventually(lambda: len(client.data(channel)) == 1_200)
        answer = await get(exchange, "recent-trade", category=category, symbol="BTCUSDT", limit="1000")
    rows = answer["result"]["list"]
    sent = [fill for message in client.data(channel) for fill in message["data"]]
    assert len(rows) == most
    assert [row["execId"] for row in reversed(rows)] == [fill["i"] for fill in sent[-most:]]
    assert rows[0] == {
        "execId": sent[-1]["i"],
        "symbol": "BTCUSDT",
        "price": sent[-1]["p"],
        "size": sent[-1]["v"],
        "side": sent[-1]["S"],
        "time": str(sent[-1]["T"]),
        "isBlockTrade": False,
        "isRPITrade": sent[-1]["RPI"],
        "seq": str(sent[-1]["seq"]),
    }


async def test_instruments_have_tick_and_lot_sizes() -> None:
    """The sizes differ by category."""
    async with running_exchange() as exchange:
        linear = await get(exchange, "instruments-info", category="linear", symbol="BTCUSDT")
    row = linear["result"]["list"][0]
    assert (row["priceFilter"]["tickSize"], row["lotSizeFilter"]["qtyStep"]) == ("0.10", "0.001")


async def test_symbol_that_is_not_trading_is_listed_under_its_status_and_sends_nothing() -> None:
    """Bybit lists trading symbols unless another status is given; a closed one has no ticker."""
    async with running_exchange(linear_symbols=("BTCUSDT", "NEWUSDT", "OLDUSDT")) as exchange:
        exchange.set_status("linear", "NEWUSDT", "PreLaunch")
        exchange.set_status("linear", "OLDUSDT", "Closed")
        listed = {
            status: [row["symbol"] for row in (await get(exchange, "instruments-info", **query))["result"]["list"]]
            for status, query in (
                ("Trading", {"category": "linear"}),
                ("PreLaunch", {"category": "linear", "status": "PreLaunch"}),
                ("Closed", {"category": "linear", "status": "Closed", "symbol": "OLDUSDT"}),
            )
        }
        refused = await get(exchange, "tickers", category="linear", symbol="OLDUSDT")
        async with connected(exchange.public_ws_url, "linear") as client:
            answers = [(await client.subscribe(f"tickers.{name}USDT"))["success"] for name in ("NEW", "OLD", "BTC")]
            await eventually(lambda: client.data("tickers.BTCUSDT"))
            assert client.data("tickers.NEWUSDT") == []
        with pytest.raises(SandboxError, match="PreLaunch, Trading, Delivering, Closed"):
            exchange.set_status("linear", "BTCUSDT", "Gone")

    assert listed == {"Trading": ["BTCUSDT"], "PreLaunch": ["NEWUSDT"], "Closed": ["OLDUSDT"]}
    assert refused["retCode"] == 10001
    assert answers == [True, False, True]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("tickers", {"category": "stocks"}),
        ("tickers", {}),
        ("tickers", {"category": "spot", "symbol": "NOPEUSDT"}),
        ("orderbook", {"category": "spot"}),
        ("orderbook", {"category": "spot", "symbol": "BTCUSDT", "limit": "x"}),
        ("recent-trade", {"category": "linear", "symbol": "btcusdt"}),
    ],
)
async def test_wrong_parameters_are_refused_with_a_code_in_the_envelope(path: str, query: dict[str, str]) -> None:
    """The HTTP status is 200; the refusal is in `retCode`."""
    async with running_exchange() as exchange:
        answer = await get(exchange, path, **query)
    assert (answer["retCode"], answer["result"]) == (10001, {})


async def test_an_unknown_path_is_not_found() -> None:
    """The answer is in Bybit's envelope."""
    async with (
        running_exchange() as exchange,
        aiohttp.ClientSession() as session,
        session.get(f"{exchange.rest_url}/v5/market/nothing") as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["retCode"] == 10017
