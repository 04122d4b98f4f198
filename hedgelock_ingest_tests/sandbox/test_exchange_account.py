"""The simulated account as a ledger: wallet, positions, orders and executions add up to the last digit."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from random import Random
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import Scenario, SimulatedExchange
from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest.sandbox.exchange.account.activity import AccountActivity
from hedgelock_ingest.sandbox.exchange.account.categories import margin_of, order_margin
from hedgelock_ingest_tests.sandbox.account_fixtures import PRIVATE_CHANNELS, ask, private_line, samples
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange


@contextmanager
def published_frames(exchange: SimulatedExchange) -> Iterator[list[dict[str, Any]]]:
    """Collect the frames that are published during a block; no line needs to be open."""
    frames = exchange.account.history.frames
    count = len(frames)
    found: list[dict[str, Any]] = []
    yield found
    found.extend(list(frames)[count:])


def an_account(seed: int = 1) -> SimulatedAccount:
    """Return an account with a short position of 0.25 BTC at 64,000; its exchange does not listen."""
    return SimulatedExchange(Scenario(seed=seed)).account


def test_margins_are_those_of_a_recorded_account() -> None:
    """A long position of 4 XRP at 2.7862 and a purchase of 10 at 2.5293, both at ten times leverage."""
    [position] = samples("position")
    wallet = samples("wallet")[-1]["data"][0]["coin"][0]
    row = position["data"][0]
    assert str(margin_of(Decimal(row["positionValue"]), is_long=True)) == row["positionIM"]
    assert str(order_margin(Decimal("25.293"), is_buy=True)) == wallet["totalOrderIM"]


@pytest.mark.parametrize("topic", PRIVATE_CHANNELS)
def test_frames_have_all_keys_of_recorded_ones(topic: str) -> None:
    """The envelope has the same keys in the same order; newer fields may be added."""
    account = an_account()
    account.fill_order(account.place_order("BTCUSDT", "Buy", "0.01", "60000"))
    ours = next(frame for frame in account.history.frames if frame["topic"] == topic)
    for real in samples(topic):
        assert list(ours) == list(real)
        assert not set(real["data"][0]) - set(ours["data"][0])
        for name, value in real["data"][0].items():
            assert type(ours["data"][0][name]) is type(value), name
    if topic == "wallet":
        assert not set(samples(topic)[0]["data"][0]["coin"][0]) - set(ours["data"][0]["coin"][0])


def test_a_market_order_publishes_order_execution_position_and_wallet() -> None:
    """They come in this order; order and execution share the id of the match."""
    account = an_account()
    count = len(account.history.frames)
    [exec_id] = account.fill("BTCUSDT", "Buy", "0.1")
    order, execution, position, wallet = list(account.history.frames)[count:]
    assert [one["topic"] for one in (order, execution, position, wallet)] == [
        "order",
        "execution",
        "position",
        "wallet",
    ]
    assert order["id"] == execution["id"]
    assert execution["id"].startswith("100000001_BTCUSDT_")
    assert execution["data"][0]["execId"] == exec_id
    assert order["data"][0]["orderStatus"] == "Filled"
    assert position["data"][0]["seq"] == execution["data"][0]["seq"]
    assert [coin["coin"] for coin in wallet["data"][0]["coin"]] == ["USDT"]


def test_a_closing_fill_brings_its_profit_less_the_fee() -> None:
    """Short at 64,000, bought back at 60,000: 0.1 times 4,000, less 0.055 % of 6,000."""
    account = an_account()
    before = account.coins["USDT"].balance
    account.fill("BTCUSDT", "Buy", "0.1", "60000")
    row = account.executions[-1].row()
    assert (row["closedSize"], row["execPnl"], row["execFee"]) == ("0.1", "400", "3.3")
    assert account.coins["USDT"].balance - before == Decimal("396.7")
    assert account.positions["BTCUSDT"].size == Decimal("-0.15")
    assert account.positions["BTCUSDT"].entry == 64_000


def test_a_position_can_be_closed_turned_and_opened_again() -> None:
    """A flat position has no side and no entry; one that turns begins at the price of the fill."""
    account = an_account()
    account.fill("BTCUSDT", "Buy", "0.25", "60000")
    flat = account.positions["BTCUSDT"].row(Decimal(60_000))
    assert (flat["side"], flat["size"], flat["entryPrice"], flat["unrealisedPnl"]) == ("", "0", "0", "0")
    account.fill("BTCUSDT", "Buy", "0.1", "50000")
    account.fill("BTCUSDT", "Buy", "0.1", "52000")
    assert account.positions["BTCUSDT"].entry == 51_000
    account.fill("BTCUSDT", "Sell", "0.3", "55000")
    turned = account.positions["BTCUSDT"].row(Decimal(54_000))
    assert (turned["side"], turned["size"], turned["entryPrice"]) == ("Sell", "0.1", "55000")
    assert turned["unrealisedPnl"] == "100"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Buy", "Sell"]),
            st.integers(1, 500).map(lambda lots: Decimal(lots).scaleb(-3)),
            st.integers(300_000, 900_000).map(lambda ticks: Decimal(ticks).scaleb(-1)),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_fills_leave_the_books_balanced(fills: list[tuple[str, Decimal, Decimal]]) -> None:
    """Balance is deposits plus profits less fees, and equity is the value of all that was bought and sold."""
    account = an_account()
    for side, qty, price in fills:
        account.fill("BTCUSDT", side, qty, price)
    done = account.executions
    paid = sum((one.profit - one.fee for one in done), Decimal(0))
    assert account.coins["USDT"].balance == Decimal(50_000) + paid
    assert account.coins["USDT"].realised == account.positions["BTCUSDT"].total_pnl == paid
    assert account.positions["BTCUSDT"].size == sum((one.qty * one.order.signed for one in done), Decimal(0))
    mark = account.prices.mark("BTCUSDT")
    traded = sum((one.qty * one.order.signed * (mark - one.price) - one.fee for one in done), Decimal(0))
    equity = Decimal(account.wallet()["coin"][0]["equity"]) - 50_000
    # An average entry price has eight digits; only its further digits may differ.
    assert abs(equity - traded) < Decimal("0.0001")


async def test_wallet_figures_add_up_in_every_frame_and_answer() -> None:
    """Equity is wallet balance and profit of positions; account figures are sums of coins."""
    async with running_exchange() as exchange:
        exchange.move_price("BTCUSDT", 0.9)
        row = (await ask(exchange, "/v5/account/wallet-balance", accountType="UNIFIED")).rows[0]
    coins = {coin["coin"]: coin for coin in row["coin"]}
    usdt = coins["USDT"]
    assert Decimal(usdt["unrealisedPnl"]) == Decimal("1600")
    assert Decimal(usdt["equity"]) == Decimal(usdt["walletBalance"]) + Decimal(usdt["unrealisedPnl"])
    assert Decimal(coins["BTC"]["usdValue"]) == Decimal("0.5") * 57_600
    assert Decimal(row["totalEquity"]) == sum(Decimal(coin["usdValue"]) for coin in row["coin"])
    assert Decimal(row["totalPerpUPL"]) == Decimal(row["totalEquity"]) - Decimal(row["totalWalletBalance"])
    left = Decimal(row["totalMarginBalance"]) - Decimal(row["totalInitialMargin"])
    assert Decimal(row["totalAvailableBalance"]) == left


async def test_a_price_change_alone_shows_in_rest_and_not_on_the_stream() -> None:
    """Bybit sends no wallet message for profit that is not realised: equity on the stream goes stale."""
    async with running_exchange() as exchange:
        with published_frames(exchange) as frames:
            exchange.set_price("BTCUSDT", 70_000)
            [row] = (await ask(exchange, "/v5/position/list", category="linear", symbol="BTCUSDT")).rows
        assert frames == []
    assert (row["markPrice"], row["unrealisedPnl"]) == ("70000", "-1500")


def test_an_order_without_a_fill_repeats_the_position_unchanged() -> None:
    """Its old time and sequence show that it did not change."""
    account = an_account()
    before = account.positions["BTCUSDT"].row(account.prices.mark("BTCUSDT"))
    order_id = account.place_order("BTCUSDT", "Sell", "0.01", "70000")
    account.cancel_order(order_id)
    rows = [frame["data"][0] for frame in account.history.frames if frame["topic"] == "position"][-2:]
    assert rows == [before, before]
    statuses = [frame["data"][0] for frame in account.history.frames if frame["topic"] == "order"][-2:]
    assert [row["orderStatus"] for row in statuses] == ["New", "Cancelled"]
    assert (statuses[1]["cancelType"], statuses[1]["rejectReason"]) == ("CancelByUser", "EC_PerCancelRequest")


def test_an_open_order_binds_margin_until_it_is_filled_in_parts() -> None:
    """Each fill has the maker fee, and every frame the quantity that is left."""
    account = an_account()
    order_id = account.place_order("BTCUSDT", "Buy", "0.01", "60000")
    assert account.wallet("USDT")["coin"][0]["totalOrderIM"] == "60.627"
    account.fill_order(order_id, "0.004")
    half = account.orders[order_id].row()
    assert (half["orderStatus"], half["leavesQty"], half["leavesValue"], half["cumExecQty"]) == (
        "PartiallyFilled",
        "0.006",
        "360",
        "0.004",
    )
    account.fill_order(order_id)
    execution = account.executions[-1].row()
    assert (execution["feeRate"], execution["isMaker"], execution["leavesQty"]) == ("0.0002", True, "0")
    assert account.orders[order_id].status == "Filled"
    assert account.wallet("USDT")["coin"][0]["totalOrderIM"] == "0"


def test_several_fills_of_one_order_share_a_message_and_a_sequence() -> None:
    """Each fill has a different id."""
    account = an_account()
    ids = account.fill("BTCUSDT", "Sell", "0.01", fills=3)
    [message] = [frame for frame in account.history.frames if frame["topic"] == "execution"][-1:]
    assert [row["execId"] for row in message["data"]] == ids
    assert len({row["seq"] for row in message["data"]}) == 1
    assert [row["execQty"] for row in message["data"]] == ["0.003", "0.003", "0.004"]
    assert [row["leavesQty"] for row in message["data"]] == ["0.007", "0.004", "0"]


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("fill", {"symbol": "NOPEUSDT", "side": "Buy", "qty": "1"}),
        ("fill", {"symbol": "BTCUSDT", "side": "Long", "qty": "1"}),
        ("fill", {"symbol": "BTCUSDT", "side": "Buy", "qty": "-1"}),
        ("fill", {"symbol": "BTCUSDT", "side": "Buy", "qty": "much"}),
        ("fill", {"symbol": "BTCUSDT", "side": "Buy", "qty": "0.002", "fills": 3}),
        ("cancel_order", {"order_id": "none"}),
        ("fill_order", {"order_id": "none"}),
        ("withdraw", {"coin": "BTC", "amount": "1"}),
    ],
)
def test_an_impossible_action_is_refused_and_changes_nothing(action: str, arguments: dict[str, Any]) -> None:
    """The error names the action's problem."""
    account = an_account()
    before = account.books()
    with pytest.raises(SandboxError):
        getattr(account, action)(**arguments)
    assert account.books() == before


def test_no_two_messages_of_a_topic_share_an_id() -> None:
    """This includes messages of one millisecond."""
    account = an_account()
    for number in range(1, 50):
        account.deposit("USDT", str(number))
        account.fill("BTCUSDT", "Buy", "0.001")
    for topic in PRIVATE_CHANNELS:
        ids = [frame["id"] for frame in account.history.frames if frame["topic"] == topic]
        assert len(ids) == len(set(ids))


def test_seeded_activity_is_the_same_each_time() -> None:
    """Random orders, fills and cancellations must be repeatable in a test."""
    runs = []
    for _ in range(2):
        account = an_account(seed=4)
        activity = AccountActivity(account, ("BTCUSDT", "ETHUSDT"), interval_s=1.0, random=Random("life"))
        for _ in range(300):
            activity.step()
        runs.append([(one.order.symbol, one.order.side, one.qty, one.price) for one in account.executions])
        statuses = {order.status for order in account.orders.values()}
        assert {"Filled", "Cancelled"} <= statuses
        assert abs(account.positions["BTCUSDT"].size) < 1
    assert runs[0] == runs[1]
    assert len(runs[0]) > 100


async def test_activity_of_the_account_reaches_a_line() -> None:
    """Frames arrive without an action by the test."""
    async with (
        running_exchange(account_life_s=0.02) as exchange,
        private_line(exchange, *PRIVATE_CHANNELS) as client,
    ):
        await eventually(lambda: len(client.data("execution")) > 5 and client.data("wallet"))


async def test_the_account_can_be_read_and_changed_from_outside() -> None:
    """Another process can compare its view with the books digit for digit, and with everything that was sent."""
    async with (
        running_exchange() as exchange,
        private_line(exchange, *PRIVATE_CHANNELS) as client,
        aiohttp.ClientSession() as session,
    ):
        address = f"{exchange.rest_url}/sandbox/account"
        since_ms = exchange.now_ms()

        async def act(**arguments: Any) -> aiohttp.ClientResponse:
            async with session.post(address, json=arguments) as answer:
                await answer.read()
                return answer

        order = await act(action="place_order", symbol="BTCUSDT", side="Buy", qty=0.01, price="60000")
        order_id = (await order.json())["result"]
        assert (await act(action="fill_order", order_id=order_id)).status == 200
        assert (await act(action="set_price", symbol="BTCUSDT", price=61_000)).status == 200
        assert (await act(action="nothing")).status == 400
        assert (await act(action="fill", symbol="BTCUSDT")).status == 400
        await ask(exchange, "/v5/position/list", category="linear", symbol="BTCUSDT")
        await eventually(lambda: len(client.data("wallet")) == 2)
        async with session.get(address, params={"since_ms": str(since_ms)}) as answer:
            found = await answer.json()
    assert found["books"]["positions"]["BTCUSDT"] == {
        "category": "linear",
        "size": "-0.24",
        "entry": "64000",
        "mark": "61000",
    }
    assert found["frames"] == [message for message in client.messages if "topic" in message]
    assert [state["cause"] for state in found["states"]] == ["order placed", "filled"]
    assert found["states"][1]["balances"]["USDT"] == client.data("wallet")[1]["data"][0]["coin"][0]["walletBalance"]
    assert [answer["path"] for answer in found["answers"]] == ["/v5/position/list"]
    assert found["answers"][0]["result"]["list"][0]["unrealisedPnl"] == "720"
    assert json.dumps(found["orders"][-1]) == json.dumps(client.data("order")[-1]["data"][0])
