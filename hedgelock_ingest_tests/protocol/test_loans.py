"""Collateral prices at which the LTV of a loan reaches a threshold."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.protocol.loans import LIQUIDATION_LTV, MARGIN_CALL_LTV, fall_factor_at, moving_collateral
from hedgelock_ingest.protocol.rest_messages import Borrowed, LoanPositionResult, Pledged

AMOUNTS = st.decimals(min_value=1, max_value=10_000_000, places=2)


def a_position(debts: dict[str, Decimal | int], collateral: dict[str, Decimal | int]) -> LoanPositionResult:
    """Build a loan account from USD values by coin; the amounts of coins do not matter here."""
    total_debt, total = sum(map(Decimal, debts.values())), sum(map(Decimal, collateral.values()))
    return LoanPositionResult(
        borrowList=tuple(Borrowed(coin, "0", "0", "1", str(usd)) for coin, usd in debts.items()),
        collateralList=tuple(Pledged(coin, "1", str(usd)) for coin, usd in collateral.items()),
        ltv="",
        totalCollateral=str(total),
        totalDebt=str(total_debt),
    )


@given(
    debt=AMOUNTS,
    falling_debt=AMOUNTS | st.just(Decimal(0)),
    btc=AMOUNTS,
    eth=AMOUNTS,
    usdt=AMOUNTS | st.just(Decimal(0)),
    threshold=st.sampled_from([MARGIN_CALL_LTV, LIQUIDATION_LTV]),
)
def test_ltv_is_the_threshold_once_all_coins_fell_by_the_factor(
    debt: Decimal, falling_debt: Decimal, btc: Decimal, eth: Decimal, usdt: Decimal, threshold: Decimal
) -> None:
    """The reported price of the margin call is the price at which LTV reaches its threshold."""
    position = a_position({"USDT": debt, "BTC": falling_debt}, {"BTC": btc, "ETH": eth, "USDT": usdt})
    factor = fall_factor_at(threshold, position)
    if factor is None:  # steady collateral covers the steady debt, or debt falls as fast as its collateral
        assert debt <= threshold * usdt or threshold * (btc + eth) <= falling_debt
        return
    reached = (debt + factor * falling_debt) / (usdt + factor * (btc + eth))
    assert abs(reached - threshold) < Decimal("1e-12")


@pytest.mark.parametrize(
    ("debts", "collateral"),
    [
        ({}, {"BTC": 1_000}),
        ({"USDT": 500}, {"USDC": 1_000}),
        ({"USDT": 500}, {}),
        ({"BTC": 900}, {"BTC": 1_000}),
        ({"USDT": 100}, {"BTC": 1_000, "USDC": 200}),
        ({"BTC": 2_000, "USDT": 100}, {"BTC": 1_000, "USDC": 5_000}),
    ],
    ids=[
        "no debt",
        "only stablecoins",
        "no collateral",
        "all debt falls with its collateral",
        "covered by stablecoins",
        "only a rise",
    ],
)
def test_no_price_is_given_where_no_fall_reaches_the_threshold(
    debts: dict[str, Decimal | int], collateral: dict[str, Decimal | int]
) -> None:
    """A meaningless figure would mislead the operator."""
    assert fall_factor_at(LIQUIDATION_LTV, a_position(debts, collateral)) is None


def test_threshold_that_is_passed_lies_above_the_price() -> None:
    """An LTV of 90 % is past the margin call: the price would have to rise."""
    factor = fall_factor_at(MARGIN_CALL_LTV, a_position({"USDT": 900}, {"BTC": 1_000}))
    assert factor == pytest.approx(Decimal(90) / 85)


def test_stablecoins_and_empty_rows_do_not_move() -> None:
    """Only prices that may fall are requested."""
    position = a_position({"USDT": 1}, {"BTC": 5, "USDT": 5, "ETH": 0})
    assert [pledged.currency for pledged in moving_collateral(position)] == ["BTC"]
