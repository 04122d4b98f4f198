"""The figures of the wallets: totals, coins, transferable amounts, and the second wallet of UTA 1.0."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import Scenario, SimulatedExchange
from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest_tests.sandbox.account_fixtures import ask, private_line, settled
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange

WALLET = "/v5/account/wallet-balance"
TRANSFERABLE = "/v5/account/withdrawal"
OPTION = "BTC-25DEC26-70000-C"
ACCOUNT_FIGURES = (
    "totalEquity",
    "totalWalletBalance",
    "totalMarginBalance",
    "totalAvailableBalance",
    "totalPerpUPL",
    "totalInitialMargin",
    "totalMaintenanceMargin",
    "accountIMRate",
    "accountMMRate",
)


def an_account(**fields: Any) -> SimulatedAccount:
    """Return an account with a short position of 0.25 BTC at 64,000; its exchange does not listen."""
    return SimulatedExchange(Scenario(**fields)).account


def a_busy_account() -> SimulatedAccount:
    """Return an account with contracts of every category, an open spot order, a margin debt and a coin left out."""
    account = an_account()
    account.fill("BTCUSD", "Buy", "1000", "63000")
    account.fill(OPTION, "Buy", "0.5")
    account.fill("BTC-25DEC26-50000-P", "Sell", "0.1")
    account.place_order("ETHUSDT", "Buy", "1", "3000", category="spot")
    account.place_order("BTCUSDT", "Buy", "0.01", "60000")
    account.borrow_margin("USDC", "2000")
    account.accrue_margin_interest("USDC", "0.01")
    account.set_collateral("ETH", is_on=False)
    return account


def coin_of(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the row of one coin."""
    found: dict[str, Any] = next(coin for coin in row["coin"] if coin["coin"] == name)
    return found


def amount(row: Mapping[str, Any], name: str) -> Decimal:
    """Return one figure."""
    return Decimal(row[name])


def test_figures_of_account_and_coins_agree_with_each_other() -> None:
    """A consumer may check them: each follows from others as Bybit documents it."""
    account = a_busy_account()
    row = account.wallet()
    for coin in row["coin"]:
        name = coin["coin"]
        options = account.margins()[name].options if name in account.margins() else Decimal(0)
        own = amount(coin, "walletBalance") - amount(coin, "spotBorrow")
        assert amount(coin, "equity") == own + amount(coin, "unrealisedPnl") + options, name
    assert amount(row, "totalEquity") == sum(amount(coin, "usdValue") for coin in row["coin"])
    assert amount(row, "totalMarginBalance") == amount(row, "totalWalletBalance") + amount(row, "totalPerpUPL")
    haircut = amount(coin_of(row, "ETH"), "usdValue")
    left = amount(row, "totalMarginBalance") - haircut - amount(row, "totalInitialMargin")
    assert amount(row, "totalAvailableBalance") == left
    rate = amount(row, "totalInitialMargin") / amount(row, "totalMarginBalance")
    assert 0 <= rate - amount(row, "accountIMRate") < Decimal("0.0001")


def test_the_margin_of_a_coin_is_that_of_what_settles_in_it() -> None:
    """The inverse position binds BTC, the linear one USDT, the short option USDC."""
    account = a_busy_account()
    row = account.wallet()
    for name, symbol in (("BTC", "BTCUSD"), ("USDC", "BTC-25DEC26-50000-P"), ("USDT", "BTCUSDT")):
        position = account.positions[symbol]
        assert amount(coin_of(row, name), "totalPositionIM") == position.initial_margin > 0
    assert coin_of(row, "USDT")["locked"] == "3000"
    assert amount(coin_of(row, "USDT"), "totalOrderIM") > 60
    account.place_order("BTCUSDT", "Buy", "0.1", "60000", reduce_only=True)
    assert coin_of(account.wallet(), "USDT")["totalOrderIM"] == coin_of(row, "USDT")["totalOrderIM"]


def test_borrowed_coins_are_balance_and_not_equity() -> None:
    """Interest is shown when it is owed, and taken from the balance when it is charged."""
    account = an_account()
    before = coin_of(account.wallet(), "USDC")
    account.borrow_margin("USDC", "1000")
    account.accrue_margin_interest("USDC", "0.02")
    owing = coin_of(account.wallet(), "USDC")
    assert (owing["walletBalance"], owing["equity"], owing["usdValue"]) == ("6000", before["equity"], "5000")
    assert (owing["borrowAmount"], owing["spotBorrow"], owing["accruedInterest"]) == ("1000", "1000", "0.02")
    account.charge_margin_interest("USDC")
    account.repay_margin("USDC", "1000")
    paid = coin_of(account.wallet(), "USDC")
    assert (paid["walletBalance"], paid["equity"], paid["borrowAmount"], paid["accruedInterest"]) == (
        "4999.98",
        "4999.98",
        "0",
        "0",
    )
    with pytest.raises(SandboxError):
        account.repay_margin("USDC", "1")


def test_a_coin_that_is_no_collateral_backs_no_margin() -> None:
    """Its value stays in equity, and what is available is less by it."""
    account = an_account()
    before = account.wallet()
    account.set_collateral("ETH", is_on=False)
    row = account.wallet()
    assert coin_of(row, "ETH")["collateralSwitch"] is False
    assert coin_of(row, "BTC")["collateralSwitch"] is True
    assert row["totalEquity"] == before["totalEquity"]
    assert amount(before, "totalAvailableBalance") - amount(row, "totalAvailableBalance") == 4 * 3_200


def test_the_books_have_every_figure_as_it_was_sent() -> None:
    """A test compares what the product published with them, digit for digit, after any change."""
    account = a_busy_account()
    account.send_wallet()
    frame = [one for one in account.history.frames if one["topic"] == "wallet"][-1]["data"][0]
    books = account.books()
    assert {name: books["account"][name] for name in ACCOUNT_FIGURES} == {name: frame[name] for name in ACCOUNT_FIGURES}
    assert books["coins"] == {coin["coin"]: coin for coin in frame["coin"]}
    assert books["transferable"] == account.transferable(account.coins)


async def test_stream_and_rest_carry_the_same_wallet() -> None:
    """`availableToWithdraw` of a unified account is empty on both; switches are booleans."""
    async with running_exchange() as exchange, private_line(exchange, "wallet") as client:
        exchange.account.borrow_margin("USDT", "5")
        exchange.account.send_wallet()
        await settled(client)
        streamed = client.data("wallet")[-1]["data"][0]
        [asked] = (await ask(exchange, WALLET, accountType="UNIFIED")).rows
    assert streamed == asked
    assert [coin["availableToWithdraw"] for coin in asked["coin"]] == [""] * 4
    assert {type(coin["marginCollateral"]) for coin in asked["coin"]} == {bool}


async def test_the_transferable_amount_is_bound_by_the_coin_and_by_the_account() -> None:
    """It has eight digits; the first coin's is repeated outside the map."""
    async with running_exchange() as exchange:
        account = exchange.account
        account.withdraw("USDT", "49000")
        account.fill("BTCUSDT", "Sell", "3")
        account.place_order("ETHUSDT", "Sell", "1.5", "4000", category="spot")
        result = (await ask(exchange, TRANSFERABLE, coinName="BTC,ETH,USDC,XRP")).result
        available = Decimal(account.wallet()["totalAvailableBalance"])
    found = result["availableWithdrawalMap"]
    assert result["availableWithdrawal"] == found["BTC"]
    # 0.5 BTC of 64,000 are more than the account has available, 2.5 ETH of 3,200 and 5,000 USDC are not.
    assert available < 32_000
    assert 0 <= available / 64_000 - Decimal(found["BTC"]) < Decimal("0.00000001")
    assert (found["ETH"], found["USDC"], found["XRP"]) == ("2.50000000", "5000.00000000", "0.00000000")
    assert Decimal(found["USDC"]) < available


async def test_the_transferable_amount_of_other_coins_is_not_bound_by_margin() -> None:
    """A coin that is no collateral may leave although nothing is available; one that is may not."""
    async with running_exchange() as exchange:
        exchange.account.set_collateral("ETH", is_on=False)
        exchange.account.withdraw("USDT", "49000")
        exchange.account.fill("BTCUSDT", "Sell", "9")
        found = (await ask(exchange, TRANSFERABLE, coinName="ETH,BTC")).result["availableWithdrawalMap"]
        assert exchange.account.wallet()["totalAvailableBalance"] == "0"
    assert found == {"ETH": "4.00000000", "BTC": "0.00000000"}


@pytest.mark.parametrize(
    "query",
    [{}, {"coinName": "btc"}, {"coinName": "BTC,"}, {"coinName": ",".join(f"C{number}" for number in range(21))}],
)
async def test_transferable_amounts_are_asked_for_by_up_to_twenty_names(query: dict[str, str]) -> None:
    """Names are in capitals; a request without names or with more than twenty is refused."""
    async with running_exchange() as exchange:
        assert (await ask(exchange, TRANSFERABLE, **query)).body["retCode"] == 10001
        twenty = ",".join(f"C{number}" for number in range(20))
        found = (await ask(exchange, TRANSFERABLE, coinName=twenty)).result
        assert len(found["availableWithdrawalMap"]) == 20


async def test_there_is_one_wallet_unless_the_scenario_has_a_second() -> None:
    """An account of UTA 2.0 refuses requests about CONTRACT."""
    async with running_exchange() as exchange:
        assert (await ask(exchange, WALLET, accountType="CONTRACT")).body["retCode"] == 10001
        assert (await ask(exchange, "/v5/account/info")).result["unifiedMarginStatus"] == 5
        with pytest.raises(SandboxError):
            exchange.account.deposit("BTC", "1", account_type="CONTRACT")


async def test_a_second_wallet_holds_the_same_coin_and_is_another_answer() -> None:
    """The unified account has BTC 0.5 and the other wallet 0.2: merged by coin, one of them would be lost."""
    async with (
        running_exchange(contract_wallet={"BTC": "0.2"}) as exchange,
        private_line(exchange, "wallet") as client,
    ):
        rows = {kind: (await ask(exchange, WALLET, accountType=kind)).rows[0] for kind in ("UNIFIED", "CONTRACT")}
        assert (await ask(exchange, "/v5/account/info")).result["unifiedMarginStatus"] == 3
        exchange.account.deposit("BTC", "0.1", account_type="CONTRACT")
        exchange.account.send_wallets()
        await settled(client)
        changed, both = (message["data"] for message in client.data("wallet"))
        books = exchange.account.books()
    assert {kind: coin_of(row, "BTC")["walletBalance"] for kind, row in rows.items()} == {
        "UNIFIED": "0.5",
        "CONTRACT": "0.2",
    }
    assert {rows["CONTRACT"][name] for name in ACCOUNT_FIGURES} == {""}
    assert coin_of(rows["CONTRACT"], "BTC")["availableToWithdraw"] == "0.2"
    assert [row["accountType"] for row in changed] == ["CONTRACT"]
    assert [row["accountType"] for row in both] == ["UNIFIED", "CONTRACT"]
    assert (books["balances"]["BTC"], books["contract_balances"]) == ("0.5", {"BTC": "0.3"})


async def test_inverse_contracts_settle_in_the_second_wallet_where_there_is_one() -> None:
    """The unified account keeps its BTC; without a second wallet they are taken from it."""
    for contract_wallet, account_type in (({"BTC": "0.2"}, "CONTRACT"), ({}, "UNIFIED")):
        account = an_account(contract_wallet=contract_wallet)
        account.fill("BTCUSD", "Buy", "1000", "64000")
        frame = [one for one in account.history.frames if one["topic"] == "wallet"][-1]["data"][0]
        assert frame["accountType"] == account_type
        [coin] = frame["coin"]
        start = Decimal(contract_wallet.get("BTC", "0.5"))
        assert Decimal(coin["walletBalance"]) == start - Decimal("0.00000859")  # 0.055 % of 1,000 / 64,000 BTC
        assert Decimal(coin["totalPositionIM"]) > 0
