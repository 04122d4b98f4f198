"""Inverse contracts, options and spot: their figures, their frames, and answers for one category only."""

from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import Scenario, SimulatedExchange
from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest_tests.sandbox.account_fixtures import PRIVATE_CHANNELS, ask, private_line, settled
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

POSITIONS = "/v5/position/list"
OPTION = "BTC-25DEC26-70000-C"
SYMBOLS = {"linear": "BTCUSDT", "inverse": "BTCUSD", "option": OPTION}
SIZES = {"linear": "0.01", "inverse": "1000", "option": "0.5"}


def an_account() -> SimulatedAccount:
    """Return an account with a short position of 0.25 BTC at 64,000; its exchange does not listen."""
    return SimulatedExchange(Scenario()).account


def newest(account: SimulatedAccount, topic: str) -> dict[str, Any]:
    """Return the newest row of a topic."""
    found: dict[str, Any] = [one for one in account.history.frames if one["topic"] == topic][-1]["data"][0]
    return found


def test_an_inverse_position_is_counted_in_usd_and_paid_in_its_coin() -> None:
    """1,000 USD bought at 50,000 and sold at 62,500: 0.02 BTC less 0.016 BTC."""
    account = an_account()
    account.fill("BTCUSD", "Buy", "1000", "50000")
    row = newest(account, "position")
    assert (row["category"], row["side"], row["size"], row["entryPrice"]) == ("inverse", "Buy", "1000", "50000")
    assert (row["positionValue"], row["unrealisedPnl"]) == ("0.02", "0.004375")
    account.fill("BTCUSD", "Sell", "1000", "62500")
    execution, order = newest(account, "execution"), newest(account, "order")
    assert (execution["execValue"], execution["execPnl"], execution["feeCurrency"]) == ("0.016", "0.004", "BTC")
    assert (order["avgPrice"], list(order["cumFeeDetail"])) == ("62500", ["BTC"])
    fees = sum(one.fee for one in account.executions if one.order.symbol == "BTCUSD")
    assert account.coins["BTC"].balance == Decimal("0.5") + Decimal("0.004") - fees


def test_an_inverse_entry_price_is_the_average_of_the_coins() -> None:
    """100 USD at 50,000 and 100 at 100,000 are 0.003 BTC, so 66,666.67 and not 75,000."""
    account = an_account()
    account.fill("BTCUSD", "Buy", "100", "50000")
    account.fill("BTCUSD", "Buy", "100", "100000")
    assert newest(account, "position")["entryPrice"] == "66666.66666667"


def test_an_option_moves_its_premium_at_the_fill_and_counts_at_its_value() -> None:
    """Bought for 600 and worth 640, it is equity but no profit of contracts; leverage is empty."""
    account = an_account()
    account.fill(OPTION, "Buy", "0.5", "600")
    row, execution = newest(account, "position"), newest(account, "execution")
    assert (row["category"], row["symbol"], row["size"], row["leverage"]) == ("option", OPTION, "0.5", "")
    assert {"delta", "gamma", "vega", "theta"} <= set(row)
    assert "createType" not in execution
    assert execution["indexPrice"] == "64000"
    usdc = account.books()["coins"]["USDC"]
    paid = Decimal(execution["execValue"]) + Decimal(execution["execFee"])
    assert Decimal(usdc["walletBalance"]) == 5_000 - paid
    assert Decimal(usdc["equity"]) == 5_000 - paid + 320
    assert (row["markPrice"], row["unrealisedPnl"]) == ("640", "20")
    assert usdc["unrealisedPnl"] == "0"
    assert account.books()["account"]["totalPerpUPL"] == "0"


def test_only_a_short_option_binds_margin() -> None:
    """The buyer of an option cannot lose more than the premium, which is paid."""
    account = an_account()
    account.fill(OPTION, "Buy", "0.5")
    assert newest(account, "position")["positionIM"] == "0"
    account.fill(OPTION, "Sell", "0.6")
    assert Decimal(newest(account, "position")["positionIM"]) > 700


def test_a_spot_fill_exchanges_two_coins_and_makes_no_position() -> None:
    """The fee is paid in the coin that was bought; the wallet frame has both."""
    account = an_account()
    count = len(account.history.frames)
    before = account.coins["USDT"].balance
    account.fill("ETHUSDT", "Buy", "1", "3000", category="spot")
    frames = list(account.history.frames)[count:]
    assert [one["topic"] for one in frames] == ["order", "execution", "wallet"]
    assert [coin["coin"] for coin in frames[-1]["data"][0]["coin"]] == ["USDT", "ETH"]
    assert (account.coins["USDT"].balance, account.coins["ETH"].balance) == (before - 3_000, Decimal("4.99945"))
    assert (newest(account, "execution")["feeCurrency"], "ETHUSDT" in account.positions) == ("ETH", False)


@pytest.mark.parametrize(
    "arguments",
    [
        {"symbol": "DOGEUSD", "qty": "1"},
        {"symbol": "BTCUSD", "qty": "0.5"},
        {"symbol": "BTC-25DEC26-70000", "qty": "1"},
        {"symbol": "BTC-25DEC26-70000-X", "qty": "1"},
        {"symbol": "DOGE-25DEC26-1-C", "qty": "1"},
        {"symbol": "BTCUSDT", "qty": "1", "category": "stocks"},
        {"symbol": "SOLUSDT", "qty": "1", "category": "spot"},
    ],
)
def test_what_is_not_traded_is_refused(arguments: dict[str, Any]) -> None:
    """A misspelt symbol must not look like a position of another category."""
    account = an_account()
    before = account.books()
    with pytest.raises(SandboxError):
        account.fill(side="Buy", **arguments)
    assert account.books() == before


@given(
    st.lists(
        st.tuples(st.sampled_from(["Buy", "Sell"]), st.integers(1, 50_000), st.integers(300_000, 900_000)), max_size=10
    )
)
@settings(max_examples=30, deadline=None)
def test_any_inverse_fills_leave_the_books_balanced(fills: list[tuple[str, int, int]]) -> None:
    """Equity in BTC is the value of all that was bought and sold, less fees."""
    account = an_account()
    for side, qty, price in fills:
        account.fill("BTCUSD", side, str(qty), str(Decimal(price) / 10))
    done = [one for one in account.executions if one.order.rules.category == "inverse"]
    mark = account.prices.mark("BTCUSDT")
    traded = sum((one.qty * one.order.signed * (1 / one.price - 1 / mark) - one.fee for one in done), Decimal(0))
    equity = Decimal(account.books()["coins"]["BTC"]["equity"]) - Decimal("0.5")
    # Every amount has eight digits, and an entry price too; only their further digits may differ.
    assert abs(equity - traded) < Decimal("0.000001")
    assert sum((one.qty * one.order.signed for one in done), Decimal(0)) == (
        account.positions["BTCUSD"].size if done else 0
    )


async def test_the_stream_reports_every_category_and_rest_only_the_one_asked_for() -> None:
    """A list of linear positions does not cover an inverse one that the stream has reported."""
    async with (
        running_exchange() as exchange,
        private_line(exchange, *PRIVATE_CHANNELS) as client,
    ):
        for category, symbol in SYMBOLS.items():
            exchange.account.fill(symbol, "Buy", SIZES[category])
            exchange.account.place_order(symbol, "Buy", SIZES[category], "1000")
        await settled(client)
        for topic in ("position", "order", "execution"):
            rows = [row for message in client.data(topic) for row in message["data"]]
            assert {(row["category"], row["symbol"]) for row in rows} == set(SYMBOLS.items()), topic
        for category, symbol in SYMBOLS.items():
            asked: dict[str, Any] = {"category": category, **({"settleCoin": "USDT"} if category == "linear" else {})}
            for path in (POSITIONS, "/v5/order/realtime", "/v5/order/history", "/v5/execution/list"):
                answer = (await ask(exchange, path, **asked)).result
                assert (answer["category"], {row["symbol"] for row in answer["list"]}) == (category, {symbol}), path
                assert all("category" not in row for row in answer["list"])
        usdc = await ask(exchange, POSITIONS, category="linear", settleCoin="USDC")
        assert usdc.rows == []
        assert (await ask(exchange, POSITIONS, category="inverse", settleCoin="ETH")).rows == []
        assert (await ask(exchange, POSITIONS, category="spot")).body["retCode"] == 10001


async def test_a_categorised_channel_carries_its_category_only() -> None:
    """Frames of `position.inverse` carry that name, and no linear positions."""
    async with (
        running_exchange() as exchange,
        private_line(exchange, "position.inverse", "order.option", "execution.spot") as client,
    ):
        for category, symbol in SYMBOLS.items():
            exchange.account.fill(symbol, "Buy", SIZES[category])
        exchange.account.fill("BTCUSDT", "Buy", "0.001", category="spot")
        await settled(client)
    assert [row["symbol"] for message in client.data("position.inverse") for row in message["data"]] == ["BTCUSD"]
    assert [row["symbol"] for message in client.data("order.option") for row in message["data"]] == [OPTION]
    assert [row["category"] for message in client.data("execution.spot") for row in message["data"]] == ["spot"]
    assert {message["topic"] for message in client.messages if "topic" in message} == {
        "position.inverse",
        "order.option",
        "execution.spot",
    }


async def test_spot_orders_and_executions_are_separate_answers() -> None:
    """The symbol is that of the linear market, so only the category distinguishes them."""
    async with running_exchange() as exchange:
        account = exchange.account
        kept = account.place_order("BTCUSDT", "Sell", "0.1", "70000", category="spot")
        [filled] = account.fill("BTCUSDT", "Buy", "0.001", category="spot")
        account.place_order("BTCUSDT", "Sell", "0.1", "70000")
        [row] = (await ask(exchange, "/v5/order/realtime", category="spot")).rows
        assert (row["orderId"], "basePrice" in row, "lastPriceOnCreated" in row) == (kept, True, False)
        executions = (await ask(exchange, "/v5/execution/list", category="spot", symbol="BTCUSDT")).rows
        assert [one["execId"] for one in executions] == [filled]
        linear = (await ask(exchange, "/v5/execution/list", category="linear", symbol="BTCUSDT")).rows
        assert filled not in [one["execId"] for one in linear]


@pytest.mark.parametrize("category", SYMBOLS)
async def test_a_symbol_that_was_never_traded_has_a_row_without_times(category: str) -> None:
    """By name Bybit returns a row with no side, no times and `seq` -1; by coin or category it returns none."""
    symbol = {"linear": "ETHUSDT", "inverse": "ETHUSD", "option": "ETH-25DEC26-4000-P"}[category]
    async with running_exchange() as exchange:
        [row] = (await ask(exchange, POSITIONS, category=category, symbol=symbol)).rows
        assert (row["symbol"], row["side"], row["size"], row["avgPrice"]) == (symbol, "", "0", "0")
        assert (row["updatedTime"], row["createdTime"], row["seq"]) == ("", "", -1)
        others = await ask(exchange, POSITIONS, category=category, settleCoin="USDT")
        assert symbol not in [one["symbol"] for one in others.rows]


async def test_a_position_that_was_closed_keeps_its_times_and_sequence() -> None:
    """Its flat row is a statement about a time, unlike that of a symbol that was never traded."""
    async with running_exchange() as exchange:
        exchange.account.fill("BTCUSD", "Buy", "10")
        exchange.account.fill("BTCUSD", "Sell", "10")
        [row] = (await ask(exchange, POSITIONS, category="inverse", symbol="BTCUSD")).rows
        position = exchange.account.positions["BTCUSD"]
    assert (row["side"], row["size"]) == ("", "0")
    assert (row["updatedTime"], row["seq"]) == (str(position.updated_ms), position.seq)


async def test_positions_of_other_categories_can_be_opened_from_outside() -> None:
    """A test with the exchange in another process gives it an inverse and an option position."""
    async with (
        running_exchange() as exchange,
        private_line(exchange, "position") as client,
        aiohttp.ClientSession() as session,
    ):
        address = f"{exchange.rest_url}/sandbox/account"
        for symbol, qty in (("BTCUSD", "1000"), (OPTION, "0.5")):
            action = {"action": "fill", "symbol": symbol, "side": "Sell", "qty": qty}
            async with session.post(address, json=action) as answer:
                assert answer.status == 200
        await eventually(lambda: len(client.data("position")) == 2)
        async with session.get(address) as answer:
            books = (await answer.json())["books"]
    assert {symbol: (one["category"], one["size"]) for symbol, one in books["positions"].items()} == {
        "BTCUSDT": ("linear", "-0.25"),
        "BTCUSD": ("inverse", "-1000"),
        OPTION: ("option", "-0.5"),
    }
