"""Dagster metadata of a collateral poll: LTV, and the prices at which it reaches its thresholds."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import dagster as dg

from hedgelock_ingest.account.scheduled_polls import PollResult
from hedgelock_ingest.defs.polls.ltv_chart import Point, ltv_chart
from hedgelock_ingest.protocol.decimals import exact, rounded
from hedgelock_ingest.protocol.loans import THRESHOLDS, fall_factor_at, moving_collateral
from hedgelock_ingest.protocol.rest_messages import LoanPositionResult

type Figures = dict[str, float | int | str | dg.MarkdownMetadataValue | dg.JsonMetadataValue]

LTV = "LTV"
_CHART = "LTV over time"
_PRICES = "prices at thresholds"
_SIGNIFICANT_DIGITS = 6
MARKDOWN_OPTIONS = {"index": False, "disable_numparse": True, "stralign": "right"}
"""For `to_markdown`, which would otherwise parse texts as floats and shorten them."""

_ASSUMPTIONS = (
    "Assumed: all these coins fall together, by one factor; debt in them falls with them; stablecoins stay; "
    "Bybit's collateral ratios stay, although they rise as the value falls, so the real prices are slightly lower; "
    "a price in USDT equals one in USD."
)


def loan_figures(results: Sequence[PollResult], prices: Mapping[str, Decimal], earlier: Sequence[Point]) -> Figures:
    """
    Return the metadata of the collateral, from its last poll.

    Args:
        results: At least one poll of the collateral.
        prices: The last prices of the collateral's coins, as far as they are known.
        earlier: LTV before the window, for the chart.
    """
    info, loan = results[-1].message.collateral_info, results[-1].loan
    if info is None:
        return {}
    found: Figures = {
        LTV: float(info.ltv),
        "debt USD": float(info.borrowed_amount),
        "collateral USD": float(info.collateral_value),
    }
    polled = [
        (result.message.timestamp, result.message.collateral_info.ltv)
        for result in results
        if result.message.collateral_info is not None
    ]
    found[_CHART] = dg.MetadataValue.md(ltv_chart([*earlier, *polled]))
    if loan is not None:
        found |= _threshold_figures(loan, prices)
    return found


class _Names(NamedTuple):
    """Names of the fields that state what is owed; `interest` is what the debt does not include."""

    coin: str
    debt: str
    interest: tuple[str, ...]


# Bybit V5, Crypto Loan (New), Get Flexible Loans; Get Borrow Contract Info; Crypto Loan (legacy), Get Unpaid Loans.
_NAMES_BY_KIND = {
    "flexible": _Names("loan_currency", "total_debt", ()),
    "fixed": _Names("borrow_currency", "residual_principal", ("residual_penalty_interest",)),
    "legacy": _Names("loan_currency", "total_debt", ("residual_interest", "residual_penalty_interest")),
}


def owed(kind: str, row: Mapping[str, str | int | bool | None]) -> str:
    """Write what is owed on one loan, which each kind names differently: `ETH 1.4`, `USDT 1888 + 0.04 interest`."""
    names = _NAMES_BY_KIND[kind]
    coin, debt = (row.get(name) for name in (names.coin, names.debt))
    interest = [str(row[name]) for name in names.interest if set(str(row.get(name))) & set("123456789")]
    shown = "unknown coin" if coin is None else coin, "unknown" if debt is None else debt
    return f"{shown[0]} {shown[1]}" + "".join(f" + {each} interest" for each in interest)


def _threshold_figures(loan: LoanPositionResult, prices: Mapping[str, Decimal]) -> Figures:
    factors = {name: fall_factor_at(threshold, loan) for name, threshold in THRESHOLDS.items()}
    reached = {name: factor for name, factor in factors.items() if factor is not None}
    coins = [pledged.currency for pledged in moving_collateral(loan)]
    found: Figures = {}
    if reached:
        found[_PRICES] = dg.MetadataValue.md(f"{_price_table(loan, prices, reached)}\n\n{_ASSUMPTIONS}")
    for name, factor in reached.items():
        found[f"fall of collateral to {name} %"] = round(float(_fall(factor)) * 100, 2)
        if len(coins) == 1 and coins[0] in prices:
            found[f"price at {name}, USD a {coins[0]}"] = float(_product(prices[coins[0]], factor))
        elif len(coins) > 1:
            found[f"price factor at {name}"] = round(float(factor), 4)
    return found


def _price_table(loan: LoanPositionResult, prices: Mapping[str, Decimal], factors: Mapping[str, Decimal]) -> str:
    import pandas as pd

    rows = [
        {
            "collateral": pledged.currency,
            "amount": pledged.amount,
            "counts for USD": pledged.amountUSD,
            "price now": _shown(prices.get(pledged.currency)),
            **{f"at {name}": _shown(_times(prices.get(pledged.currency), factor)) for name, factor in factors.items()},
        }
        for pledged in moving_collateral(loan)
    ]
    total = {"collateral": "factor for all", **{f"at {name}": f"{factor:.4f}" for name, factor in factors.items()}}
    return str(pd.DataFrame([*rows, total]).fillna("").to_markdown(**MARKDOWN_OPTIONS))


def _fall(factor: Decimal) -> Decimal:
    with exact():
        return 1 - factor


def _times(price: Decimal | None, factor: Decimal) -> Decimal | None:
    return None if price is None else _product(price, factor)


def _product(price: Decimal, factor: Decimal) -> Decimal:
    with exact():
        product = price * factor
        return rounded(product, Decimal(1).scaleb(max(product.adjusted() - _SIGNIFICANT_DIGITS + 1, -12)))


def _shown(price: Decimal | None) -> str:
    return "unknown" if price is None else f"{price:,f}"
