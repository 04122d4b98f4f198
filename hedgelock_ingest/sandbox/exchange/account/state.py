"""What the account holds at one time, and the figures that follow from it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import text
from hedgelock_ingest.sandbox.exchange.account.categories import INVERSE, SPOT
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.account.order import Fill, Order
from hedgelock_ingest.sandbox.exchange.account.position import HeldPosition
from hedgelock_ingest.sandbox.exchange.account.wallet import (
    CONTRACT,
    NO_MARGINS,
    UNIFIED,
    CoinHolding,
    Margins,
    coin_row,
    contract_row,
    totals_of,
    transferable,
    unified_row,
)
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

_NO_COIN = CoinHolding()


class AccountState:
    """
    Wallets, positions, orders, executions and loans, and the prices that they are valued at.

    With `contract_coins` the account has a second wallet (UTA 1.0), in which inverse contracts settle.
    """

    def __init__(
        self,
        prices: Prices,
        loans: Loans,
        *,
        coins: Mapping[str, CoinHolding],
        contract_coins: Mapping[str, CoinHolding],
    ) -> None:
        self.prices = prices
        self.loans = loans
        self.coins = dict(coins)
        self.contract_coins = dict(contract_coins)
        self.positions: dict[str, HeldPosition] = {}
        self.orders: dict[str, Order] = {}
        self.open_orders: dict[str, Order] = {}
        self.executions: list[Fill] = []

    @property
    def account_types(self) -> tuple[str, ...]:
        """The wallets that the account has."""
        return (UNIFIED, CONTRACT) if self.contract_coins else (UNIFIED,)

    def account_type_of(self, category: str) -> str:
        """Return the wallet that a category settles in."""
        return CONTRACT if category == INVERSE.category and self.contract_coins else UNIFIED

    def holdings(self, account_type: str) -> dict[str, CoinHolding]:
        """Return the coins of a wallet."""
        return self.contract_coins if account_type == CONTRACT else self.coins

    def wallet(self, *names: str, account_type: str = UNIFIED) -> dict[str, Any]:
        """Describe a wallet; with names, the figures of the complete account but only these coins."""
        coins, margins = self.holdings(account_type), self.margins(account_type)
        row = contract_row(coins, margins) if account_type == CONTRACT else unified_row(coins, margins, self.prices)
        if names:
            row["coin"] = [coin for coin in row["coin"] if coin["coin"] in names]
        return row

    def coin_rows(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Describe coins of the unified wallet, also those that it does not hold."""
        margins = self.margins()
        return [
            coin_row(name, self.coins.get(name, _NO_COIN), margins.get(name, NO_MARGINS), self.prices) for name in names
        ]

    def transferable(self, names: Iterable[str]) -> dict[str, str]:
        """Return how much of each coin may leave the unified account."""
        margins = self.margins()
        totals = totals_of(self.coins, margins, self.prices)
        return {
            name: transferable(
                self.coins.get(name, _NO_COIN), margins.get(name, NO_MARGINS), totals, self.prices.usd(name)
            )
            for name in names
        }

    def margins(self, account_type: str = UNIFIED) -> dict[str, Margins]:
        """Return what orders and positions bind at the current prices, by the coin that they settle in."""
        found: dict[str, Margins] = {}
        for category, coin, bound in self._bound():
            if self.account_type_of(category) == account_type:
                found[coin] = found.get(coin, NO_MARGINS) + bound
        return found

    def mark(self, position: HeldPosition) -> Decimal:
        """Return the mark price of a position."""
        return position.rules.mark(position.symbol, self.prices)

    def books(self) -> dict[str, Any]:
        """Return the entries and the figures that follow from them at the current prices."""
        return {**self.entries(), **self.figures()}

    def entries(self) -> dict[str, Any]:
        """Return balances, positions, open orders and loans."""
        return {
            "balances": {name: text(coin.balance) for name, coin in self.coins.items()},
            "contract_balances": {name: text(coin.balance) for name, coin in self.contract_coins.items()},
            "positions": {
                symbol: {
                    "category": one.rules.category,
                    "size": text(one.size),
                    "entry": text(one.entry),
                    "mark": text(self.mark(one)),
                }
                for symbol, one in self.positions.items()
            },
            "orders": {one.order_id: one.status for one in self.open_orders.values()},
            "executions": len(self.executions),
            "loans": self.loans.position(),
            "funding": {name: text(amount) for name, amount in self.loans.funding.items()},
        }

    def figures(self) -> dict[str, Any]:
        """Return the figures of the unified account, of each coin, and what is transferable, as Bybit writes them."""
        wallet = self.wallet()
        coins = {coin["coin"]: coin for coin in wallet.pop("coin")}
        return {"account": wallet, "coins": coins, "transferable": self.transferable(self.coins)}

    def copy(self) -> "AccountState":
        """Return a copy that later changes do not reach; closed orders and executions do not change any more."""
        copied = AccountState(
            self.prices,
            self.loans.copy(),
            coins={name: replace(coin) for name, coin in self.coins.items()},
            contract_coins={name: replace(coin) for name, coin in self.contract_coins.items()},
        )
        copied.positions = {symbol: replace(one) for symbol, one in self.positions.items()}
        copied.open_orders = {order_id: replace(one) for order_id, one in self.open_orders.items()}
        return copied

    def _bound(self) -> Iterator[tuple[str, str, Margins]]:
        for one in self.positions.values():
            if one.size:
                yield one.rules.category, one.rules.settle_coin(one.symbol), self._bound_by_position(one)
        for order in self.open_orders.values():
            left = order.leaves * order.signed
            if order.rules is SPOT:
                coin, locked = SPOT.locked(order.symbol, left, order.price)
                yield SPOT.category, coin, Margins(locked=locked)
            elif not order.reduce_only:
                bound = Margins(orders=order.rules.order_margin(order.symbol, left, order.price))
                yield order.rules.category, order.rules.settle_coin(order.symbol), bound

    def _bound_by_position(self, position: HeldPosition) -> Margins:
        mark, is_option = self.mark(position), position.rules.category == "option"
        return Margins(
            positions=position.initial_margin,
            maintenance=position.maintenance_margin,
            unrealised=Decimal(0) if is_option else position.unrealised(mark),
            options=position.rules.held_value(position.size, mark),
        )
