"""The unified wallet: holdings by coin, and Bybit's rows of coins and account."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, rounded, text, total, truncated
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

SETTLE_COIN = "USDT"


@dataclass(slots=True)
class CoinHolding:
    """The holdings of one coin of the wallet."""

    balance: Decimal = ZERO
    realised: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Margins of open orders and positions, and unrealised profit of positions; all in USDT."""

    orders: Decimal = ZERO
    positions: Decimal = ZERO
    maintenance: Decimal = ZERO
    unrealised: Decimal = ZERO


_NO_MARGINS = Margins()


def wallet_row(coins: Mapping[str, CoinHolding], margins: Margins, prices: Prices) -> dict[str, Any]:
    """
    Describe the account with these coins as stream and REST both do.

    The account's figures are of all coins; USD figures have eight digits, rates four, cut.
    Source: Bybit V5, WebSocket Wallet; Get Wallet Balance.
    """
    balance = total(rounded(coin.balance * prices.usd(name)) for name, coin in coins.items())
    equity = balance + margins.unrealised
    initial = margins.orders + margins.positions
    return {
        "accountIMRate": _rate(initial, equity),
        "accountIMRateByMp": _rate(initial, equity),
        "accountMMRate": _rate(margins.maintenance, equity),
        "accountMMRateByMp": _rate(margins.maintenance, equity),
        "totalEquity": text(equity),
        "totalWalletBalance": text(balance),
        "totalMarginBalance": text(equity),
        "totalAvailableBalance": text(max(equity - initial, ZERO)),
        "totalPerpUPL": text(margins.unrealised),
        "totalInitialMargin": text(initial),
        "totalInitialMarginByMp": text(initial),
        "totalMaintenanceMargin": text(margins.maintenance),
        "totalMaintenanceMarginByMp": text(margins.maintenance),
        "coin": [coin_row(name, coin, margins, prices) for name, coin in coins.items()],
        "accountLTV": "0",
        "accountType": "UNIFIED",
    }


def coin_row(name: str, coin: CoinHolding, margins: Margins, prices: Prices) -> dict[str, Any]:
    """Describe one coin; positions and orders count in the coin they settle in."""
    if name != SETTLE_COIN:
        margins = _NO_MARGINS
    equity = coin.balance + margins.unrealised
    return {
        "coin": name,
        "equity": text(equity),
        "usdValue": text(rounded(equity * prices.usd(name))),
        "walletBalance": text(coin.balance),
        "availableToWithdraw": "",
        "availableToBorrow": "",
        "borrowAmount": "0",
        "accruedInterest": "0",
        "totalOrderIM": text(margins.orders),
        "totalPositionIM": text(margins.positions),
        "totalPositionMM": text(margins.maintenance),
        "unrealisedPnl": text(margins.unrealised),
        "cumRealisedPnl": text(coin.realised),
        "bonus": "0",
        "collateralSwitch": True,
        "marginCollateral": True,
        "locked": "0",
        "spotHedgingQty": "0",
        "spotBorrow": "0",
        "colRes": "0",
    }


def _rate(margin: Decimal, equity: Decimal) -> str:
    return text(truncated(margin / equity, 4)) if equity > 0 else "0"
