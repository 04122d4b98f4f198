"""Loan arithmetic in Decimal: LTV, collateral figures, and the price at which LTV reaches a threshold."""

from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import NamedTuple

MARGIN_CALL_LTV = Decimal("0.85")
LIQUIDATION_LTV = Decimal("0.95")
"""
One set for all coins and loans; no endpoint reports them for new loans.

Source: Bybit help centre, Introduction to Crypto Loans (dated 2026-01-27): initial 80 %, margin call 85 %, liquidation
95 %.
"""

_RATIO = Decimal("0.0001")
_PRECISION = 50


class CollateralFigures(NamedTuple):
    """Collateral over debt, None without debt; and collateral less debt."""

    collateral_ratio: Decimal | None
    free_collateral: Decimal


def collateral_figures(collateral_value: Decimal, debt: Decimal) -> CollateralFigures:
    """Compute ratio and free collateral from collateral value and debt, both in USD; the ratio has 4 digits."""
    with localcontext(prec=_PRECISION):
        ratio = (collateral_value / debt).quantize(_RATIO, ROUND_HALF_UP) if debt else None
        return CollateralFigures(ratio, collateral_value - debt)


def ltv(debt: Decimal, collateral_value: Decimal) -> Decimal | None:
    """
    Return debt over collateral; None without collateral.

    The collateral is valued after Bybit's tiered ratios, over all loans of the account together.

    Source: Bybit V5, Crypto Loan (New), Get Crypto Loan Position; its example: 9638.17 / 18381.41 = 0.52434.
    """
    with localcontext(prec=_PRECISION):
        return debt / collateral_value if collateral_value else None


def price_factor_at(threshold: Decimal, *, debt: Decimal, moving: Decimal, steady: Decimal) -> Decimal | None:
    """
    Return the factor on the price of one coin at which LTV reaches `threshold`; None if no fall of it reaches it.

    Args:
        threshold: Such as `MARGIN_CALL_LTV`.
        debt: USD, none of it in that coin.
        moving: USD value of the collateral in that coin, after the collateral ratio, which is taken as unchanged.
        steady: USD value of all other collateral.
    """
    with localcontext(prec=_PRECISION):
        if not moving or not debt:
            return None
        factor = (debt / threshold - steady) / moving
        return factor if factor > 0 else None
