"""The loan account: LTV, interest, histories, margin calls and liquidation."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import KEYS, Scenario, SimulatedExchange
from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, total
from hedgelock_ingest.sandbox.exchange.account.loan_terms import counted_usd, tiers_of, tiers_up_to
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest_tests.sandbox.account_fixtures import LOANS, ask, page_through
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, exchange_process, running_exchange

FLEXIBLE_REPAYMENTS = f"{LOANS}-flexible/repayment-history"
FIXED_REPAYMENTS = f"{LOANS}-fixed/repayment-history"


def a_loan_account(**fields: Any) -> tuple[Loans, SimulatedExchange]:
    """Return loans of 45,000 USDT and 8,000 USDC on 1 BTC and 10 ETH; the exchange does not listen."""
    exchange = SimulatedExchange(Scenario(**fields))
    return exchange.account.loans, exchange


def test_tiers_count_marginally_and_by_usd_value() -> None:
    """Bybit's example: 0.12 BTC worth 12,757.30 USD count for 10,000 at 0.8 and the rest at 0.7."""
    tiers = tiers_up_to(("10000", "0.8"), ("20000", "0.7"), ("30000", "0.5"), ("99999999999", "0.4"))
    assert counted_usd(Decimal("12757.30"), tiers) == Decimal("9930.11")
    assert counted_usd(Decimal(35_000), tiers) == 8_000 + 7_000 + 5_000 + 2_000
    assert counted_usd(Decimal(100), tiers_of("DOGE")) == 0


@given(st.decimals(0, 10**7, places=2), st.decimals(0, 10**7, places=2))
def test_counted_value_never_falls_as_the_value_grows(value: Decimal, more: Decimal) -> None:
    """It never counts for more than itself either."""
    low, high = sorted((value, value + more))
    assert counted_usd(low, tiers_of("BTC")) <= counted_usd(high, tiers_of("BTC")) <= high + Decimal("0.01")


async def test_the_position_holds_bybits_invariants() -> None:
    """LTV is total debt by total collateral; both are sums of their rows; all of it is text."""
    async with running_exchange() as exchange:
        exchange.move_price("BTCUSDT", 0.87654321)
        exchange.account.loans.accrue_interest(hours=100)
        result = (await ask(exchange, f"{LOANS}-common/position")).result
    assert list(result) == [
        "borrowList",
        "collateralList",
        "ltv",
        "supplyList",
        "totalCollateral",
        "totalDebt",
        "totalSupply",
        "colRes",
    ]
    debts = total(Decimal(row[f"{kind}TotalDebtUSD"]) for row in result["borrowList"] for kind in ("fixed", "flexible"))
    collateral = total(Decimal(row["amountUSD"]) for row in result["collateralList"])
    assert (debts, collateral) == (Decimal(result["totalDebt"]), Decimal(result["totalCollateral"]))
    assert 0 <= Decimal(result["ltv"]) - debts / collateral < Decimal("0.000001")
    for row in [*result["borrowList"], *result["collateralList"]]:
        assert all(isinstance(value, str) for value in row.values())


def test_ltv_follows_the_price() -> None:
    """A fall of 10 % in both collateral coins raises it by a ninth."""
    loans, exchange = a_loan_account()
    assert loans.ltv() == Decimal("0.613426")  # 53,000 by 57,600 and 28,800
    for symbol in ("BTCUSDT", "ETHUSDT"):
        exchange.move_price(symbol, 0.9)
    assert loans.ltv() == Decimal("0.681585")
    exchange.set_price("BTCUSDT", 64_000)
    assert loans.ltv() == Decimal("0.634579")


def test_interest_is_added_every_hour_on_the_debt() -> None:
    """It has eight digits, rounded up, and compounds; the fixed loan's was paid in advance."""
    loans, _ = a_loan_account()
    loans.accrue_interest()
    assert loans.flexible["USDT"].interest == Decimal("0.30825000")
    loans.accrue_interest()
    assert loans.flexible["USDT"].interest == Decimal("0.61650212")
    [fixed] = loans.records.unpaid()
    assert fixed.residual == 8_000
    assert fixed.interest == Decimal("26.301369863013698630")


async def test_interest_is_added_as_time_passes() -> None:
    """The length of an hour can be set."""
    async with running_exchange(interest_hour_s=0.05) as exchange:
        await eventually(lambda: exchange.account.loans.flexible["USDT"].interest > 1)
        [row] = (await ask(exchange, f"{LOANS}-flexible/ongoing-coin")).rows
    assert Decimal(row["totalDebt"]) == Decimal(row["unpaidAmount"]) + Decimal(row["unpaidInterest"])


async def test_borrowing_and_repaying_are_in_the_histories() -> None:
    """Coins move into and out of the funding wallet; interest is paid first."""
    async with running_exchange() as exchange:
        loans = exchange.account.loans
        before = loans.funding["BTC"]
        order_id = loans.borrow("BTC", "0.05")
        assert loans.funding["BTC"] - before == Decimal("0.05")
        loans.accrue_interest()
        loans.repay("BTC", "0.02")
        debt = loans.flexible["BTC"]
        assert (debt.principal, debt.interest) == (Decimal("0.03000001"), ZERO)
        loans.repay("BTC", str(debt.owed))
        assert "BTC" not in loans.flexible
        [borrowed] = (await ask(exchange, f"{LOANS}-flexible/borrow-history", loanCurrency="BTC")).rows
        assert list(borrowed) == ["borrowTime", "initialLoanAmount", "loanCurrency", "orderId", "status"]
        assert (borrowed["orderId"], borrowed["initialLoanAmount"], borrowed["status"]) == (order_id, "0.05", 1)
        repaid = (await ask(exchange, FLEXIBLE_REPAYMENTS)).rows
        assert [(row["repayAmount"], row["repayType"]) for row in repaid] == [("0.03000001", 1), ("0.02", 1)]


async def test_a_fixed_loan_is_a_contract_with_an_order() -> None:
    """Ids and terms are texts in the contract and numbers in the order, as in Bybit's examples."""
    async with running_exchange() as exchange:
        loans = exchange.account.loans
        [loan] = loans.records.unpaid()
        [contract] = (await ask(exchange, f"{LOANS}-fixed/borrow-contract-info", loanId=loan.loan_id)).rows
        assert (contract["loanId"], contract["term"], contract["status"]) == (loan.loan_id, "30", 1)
        assert int(contract["repaymentTime"]) - int(contract["borrowTime"]) == 30 * 86_400_000
        [order] = (await ask(exchange, f"{LOANS}-fixed/borrow-order-info")).rows
        assert (order["orderId"], order["term"]) == (int(loan.order_id), 30)
        loans.repay_fixed(loan.loan_id, "8000")
        [contract] = (await ask(exchange, f"{LOANS}-fixed/borrow-contract-info", loanId=loan.loan_id)).rows
        assert (contract["residualPrincipal"], contract["status"]) == ("0", 2)
        [repaid] = (await ask(exchange, FIXED_REPAYMENTS)).rows
        assert repaid["details"] == [{"loanCurrency": "USDC", "loanId": loan.loan_id, "repayAmount": "8000"}]


async def test_collateral_moves_between_funding_and_the_loan() -> None:
    """Each adjustment has the LTV before and after; collateral may be taken up to an LTV of 0.8."""
    async with running_exchange() as exchange:
        loans = exchange.account.loans
        loans.add_collateral("BTC", "0.5")
        most = Decimal(
            (await ask(exchange, f"{LOANS}-common/max-collateral-amount", currency="BTC")).result["maxCollateralAmount"]
        )
        with pytest.raises(SandboxError):
            loans.reduce_collateral("BTC", most + Decimal("0.00000001"))
        loans.reduce_collateral("BTC", most)
        assert loans.ltv() == Decimal("0.8")
        taken, added, *_ = (await ask(exchange, f"{LOANS}-common/adjustment-history", collateralCurrency="BTC")).rows
    assert list(taken) == [
        "adjustId",
        "adjustTime",
        "afterLTV",
        "amount",
        "collateralCurrency",
        "direction",
        "preLTV",
        "status",
    ]
    assert (added["direction"], added["preLTV"], taken["direction"], taken["afterLTV"]) == (0, "0.613426", 1, "0.8")
    assert taken["preLTV"] == added["afterLTV"]


async def test_histories_come_in_pages_newest_first() -> None:
    """The cursor is the last id, and the page after the last is empty."""
    async with running_exchange(requests_per_s={FLEXIBLE_REPAYMENTS: 50}) as exchange:
        for number in range(1, 6):
            exchange.account.loans.repay("USDT", str(number))
        pages = await page_through(exchange, FLEXIBLE_REPAYMENTS, limit=2)
    assert [[row["repayAmount"] for row in page] for page in pages] == [["5", "4"], ["3", "2"], ["1"]]


async def test_terms_are_public_and_signed_requests_are_accepted_too() -> None:
    """Currencies of one tier table are one text; pybit signs these requests although it is not required."""
    async with running_exchange() as exchange:
        for key_path in (
            f"{LOANS}-common/collateral-data",
            f"{LOANS}-common/loanable-data",
            f"{LOANS}/collateral-data",
        ):
            assert (await ask(exchange, key_path)).result
        terms = (await ask(exchange, f"{LOANS}-common/collateral-data", currency="BTC")).result
        loanable = (await ask(exchange, f"{LOANS}-common/loanable-data", currency="USDT", vipLevel="VIP1")).rows
        legacy = (await ask(exchange, f"{LOANS}/collateral-data", currency="BTC")).result
    assert [one["currencies"] for one in terms["collateralRatioConfigList"]] == ["BTC,ETH"]
    assert terms["currencyLiquidationList"] == [{"currency": "BTC", "liquidationOrder": 3}]
    assert (loanable[0]["vipLevel"], loanable[0]["flexibleAnnualizedInterestRate"]) == ("VIP1", "0.060006")
    assert legacy["vipCoinList"][0]["list"][0]["liquidationLTV"] == "0.95"


async def test_a_legacy_order_is_separate() -> None:
    """It has its own LTV and does not count in the new account."""
    async with running_exchange() as exchange:
        ltv = exchange.account.loans.ltv()
        exchange.account.loans.lend_legacy("USDT", "1888.005198", "BTC", "0.0964687")
        [row] = (await ask(exchange, f"{LOANS}/ongoing-orders")).rows
        assert exchange.account.loans.ltv() == ltv
    assert (row["currentLTV"], row["expirationTime"]) == ("0.3058", "")


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("borrow", ("USDT", "20000")),
        ("borrow", ("DOGE", "1")),
        ("borrow", ("USDC", "1", 31)),
        ("repay", ("USDT", "45000.01")),
        ("repay", ("ETH", "1")),
        ("repay_fixed", ("0", "1")),
        ("add_collateral", ("BTC", "2")),
        ("reduce_collateral", ("BTC", "0.9")),
    ],
)
def test_an_action_against_the_terms_is_refused_and_changes_nothing(action: str, arguments: tuple[Any, ...]) -> None:
    """Cases: too much debt, missing coins, terms that are not offered."""
    loans, exchange = a_loan_account()
    before = exchange.account.books()
    with pytest.raises(SandboxError):
        getattr(loans, action)(*arguments)
    assert exchange.account.books() == before


def test_margin_is_called_and_the_call_ends_when_collateral_is_added() -> None:
    """The recorded states of the books show both."""
    loans, exchange = a_loan_account()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        exchange.move_price(symbol, 0.7)
    loans.watch()
    assert loans.is_margin_called
    loans.add_collateral("BTC", "0.5")
    loans.watch()
    assert not loans.is_margin_called
    causes = [state["cause"] for state in exchange.account.history.states]
    assert causes[-3:] == ["margin called", "collateral adjusted", "margin call over"]


@pytest.mark.parametrize("factor", [0.64, 0.4])
def test_liquidation_repays_debts_from_collateral(factor: float) -> None:
    """All debts are repaid while the collateral lasts; the rest of either stays."""
    loans, exchange = a_loan_account()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        exchange.move_price(symbol, factor)
    worth = sum(amount * loans.prices.usd(coin) for coin, amount in loans.collateral.items())
    owed = Decimal(53_000)
    loans.watch()
    left = sum(amount * loans.prices.usd(coin) for coin, amount in loans.collateral.items())
    still_owed = sum((debt.owed for debt in loans.flexible.values()), ZERO) + loans.records.fixed_debt("USDC")
    rows = [*loans.records.flexible_repayments, *loans.records.fixed_repayments]
    assert {row["repayType"] for row in rows} == {2}
    repaid = sum(Decimal(row["repayAmount"]) for row in rows)
    assert repaid + still_owed == owed
    assert abs((worth - left) * Decimal("0.98") - repaid) < Decimal("0.01")
    assert (still_owed == 0) is (factor == 0.64)
    count = len(exchange.account.history.states)
    loans.watch()
    assert len(exchange.account.history.states) == count


@pytest.mark.parametrize(("course", "cause"), [("margin-call", "margin called"), ("liquidation", "liquidated")])
async def test_a_course_takes_the_loan_across_its_threshold_in_time(course: str, cause: str) -> None:
    """The price falls evenly and stops beyond the threshold; LTV rises from poll to poll."""
    async with running_exchange(course=course, course_s=1.0) as exchange:
        seen = []
        while cause not in [state["cause"] for state in exchange.account.history.states]:
            seen.append(exchange.account.loans.ltv())
            await asyncio.sleep(0.05)
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        states = list(exchange.account.history.states)
        assert "margin called" in [state["cause"] for state in states]
        if course == "liquidation":
            assert exchange.account.loans.ltv() == 0
            rows = (await ask(exchange, FLEXIBLE_REPAYMENTS)).rows
            assert [row["repayType"] for row in rows] == [2]


async def test_thresholds_can_be_set() -> None:
    """Bybit's thresholds are on its help pages and may change."""
    async with running_exchange(margin_call_ltv="0.5", liquidation_ltv="0.6") as exchange:
        await eventually(lambda: exchange.account.loans.ltv() == 0)


async def test_a_process_prints_the_requested_key_and_its_account_can_be_changed() -> None:
    """Without the setting no key is printed; the account is changed and read from outside."""
    async with exchange_process(key="trading") as process:
        assert (process.api_key, process.api_secret) == (KEYS["trading"].api_key, KEYS["trading"].api_secret)
        await process.act("add_collateral", coin="BTC", amount="0.5")
        found = await process.account()
        assert found["states"][-1]["cause"] == "collateral adjusted"
        assert found["loans"]["collateralList"][0] == {"amount": "1.5", "amountUSD": "86400", "currency": "BTC"}
        with pytest.raises(ValueError, match="no action"):
            await process.act("burn")


def test_unknown_courses_and_keys_are_refused_by_name() -> None:
    """The error lists the known ones."""
    for scenario in (Scenario(course="boom"), Scenario(key="master")):
        with pytest.raises(SandboxError, match="there are"):
            SimulatedExchange(scenario)
