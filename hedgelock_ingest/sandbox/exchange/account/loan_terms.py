"""The terms of crypto loans: what may be borrowed at what rate, and what collateral counts for."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, rounded, text, total

HOURLY_RATES = {
    "USDT": Decimal("0.00000685"),
    "USDC": Decimal("0.00000628"),
    "BTC": Decimal("0.0000001361462"),
    "ETH": Decimal("0.0000018847396"),
}
ANNUAL_RATES = {7: Decimal("0.02"), 14: Decimal("0.022"), 30: Decimal("0.04"), 90: Decimal("0.055")}
INITIAL_LTV = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a coin's USD value, and the ratio at which it counts as collateral."""

    above: Decimal
    up_to: Decimal
    ratio: Decimal


def tiers_up_to(*steps: tuple[str, str]) -> tuple[Tier, ...]:
    """Build tiers from (upper bound in USD, ratio)."""
    bounds = [Decimal(bound) for bound, _ in steps]
    return tuple(
        Tier(above, bound, Decimal(ratio))
        for above, bound, (_, ratio) in zip([ZERO, *bounds], bounds, steps, strict=False)
    )


_UNLIMITED_USD = "99999999999"
TIERS = {
    "BTC,ETH": tiers_up_to(("100000", "0.9"), ("500000", "0.8"), ("1000000", "0.6"), (_UNLIMITED_USD, "0.4")),
    "USDT,USDC": tiers_up_to(("1000000", "0.95"), (_UNLIMITED_USD, "0.8")),
}
LIQUIDATION_ORDER = ("USDT", "USDC", "BTC", "ETH")


def tiers_of(coin: str) -> tuple[Tier, ...]:
    """Return the tiers of a coin; none for one that is no collateral."""
    return next((tiers for coins, tiers in TIERS.items() if coin in coins.split(",")), ())


def counted_usd(value_usd: Decimal, tiers: tuple[Tier, ...]) -> Decimal:
    """
    Return what a USD value counts for as collateral, each tier for the part that lies in it.

    Source: Bybit V5, Get Collateral Coins; that the bounds are USD follows from the example of Get Position.
    """
    return rounded(total(max(min(value_usd, one.up_to) - one.above, ZERO) * one.ratio for one in tiers), 2)


def collateral_terms(currency: str | None) -> dict[str, Any]:
    """Return the result of `/v5/crypto-loan-common/collateral-data`."""
    return {
        "collateralRatioConfigList": [
            {
                "collateralRatioList": [
                    {"collateralRatio": text(one.ratio), "maxValue": text(one.up_to), "minValue": text(one.above)}
                    for one in tiers
                ],
                "currencies": coins,
            }
            for coins, tiers in TIERS.items()
            if currency is None or currency in coins.split(",")
        ],
        "currencyLiquidationList": [
            {"currency": coin, "liquidationOrder": order}
            for order, coin in enumerate(LIQUIDATION_ORDER, 1)
            if currency in (None, coin)
        ],
    }


def loanable_terms(currency: str | None, vip_level: str) -> dict[str, Any]:
    """Return the result of `/v5/crypto-loan-common/loanable-data`."""
    return {"list": [_loanable(coin, vip_level) for coin in HOURLY_RATES if currency in (None, coin)]}


def legacy_collateral_terms(currency: str | None, vip_level: str | None) -> dict[str, Any]:
    """Return the result of the legacy `/v5/crypto-loan/collateral-data`."""
    rows = [
        {
            "collateralAccuracy": 8,
            "currency": coin,
            "initialLTV": "0.8",
            "liquidationLTV": "0.95",
            "marginCallLTV": "0.87",
            "maxLimit": "32",
        }
        for coin in LIQUIDATION_ORDER
        if currency in (None, coin)
    ]
    return {"vipCoinList": [{"list": rows, "vipLevel": vip_level or "VIP0"}]}


def _loanable(coin: str, vip_level: str) -> dict[str, Any]:
    return {
        "annualizedInterestRate14D": text(ANNUAL_RATES[14]),
        "annualizedInterestRate180D": "",
        "annualizedInterestRate30D": text(ANNUAL_RATES[30]),
        "annualizedInterestRate60D": "",
        "annualizedInterestRate7D": text(ANNUAL_RATES[7]),
        "annualizedInterestRate90D": text(ANNUAL_RATES[90]),
        "currency": coin,
        "fixedBorrowable": True,
        "fixedBorrowingAccuracy": 6,
        "flexibleAnnualizedInterestRate": text(HOURLY_RATES[coin] * 24 * 365),
        "flexibleBorrowable": True,
        "flexibleBorrowingAccuracy": 8,
        "maxBorrowingAmount": "1100000" if coin.startswith("USD") else "1000",
        "minFixedBorrowingAmount": "0.01",
        "minFlexibleBorrowingAmount": "0.001",
        "vipLevel": vip_level,
    }
