"""Loan terms, and the collateral prices at which a loan reaches an LTV threshold."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from hedgelock_ingest.protocol.decimals import exact, quotient, quotient_to
from hedgelock_ingest.protocol.rest_messages import Borrowed, LoanPositionResult, Pledged

MARGIN_CALL_LTV = Decimal("0.85")
LIQUIDATION_LTV = Decimal("0.95")
"""
One set for all coins and loans; no endpoint reports them for new loans.

Source: Bybit help centre, Introduction to Crypto Loans (dated 2026-01-27): initial 80 %, margin call 85 %, liquidation
95 %.
"""

THRESHOLDS: Mapping[str, Decimal] = {"margin call": MARGIN_CALL_LTV, "liquidation": LIQUIDATION_LTV}
"""Both by the names that operators read."""

_RATIO_PLACES = 4


class CollateralFigures(NamedTuple):
    """Collateral over debt, None without debt; and collateral less debt."""

    collateral_ratio: Decimal | None
    free_collateral: Decimal


def collateral_figures(collateral_value: Decimal, debt: Decimal) -> CollateralFigures:
    """Compute ratio and free collateral from collateral value and debt, both in USD; the ratio has 4 digits."""
    ratio = quotient_to(_RATIO_PLACES, collateral_value, debt) if debt else None
    with exact():
        return CollateralFigures(ratio, collateral_value - debt)


def price_factor_at(threshold: Decimal, *, debt: Decimal, moving: Decimal, steady: Decimal) -> Decimal | None:
    """
    Return the factor on the price of one coin at which LTV reaches `threshold`; None if no fall of it reaches it.

    LTV is debt over collateral, valued after Bybit's tiered ratios, over all loans of the account together.

    Args:
        threshold: Such as `MARGIN_CALL_LTV`.
        debt: USD, none of it in that coin.
        moving: USD value of the collateral in that coin, after the collateral ratio, which is taken as unchanged.
        steady: USD value of all other collateral.
    """
    if not moving or not debt:
        return None
    with exact():
        # LTV = debt / (factor x moving + steady) = threshold, solved for the factor.
        factor = quotient(debt - threshold * steady, threshold * moving)
        return factor if factor > 0 else None


STABLECOINS = frozenset({"USDT", "USDC", "USDE", "DAI", "USD1", "FDUSD", "PYUSD", "RLUSD", "USDTB", "TUSD"})
"""Coins whose price is assumed constant, as collateral and as debt."""


def moving_collateral(position: LoanPositionResult) -> list[Pledged]:
    """List the collateral whose price may fall: all but stablecoins."""
    return [pledged for pledged in position.collateralList if _moves(pledged)]


def fall_factor_at(threshold: Decimal, position: LoanPositionResult) -> Decimal | None:
    """
    Return the common factor on the prices of all moving collateral at which LTV reaches `threshold`.

    Debt in one of those coins falls with its price; all other debt is constant, as are stablecoins. Bybit's tiered
    ratios are assumed constant: they rise as the value falls, so LTV reaches the threshold a little later, never
    earlier.

    Returns:
        None without debt, without moving collateral, or if no fall reaches the threshold. Above 1 if LTV is past it.
    """
    moving = moving_collateral(position)
    coins = {pledged.currency for pledged in moving}
    with exact():
        counted = sum((Decimal(pledged.amountUSD) for pledged in moving), Decimal(0))
        falling_debt = _debt_usd([owed for owed in position.borrowList if owed.loanCurrency in coins])
        # LTV = (steady debt + f x falling debt) / (steady + f x counted) = threshold, solved for f.
        effective = counted - quotient(falling_debt, threshold)
        if effective <= 0:
            return None
        steady = Decimal(position.totalCollateral) - counted
        debt = Decimal(position.totalDebt) - falling_debt
        return price_factor_at(threshold, debt=debt, moving=effective, steady=steady)


def _debt_usd(borrowed: Sequence[Borrowed]) -> Decimal:
    return sum((Decimal(owed.fixedTotalDebtUSD) + Decimal(owed.flexibleTotalDebtUSD) for owed in borrowed), Decimal(0))


def _moves(pledged: Pledged) -> bool:
    return pledged.currency not in STABLECOINS and Decimal(pledged.amountUSD) > 0
