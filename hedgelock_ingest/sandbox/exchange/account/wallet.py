"""The wallets of the account: holdings by coin, Bybit's rows of coins and account, and what may be transferred."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, rounded, text, total, truncated
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

UNIFIED, CONTRACT = "UNIFIED", "CONTRACT"


@dataclass(slots=True)
class CoinHolding:
    """
    The holdings of one coin of a wallet.

    `balance` includes what was `borrowed` for margin trading; `interest` is owed and not yet charged. A coin that
    is not `is_collateral` counts as equity but backs no margin.
    """

    balance: Decimal = ZERO
    realised: Decimal = ZERO
    borrowed: Decimal = ZERO
    interest: Decimal = ZERO
    is_collateral: bool = True

    @property
    def own(self) -> Decimal:
        """The balance without what was borrowed."""
        return self.balance - self.borrowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """
    What orders and positions bind of the coin that they settle in, and add to it.

    `unrealised` is the profit of contracts, `options` the value of options, `locked` what open spot orders pay with.
    """

    orders: Decimal = ZERO
    positions: Decimal = ZERO
    maintenance: Decimal = ZERO
    unrealised: Decimal = ZERO
    options: Decimal = ZERO
    locked: Decimal = ZERO

    def __add__(self, other: "Margins") -> "Margins":
        """Add two up."""
        return Margins(
            orders=self.orders + other.orders,
            positions=self.positions + other.positions,
            maintenance=self.maintenance + other.maintenance,
            unrealised=self.unrealised + other.unrealised,
            options=self.options + other.options,
            locked=self.locked + other.locked,
        )


NO_MARGINS = Margins()


@dataclass(frozen=True, slots=True)
class Totals:
    """
    The figures of the unified account in USD, with eight digits.

    Source: Bybit V5, Get Wallet Balance: equity is the sum of all coins, margin balance is wallet balance and profit
    of contracts, available balance is that without haircut and initial margin. The haircut is the value of the coins
    that are no collateral; all others count in full.
    """

    equity: Decimal
    wallet: Decimal
    profit: Decimal
    haircut: Decimal
    initial: Decimal
    maintenance: Decimal

    @property
    def margin(self) -> Decimal:
        """The balance that margins are taken from."""
        return self.wallet + self.profit

    @property
    def available(self) -> Decimal:
        """What is free for new orders."""
        return max(self.margin - self.haircut - self.initial, ZERO)

    def row(self) -> dict[str, str]:
        """Describe them as stream and REST both do; rates have four digits, cut."""
        initial_rate, maintenance_rate = (_rate(one, self.margin) for one in (self.initial, self.maintenance))
        return {
            "accountIMRate": initial_rate,
            "accountIMRateByMp": initial_rate,
            "accountMMRate": maintenance_rate,
            "accountMMRateByMp": maintenance_rate,
            "totalEquity": text(self.equity),
            "totalWalletBalance": text(self.wallet),
            "totalMarginBalance": text(self.margin),
            "totalAvailableBalance": text(self.available),
            "totalPerpUPL": text(self.profit),
            "totalInitialMargin": text(self.initial),
            "totalInitialMarginByMp": text(self.initial),
            "totalMaintenanceMargin": text(self.maintenance),
            "totalMaintenanceMarginByMp": text(self.maintenance),
        }


def totals_of(coins: Mapping[str, CoinHolding], margins: Mapping[str, Margins], prices: Prices) -> Totals:
    """Add up all coins in USD."""

    def usd(amounts: Mapping[str, Decimal]) -> Decimal:
        return total(rounded(amount * prices.usd(name)) for name, amount in amounts.items())

    return Totals(
        equity=usd({name: equity_of(coin, margins.get(name, NO_MARGINS)) for name, coin in coins.items()}),
        wallet=usd({name: coin.own for name, coin in coins.items()}),
        profit=usd({name: one.unrealised for name, one in margins.items()}),
        haircut=usd({name: max(coin.own, ZERO) for name, coin in coins.items() if not coin.is_collateral}),
        initial=usd({name: one.orders + one.positions for name, one in margins.items()}),
        maintenance=usd({name: one.maintenance for name, one in margins.items()}),
    )


def equity_of(coin: CoinHolding, margins: Margins) -> Decimal:
    """Return the equity of a coin. Source: Bybit V5, Get Wallet Balance, "equity"."""
    return coin.own + margins.unrealised + margins.options


def unified_row(coins: Mapping[str, CoinHolding], margins: Mapping[str, Margins], prices: Prices) -> dict[str, Any]:
    """Describe the unified account with these coins. Source: Bybit V5, WebSocket Wallet; Get Wallet Balance."""
    return {
        **totals_of(coins, margins, prices).row(),
        "coin": [coin_row(name, coin, margins.get(name, NO_MARGINS), prices) for name, coin in coins.items()],
        "accountLTV": "0",
        "accountType": UNIFIED,
    }


def coin_row(name: str, coin: CoinHolding, margins: Margins, prices: Prices) -> dict[str, Any]:
    """Describe one coin; `availableToWithdraw` of a unified account is empty since January 2025."""
    equity = equity_of(coin, margins)
    return {
        "coin": name,
        "equity": text(equity),
        "usdValue": text(rounded(equity * prices.usd(name))),
        "walletBalance": text(coin.balance),
        "availableToWithdraw": "",
        "availableToBorrow": "",
        "borrowAmount": text(coin.borrowed),
        "accruedInterest": text(coin.interest),
        "totalOrderIM": text(margins.orders),
        "totalPositionIM": text(margins.positions),
        "totalPositionMM": text(margins.maintenance),
        "unrealisedPnl": text(margins.unrealised),
        "cumRealisedPnl": text(coin.realised),
        "bonus": "0",
        "collateralSwitch": coin.is_collateral,
        "marginCollateral": True,
        "locked": text(margins.locked),
        "spotHedgingQty": "0",
        "spotBorrow": text(coin.borrowed),
        "colRes": "0",
    }


def contract_row(coins: Mapping[str, CoinHolding], margins: Mapping[str, Margins]) -> dict[str, Any]:
    """
    Describe the second wallet of UTA 1.0, that of inverse contracts: the figures of an account are empty.

    Source: Bybit V5, Get Wallet Balance, "All account wide fields are not applicable to UTA1.0 (CONTRACT)".
    """
    empty = dict.fromkeys(Totals(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO).row(), "")
    rows = [_contract_coin_row(name, coin, margins.get(name, NO_MARGINS)) for name, coin in coins.items()]
    return {**empty, "coin": rows, "accountLTV": "", "accountType": CONTRACT}


def transferable(coin: CoinHolding, margins: Margins, totals: Totals, price: Decimal) -> str:
    """
    Return how much of a coin may leave the unified account, with eight digits as Bybit writes it.

    Collateral is bound by the account's available balance, converted into the coin; other coins by what open spot
    orders lock. Source: Bybit V5, Get Transferable Amount (Unified).
    """
    free = max(coin.own - margins.locked, ZERO)
    bound = min(free, totals.available / price) if coin.is_collateral else free
    return f"{truncated(bound, 8):f}"


def _contract_coin_row(name: str, coin: CoinHolding, margins: Margins) -> dict[str, Any]:
    equity = equity_of(coin, margins)
    return {
        "coin": name,
        "equity": text(equity),
        "usdValue": "",
        "walletBalance": text(coin.balance),
        "availableToWithdraw": text(max(min(coin.balance, equity - margins.orders - margins.positions), ZERO)),
        "availableToBorrow": "",
        "borrowAmount": "",
        "accruedInterest": "",
        "totalOrderIM": text(margins.orders),
        "totalPositionIM": text(margins.positions),
        "totalPositionMM": text(margins.maintenance),
        "unrealisedPnl": text(margins.unrealised),
        "cumRealisedPnl": text(coin.realised),
        "bonus": "0",
        "collateralSwitch": False,
        "marginCollateral": False,
        "locked": "",
        "spotHedgingQty": "",
        "spotBorrow": "",
        "colRes": "0",
    }


def _rate(margin: Decimal, balance: Decimal) -> str:
    return text(truncated(margin / balance, 4)) if balance > 0 else "0"
