"""Answers of REST that lag behind the stream, as those of a replica do."""

from typing import Any

import pytest

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest_tests.sandbox.account_fixtures import LOANS, ask
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, exchange_process, running_exchange

WALLET = "/v5/account/wallet-balance"
POSITIONS = "/v5/position/list"
LINEAR = {"category": "linear", "settleCoin": "USDT"}
READS: list[tuple[str, dict[str, Any]]] = [
    (WALLET, {"accountType": "UNIFIED"}),
    ("/v5/account/withdrawal", {"coinName": "BTC,USDT"}),
    (POSITIONS, LINEAR),
    (POSITIONS, {"category": "inverse"}),
    ("/v5/order/realtime", LINEAR),
    ("/v5/order/history", {"category": "linear"}),
    ("/v5/execution/list", {"category": "linear"}),
    (f"{LOANS}-common/position", {}),
    (f"{LOANS}-flexible/ongoing-coin", {}),
    (f"{LOANS}-flexible/repayment-history", {}),
    (f"{LOANS}-fixed/borrow-contract-info", {}),
]


async def read_all(exchange: SimulatedExchange) -> list[Any]:
    """Return the results of everything that can lag."""
    return [(await ask(exchange, path, **query)).result for path, query in READS]


def let_pass(exchange: SimulatedExchange, seconds: float) -> None:
    """Let time pass on the exchange's clock, which lags are measured with."""
    exchange.shift_clock(exchange.clock.offset_s + seconds)


def change_everything(exchange: SimulatedExchange, open_order: str) -> None:
    """Change wallet, positions, orders, executions, loans and prices."""
    account = exchange.account
    account.fill_order(open_order, "0.004")
    account.cancel_order(open_order)
    account.place_order("ETHUSDT", "Sell", "0.1", "4000")
    account.fill("BTCUSDT", "Buy", "0.25")
    account.fill("BTCUSD", "Buy", "1000")
    account.deposit("BTC", "4.5")
    account.loans.repay("USDT", "100")
    account.loans.repay_fixed(next(iter(account.loans.records.contracts)), "10")
    exchange.move_price("BTCUSDT", 0.9)


async def test_every_answer_shows_the_account_as_it_stood() -> None:
    """Wallets, positions, orders, executions and loans are equal to those that were asked for then."""
    async with running_exchange() as exchange:
        order_id = exchange.account.place_order("BTCUSDT", "Buy", "0.01", "60000")
        before = await read_all(exchange)
        let_pass(exchange, 20)
        change_everything(exchange, order_id)
        after = await read_all(exchange)
        exchange.lag_rest(10)
        assert await read_all(exchange) == before
        exchange.restore_rest()
        assert await read_all(exchange) == after
    assert [path for (path, _), one, other in zip(READS, before, after, strict=True) if one == other] == []


async def test_the_time_of_an_answer_is_that_of_its_state_or_of_now() -> None:
    """A replica may answer with the time of its state, or with the present time, which hides the lag."""
    async with running_exchange() as exchange:
        exchange.lag_rest(3)
        late = (await ask(exchange, POSITIONS, **LINEAR)).body["time"]
        assert 3_000 <= exchange.now_ms() - late < 4_000
        exchange.lag_rest(3, time="now")
        late = (await ask(exchange, POSITIONS, **LINEAR)).body["time"]
        assert exchange.now_ms() - late < 1_000


async def test_a_position_opened_since_then_is_missing_and_one_closed_is_there() -> None:
    """This is the answer that must not close what the stream has reported."""
    async with running_exchange() as exchange:
        let_pass(exchange, 20)
        exchange.account.fill("ETHUSDT", "Buy", "1")
        exchange.account.fill("BTCUSDT", "Buy", "0.25")
        exchange.lag_rest(10, path=POSITIONS, time="now")
        rows = (await ask(exchange, POSITIONS, **LINEAR)).rows
        assert [(row["symbol"], row["size"]) for row in rows] == [("BTCUSDT", "0.25")]
        assert exchange.account.positions["ETHUSDT"].size == 1


async def test_a_lag_goes_on_with_time() -> None:
    """A change shows in the answers when it is as old as the lag."""
    async with running_exchange() as exchange:
        let_pass(exchange, 20)
        exchange.lag_rest(10)

        async def coins() -> dict[str, str]:
            row = (await ask(exchange, WALLET, accountType="UNIFIED")).rows[0]
            return {coin["coin"]: coin["walletBalance"] for coin in row["coin"]}

        exchange.account.deposit("ETH", "1")
        assert (await coins())["ETH"] == "4"
        let_pass(exchange, 5)
        assert (await coins())["ETH"] == "4"
        let_pass(exchange, 6)
        assert (await coins())["ETH"] == "5"


async def test_only_the_paths_chosen_lag() -> None:
    """The wallet may lag behind the positions: Bybit answers from several services."""
    async with running_exchange() as exchange:
        before = exchange.account.books()["balances"]["USDT"]
        let_pass(exchange, 20)
        exchange.account.fill("BTCUSDT", "Buy", "0.1")
        exchange.lag_rest(10, path="/v5/account/")
        [position] = (await ask(exchange, POSITIONS, **LINEAR)).rows
        coin = (await ask(exchange, WALLET, accountType="UNIFIED", coin="USDT")).rows[0]["coin"][0]
        assert position["size"] == "0.15"
        assert coin["walletBalance"] == before
        exchange.lag_rest(0, path=WALLET)
        coin = (await ask(exchange, WALLET, accountType="UNIFIED", coin="USDT")).rows[0]["coin"][0]
        assert coin["walletBalance"] == exchange.account.books()["balances"]["USDT"]


async def test_the_stream_and_the_books_do_not_lag() -> None:
    """Only answers of REST are late; frames carry the change at once."""
    async with running_exchange() as exchange:
        exchange.lag_rest(30)
        exchange.account.deposit("USDC", "1")
        [frame] = [one for one in exchange.account.history.frames if one["topic"] == "wallet"][-1:]
        assert frame["data"][0]["coin"][0]["walletBalance"] == "5001"
        assert exchange.account.books()["balances"]["USDC"] == "5001"


async def test_market_data_do_not_lag() -> None:
    """The account is answered by another service; a public answer names the present time."""
    async with running_exchange() as exchange:
        exchange.lag_rest(30)
        assert exchange.now_ms() - (await ask(exchange, "/v5/market/time")).body["time"] < 1_000


async def test_what_is_held_is_valued_at_the_prices_of_then() -> None:
    """Prices change between changes of the account; equity and profit of a late answer are those of its time."""
    async with running_exchange() as exchange:
        exchange.set_price("BTCUSDT", 60_000)
        await eventually(lambda: exchange.account.past.state_at(exchange.now_ms()).prices.mark("BTCUSDT") == 60_000)
        let_pass(exchange, 20)
        exchange.set_price("BTCUSDT", 70_000)
        exchange.lag_rest(10)
        [late] = (await ask(exchange, POSITIONS, **LINEAR)).rows
        exchange.restore_rest()
        [current] = (await ask(exchange, POSITIONS, **LINEAR)).rows
    assert (late["markPrice"], late["unrealisedPnl"]) == ("60000", "1000")
    assert (current["markPrice"], current["unrealisedPnl"]) == ("70000", "-1500")


async def test_the_longest_lag_is_answered_rightly() -> None:
    """Older states are dropped, but not the last one before the minute, which still holds at its beginning."""
    async with running_exchange() as exchange:
        for number in range(1, 6):
            let_pass(exchange, 50)
            exchange.account.deposit("ETH", "1")
            exchange.lag_rest(59)
            coin = (await ask(exchange, WALLET, accountType="UNIFIED", coin="ETH")).rows[0]["coin"][0]
            assert coin["walletBalance"] == str(4 + max(number - 2, 0))


@pytest.mark.parametrize("arguments", [{"seconds": -1}, {"seconds": 61}, {"seconds": 1, "time": "tomorrow"}])
async def test_a_lag_that_cannot_be_kept_is_refused(arguments: dict[str, Any]) -> None:
    """States are kept for a minute."""
    async with running_exchange() as exchange:
        with pytest.raises(SandboxError):
            exchange.lag_rest(**arguments)


async def test_a_lag_can_be_switched_from_another_process() -> None:
    """It is a fault like the others; a wrong one is an error."""
    async with exchange_process() as exchange:
        assert await exchange.fault("lag_rest", seconds=2, path=POSITIONS, time="now") is None
        assert await exchange.fault("restore_rest") is None
        with pytest.raises(ValueError, match="lag"):
            await exchange.fault("lag_rest", seconds=600)
