"""Collateral prices at which a loan reaches an LTV threshold, when all coins fall together."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

from hedgelock_ingest.protocol.loans import price_factor_at
from hedgelock_ingest.protocol.rest_messages import Borrowed, LoanPositionResult, Pledged

STABLECOINS = frozenset({"USDT", "USDC", "USDE", "DAI", "USD1", "FDUSD", "PYUSD", "RLUSD", "USDTB", "TUSD"})
"""Coins whose price is assumed constant, as collateral and as debt."""

_PRECISION = 50


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
    with localcontext(prec=_PRECISION):
        counted = sum((Decimal(pledged.amountUSD) for pledged in moving), Decimal(0))
        falling_debt = _debt_usd([owed for owed in position.borrowList if owed.loanCurrency in coins])
        # LTV = (steady debt + f x falling debt) / (steady + f x counted) = threshold, solved for f.
        effective = counted - falling_debt / threshold
        if effective <= 0:
            return None
        steady = Decimal(position.totalCollateral) - counted
        debt = Decimal(position.totalDebt) - falling_debt
        return price_factor_at(threshold, debt=debt, moving=effective, steady=steady)


def _debt_usd(borrowed: Sequence[Borrowed]) -> Decimal:
    return sum((Decimal(owed.fixedTotalDebtUSD) + Decimal(owed.flexibleTotalDebtUSD) for owed in borrowed), Decimal(0))


def _moves(pledged: Pledged) -> bool:
    return pledged.currency not in STABLECOINS and Decimal(pledged.amountUSD) > 0
