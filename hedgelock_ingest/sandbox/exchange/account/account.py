"""The simulated account: orders and positions in exact decimals, and the private messages of each change."""

import uuid
from collections.abc import Mapping
from decimal import Decimal
from random import Random

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, positive, rounded, text, truncated
from hedgelock_ingest.sandbox.exchange.account.categories import (
    LINEAR,
    MAKER_FEE,
    SPOT,
    TAKER_FEE,
    CategoryRules,
    rules_of,
)
from hedgelock_ingest.sandbox.exchange.account.funds import AccountFunds
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.account.order import Fill, Order
from hedgelock_ingest.sandbox.exchange.account.position import HeldPosition
from hedgelock_ingest.sandbox.exchange.account.sent_messages import AccountHistory
from hedgelock_ingest.sandbox.exchange.account.wallet import CoinHolding
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

_MARKET_BAND = Decimal("0.05")
_HEDGE = ("BTCUSDT", "Sell", "0.25")


class SimulatedAccount(AccountFunds):
    """
    One unified account with positions of any category, and a loan account beside it.

    Amounts are decimals or their texts. `category` is that of the symbol's shape unless it is given: BTCUSD is
    inverse, BTC-25DEC26-70000-C an option, all others linear; spot must be named.
    """

    def __init__(
        self,
        prices: Prices,
        loans: Loans,
        *,
        clock: ExchangeClock,
        random: Random,
        history: AccountHistory,
        contract_wallet: Mapping[str, str],
    ) -> None:
        super().__init__(prices, loans, clock=clock, history=history, contract_wallet=contract_wallet)
        self._random = random

    def open_hedge(self) -> None:
        """Open the initial position, where its market is traded."""
        symbol, side, qty = _HEDGE
        if self.prices.trades(symbol):
            self.fill(symbol, side, qty)

    def place_order(
        self,
        symbol: str,
        side: str,
        qty: Decimal | str,
        price: Decimal | str,
        *,
        reduce_only: bool = False,
        category: str | None = None,
    ) -> str:
        """Place a limit order, which stays open until it is filled or cancelled; return its id."""
        rules = self._rules(symbol, category)
        self._parts(rules, symbol, positive(qty), 1)
        order = self._new_order(rules, symbol, side, qty, order_type="Limit", price=positive(price))
        order.reduce_only = reduce_only
        self.open_orders[order.order_id] = order
        self._send_order(order, rules.next_seq(symbol, self.prices))
        self.note("order placed")
        return order.order_id

    def cancel_order(self, order_id: str) -> None:
        """Cancel an open order."""
        order = self._open_order(order_id)
        order.status, order.cancel_type, order.reject_reason = "Cancelled", "CancelByUser", "EC_PerCancelRequest"
        order.updated_ms = self.clock.now_ms()
        del self.open_orders[order_id]
        self._send_order(order, order.rules.next_seq(order.symbol, self.prices))
        self.note("order cancelled")

    def fill(
        self,
        symbol: str,
        side: str,
        qty: Decimal | str,
        price: Decimal | str | None = None,
        *,
        fills: int = 1,
        category: str | None = None,
    ) -> list[str]:
        """
        Place a market order and fill it at once, at the mark price or at `price`.

        Args:
            fills: How many executions it takes; all come in one message.

        Returns:
            The execution ids.
        """
        rules = self._rules(symbol, category)
        mark = rules.mark(symbol, self.prices)
        band = mark * _MARKET_BAND
        limit = self._on_tick(rules, symbol, mark + band if side == "Buy" else mark - band)
        at = positive(price) if price else mark
        parts = self._parts(rules, symbol, positive(qty), fills)
        order = self._new_order(rules, symbol, side, qty, order_type="Market", price=limit)
        return self._execute(order, parts, at)

    def fill_order(
        self, order_id: str, qty: Decimal | str | None = None, price: Decimal | str | None = None, *, fills: int = 1
    ) -> list[str]:
        """Fill an open order, all of it or `qty`, at its own price or a better one; return the execution ids."""
        order = self._open_order(order_id)
        filled = positive(qty) if qty else order.leaves
        if filled > order.leaves:
            raise SandboxError(f"order {order_id} has {text(order.leaves)} left, {text(filled)} was to be filled")
        at = positive(price) if price else order.price
        return self._execute(order, self._parts(order.rules, order.symbol, filled, fills), at)

    def on_tick(self, symbol: str, price: Decimal) -> Decimal:
        """Return the nearest price at which a linear symbol can be traded."""
        return self._on_tick(LINEAR, symbol, price)

    def _rules(self, symbol: str, category: str | None) -> CategoryRules:
        rules = rules_of(symbol, category)
        rules.check(symbol, self.prices)
        return rules

    def _new_order(
        self, rules: CategoryRules, symbol: str, side: str, qty: Decimal | str, *, order_type: str, price: Decimal
    ) -> Order:
        if side not in ("Buy", "Sell"):
            raise SandboxError(f"side {side!r} is neither Buy nor Sell")
        now_ms = self.clock.now_ms()
        order = Order(
            number=len(self.orders),
            order_id=self._new_id(4),
            symbol=symbol,
            side=side,
            order_type=order_type,
            price=price,
            qty=positive(qty),
            created_ms=now_ms,
            updated_ms=now_ms,
            last_price=rules.mark(symbol, self.prices),
            rules=rules,
        )
        self.orders[order.order_id] = order
        return order

    def _parts(self, rules: CategoryRules, symbol: str, qty: Decimal, fills: int) -> list[Decimal]:
        digits = rules.size_digits(symbol, self.prices)
        if fills < 1 or truncated(qty, digits) != qty or truncated(qty / fills, digits) == 0:
            raise SandboxError(f"{text(qty)} of {symbol} cannot be filled in {fills} parts")
        part = truncated(qty / fills, digits)
        return [part] * (fills - 1) + [qty - part * (fills - 1)]

    def _execute(self, order: Order, parts: list[Decimal], price: Decimal) -> list[str]:
        seq = order.rules.next_seq(order.symbol, self.prices)
        done = [self._match(order, one, price, seq) for one in parts]
        order.status = "Filled" if order.filled == order.qty else "PartiallyFilled"
        order.updated_ms = done[-1].filled_ms
        if not order.is_open:
            self.open_orders.pop(order.order_id, None)
        self._frames.matched("order", [order.row()], seq=seq, created_ms=order.updated_ms)
        rows = [execution.row() for execution in done]
        self._frames.matched("execution", rows, seq=seq, created_ms=order.updated_ms)
        self._send_position(order)
        self._send_wallet_of(order)
        self.note("filled")
        return [execution.exec_id for execution in done]

    def _match(self, order: Order, qty: Decimal, price: Decimal, seq: int) -> Fill:
        now_ms, rules, quantity = self.clock.now_ms(), order.rules, qty * order.signed
        rate = TAKER_FEE if order.order_type == "Market" else MAKER_FEE
        value = rules.value(qty, price)
        is_fee_in_base = rules is SPOT and order.side == "Buy"
        fee = rounded((qty if is_fee_in_base else value) * rate)
        closed = profit = ZERO
        if rules.has_position:
            position = self._position(order)
            closed, profit = position.apply(quantity, price, now_ms=now_ms, seq=seq)
            position.realise(profit - fee)
        else:
            self.coins.setdefault(rules.base_coin(order.symbol), CoinHolding()).balance += quantity
        self._settle(order, rules.settled(quantity, price, profit), profit=profit, fee=fee)
        order.filled += qty
        order.filled_value += value
        order.fee += fee
        order.closed_pnl += profit
        execution = Fill(
            number=len(self.executions),
            exec_id=self._new_id(5),
            order=order,
            price=price,
            qty=qty,
            value=value,
            fee=fee,
            fee_rate=rate,
            profit=profit,
            closed=closed,
            leaves=order.qty - order.filled,
            mark=rules.mark(order.symbol, self.prices),
            is_maker=order.order_type == "Limit",
            filled_ms=now_ms,
            seq=seq,
            index=self.prices.mark(rules.underlying(order.symbol)) if rules.category == "option" else None,
        )
        self.executions.append(execution)
        return execution

    def _settle(self, order: Order, amount: Decimal, *, profit: Decimal, fee: Decimal) -> None:
        coins = self.holdings(self.account_type_of(order.rules.category))
        coins.setdefault(order.rules.settle_coin(order.symbol), CoinHolding()).balance += amount
        paying = coins.setdefault(order.fee_coin, CoinHolding())
        paying.balance -= fee
        if order.rules.has_position:
            paying.realised += profit - fee

    def _send_order(self, order: Order, seq: int) -> None:
        self._frames.matched("order", [order.row()], seq=seq, created_ms=order.updated_ms)
        self._send_wallet_of(order)
        self._send_position(order)

    def _send_wallet_of(self, order: Order) -> None:
        rules, symbol = order.rules, order.symbol
        names = (
            [rules.settle_coin(symbol)] if rules.has_position else [rules.base_coin(symbol), rules.settle_coin(symbol)]
        )
        self.send_wallet(*names, account_type=self.account_type_of(rules.category))

    def _send_position(self, order: Order) -> None:
        # Bybit sends the position at every change of an order, with the old time and seq where nothing was filled.
        if order.rules.has_position:
            position = self._position(order)
            self._frames.changed("position", position.row(self.mark(position)))

    def _position(self, order: Order) -> HeldPosition:
        return self.positions.setdefault(order.symbol, HeldPosition(order.symbol, rules=order.rules))

    def _open_order(self, order_id: str) -> Order:
        order = self.open_orders.get(order_id)
        if order is None:
            raise SandboxError(f"no open order has the id {order_id}")
        return order

    def _on_tick(self, rules: CategoryRules, symbol: str, price: Decimal) -> Decimal:
        tick = rules.tick(symbol, self.prices)
        return max((price / tick).quantize(Decimal(1)), Decimal(1)) * tick

    def _new_id(self, version: int) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=version))
