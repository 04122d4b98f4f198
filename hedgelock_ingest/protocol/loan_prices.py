"""At which prices of its collateral a loan reaches a threshold, when the coins fall together."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

from hedgelock_ingest.protocol.loans import price_factor_at
from hedgelock_ingest.protocol.rest_messages import Borrowed, LoanPositionResult, Pledged

STABLECOINS = frozenset({"USDT", "USDC", "USDE", "DAI", "USD1", "FDUSD", "PYUSD", "RLUSD", "USDTB", "TUSD"})
"""Coins whose price is taken to stay, as collateral and as debt."""

_PRECISION = 50


def moving_collateral(position: LoanPositionResult) -> list[Pledged]:
    """List the collateral whose price may fall: all but stablecoins."""
    return [pledged for pledged in position.collateralList if _moves(pledged)]


def fall_factor_at(threshold: Decimal, position: LoanPositionResult) -> Decimal | None:
    """
    Give the factor on the prices of all moving collateral together at which LTV reaches `threshold`.

    Debt in one of those coins falls with it; all other debt stays, as stablecoins do. Bybit's tiered ratios are taken
    as they are: they rise as the value falls, so that LTV reaches the threshold a little later, never earlier.

    Returns:
        None without debt, without collateral that moves, and where no fall reaches it. Above 1 when it is passed.
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
