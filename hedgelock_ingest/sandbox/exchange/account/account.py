"""The simulated account: wallet, orders and positions in exact decimals, and the private messages of each change."""

import uuid
from decimal import Decimal
from random import Random
from typing import Any

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.amounts import positive, rounded, text, total, truncated
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.account.order import Fill, Order
from hedgelock_ingest.sandbox.exchange.account.position import MAKER_FEE, TAKER_FEE, HeldPosition, order_margin
from hedgelock_ingest.sandbox.exchange.account.sent_messages import AccountHistory, PrivateFrames, Publish
from hedgelock_ingest.sandbox.exchange.account.wallet import SETTLE_COIN, CoinHolding, Margins, wallet_row
from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

_MARKET_BAND = Decimal("0.05")
_UNIFIED = {"USDT": "50000", "BTC": "0.5", "ETH": "4", "USDC": "5000"}
_HEDGE = ("BTCUSDT", "Sell", "0.25")


class SimulatedAccount:
    """
    One unified account with linear positions, and a loan account beside it.

    From `publish_to` on, every change is published on the private stream as Bybit does.
    Amounts are decimals or their texts.
    """

    def __init__(
        self, prices: Prices, loans: Loans, *, clock: ExchangeClock, random: Random, history: AccountHistory
    ) -> None:
        self.prices = prices
        self.loans = loans
        self.clock = clock
        self.history = history
        self.coins = {name: CoinHolding(Decimal(amount)) for name, amount in _UNIFIED.items()}
        self.positions: dict[str, HeldPosition] = {}
        self.orders: dict[str, Order] = {}
        self.open_orders: dict[str, Order] = {}
        self.executions: list[Fill] = []
        self._frames = PrivateFrames(clock, history)
        self._random = random
        loans.changed = self.note

    def publish_to(self, publish: Publish) -> None:
        """Hand all further messages of the private stream to `publish`, with their topic."""
        self._frames.publish = publish

    def open_hedge(self) -> None:
        """Open the initial position, where its market is traded."""
        symbol, side, qty = _HEDGE
        if self.prices.trades(symbol):
            self.fill(symbol, side, qty)

    def place_order(
        self, symbol: str, side: str, qty: Decimal | str, price: Decimal | str, *, reduce_only: bool = False
    ) -> str:
        """Place a limit order, which stays open until it is filled or cancelled; return its id."""
        self._parts(symbol, positive(qty), 1)
        order = self._new_order(symbol, side, qty, order_type="Limit", price=positive(price), reduce_only=reduce_only)
        self.open_orders[order.order_id] = order
        self._send_order(order, self.prices.next_seq(symbol))
        self.note("order placed")
        return order.order_id

    def cancel_order(self, order_id: str) -> None:
        """Cancel an open order."""
        order = self._open_order(order_id)
        order.status, order.cancel_type, order.reject_reason = "Cancelled", "CancelByUser", "EC_PerCancelRequest"
        order.updated_ms = self.clock.now_ms()
        del self.open_orders[order_id]
        self._send_order(order, self.prices.next_seq(order.symbol))
        self.note("order cancelled")

    def fill(
        self, symbol: str, side: str, qty: Decimal | str, price: Decimal | str | None = None, *, fills: int = 1
    ) -> list[str]:
        """
        Place a market order and fill it at once, at the mark price or at `price`.

        Args:
            fills: How many executions it takes; all come in one message.

        Returns:
            The execution ids.
        """
        mark = self.prices.mark(symbol)
        band = mark * _MARKET_BAND
        limit = self.on_tick(symbol, mark + band if side == "Buy" else mark - band)
        at = positive(price) if price else mark
        parts = self._parts(symbol, positive(qty), fills)
        order = self._new_order(symbol, side, qty, order_type="Market", price=limit)
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
        return self._execute(order, self._parts(order.symbol, filled, fills), at)

    def deposit(self, coin: str, amount: Decimal | str) -> None:
        """Put coins into the unified wallet."""
        self._book(coin, positive(amount), "deposit")

    def withdraw(self, coin: str, amount: Decimal | str) -> None:
        """Take coins out of the unified wallet."""
        left = self.coins.get(coin, CoinHolding()).balance - positive(amount)
        if left < 0:
            raise SandboxError(f"the wallet holds less {coin} than {amount}")
        self._book(coin, -positive(amount), "withdrawal")

    def send_wallet(self, *names: str) -> None:
        """Send the wallet again, with some of its coins or all."""
        self._frames.changed("wallet", self.wallet(*names))

    def wallet(self, *names: str) -> dict[str, Any]:
        """Describe the wallet; with names, the figures of the complete account but only these coins."""
        row = wallet_row(self.coins, self.margins(), self.prices)
        if names:
            row["coin"] = [coin for coin in row["coin"] if coin["coin"] in names]
        return row

    def margins(self) -> Margins:
        """Return the margins of orders and positions at the current prices."""
        held = [position for position in self.positions.values() if position.size]
        return Margins(
            orders=total(
                order_margin(order.leaves * order.price, is_buy=order.side == "Buy")
                for order in self.open_orders.values()
                if not order.reduce_only
            ),
            positions=total(position.initial_margin for position in held),
            maintenance=total(position.maintenance_margin for position in held),
            unrealised=total(position.unrealised(self.prices.mark(position.symbol)) for position in held),
        )

    def note(self, cause: str) -> None:
        """Record the current books in the history."""
        self.history.state(self.clock.now_ms(), cause, self.books())

    def books(self) -> dict[str, Any]:
        """Return balances, positions, open orders and loans at the current prices."""
        return {
            "balances": {name: text(coin.balance) for name, coin in self.coins.items()},
            "positions": {
                symbol: {"size": text(one.size), "entry": text(one.entry), "mark": text(self.prices.mark(symbol))}
                for symbol, one in self.positions.items()
            },
            "orders": {one.order_id: one.status for one in self.open_orders.values()},
            "executions": len(self.executions),
            "loans": self.loans.position(),
            "funding": {name: text(amount) for name, amount in self.loans.funding.items()},
        }

    def _new_order(
        self,
        symbol: str,
        side: str,
        qty: Decimal | str,
        *,
        order_type: str,
        price: Decimal,
        reduce_only: bool = False,
    ) -> Order:
        if side not in ("Buy", "Sell"):
            raise SandboxError(f"side {side!r} is neither Buy nor Sell")
        self.prices.instrument(symbol)
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
            last_price=self.prices.mark(symbol),
            reduce_only=reduce_only,
        )
        self.orders[order.order_id] = order
        return order

    def _parts(self, symbol: str, qty: Decimal, fills: int) -> list[Decimal]:
        digits = self.prices.instrument(symbol).size_digits
        if fills < 1 or truncated(qty, digits) != qty or truncated(qty / fills, digits) == 0:
            raise SandboxError(f"{text(qty)} of {symbol} cannot be filled in {fills} parts")
        part = truncated(qty / fills, digits)
        return [part] * (fills - 1) + [qty - part * (fills - 1)]

    def _execute(self, order: Order, parts: list[Decimal], price: Decimal) -> list[str]:
        seq = self.prices.next_seq(order.symbol)
        done = [self._match(order, one, price, seq) for one in parts]
        order.status = "Filled" if order.filled == order.qty else "PartiallyFilled"
        order.updated_ms = done[-1].filled_ms
        if not order.is_open:
            self.open_orders.pop(order.order_id, None)
        self._frames.matched("order", [order.row()], seq=seq, created_ms=order.updated_ms)
        rows = [execution.row() for execution in done]
        self._frames.matched("execution", rows, seq=seq, created_ms=order.updated_ms)
        self._send_position(order.symbol)
        self.send_wallet(SETTLE_COIN)
        self.note("filled")
        return [execution.exec_id for execution in done]

    def _match(self, order: Order, qty: Decimal, price: Decimal, seq: int) -> Fill:
        now_ms = self.clock.now_ms()
        rate = TAKER_FEE if order.order_type == "Market" else MAKER_FEE
        value = rounded(qty * price)
        fee = rounded(value * rate)
        position = self.positions.setdefault(order.symbol, HeldPosition(order.symbol))
        closed, profit = position.apply(qty * order.signed, price, now_ms=now_ms, seq=seq)
        position.realise(profit - fee)
        settled = self.coins[SETTLE_COIN]
        settled.balance += profit - fee
        settled.realised += profit - fee
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
            mark=self.prices.mark(order.symbol),
            is_maker=order.order_type == "Limit",
            filled_ms=now_ms,
            seq=seq,
        )
        self.executions.append(execution)
        return execution

    def _book(self, coin: str, amount: Decimal, cause: str) -> None:
        self.coins.setdefault(coin, CoinHolding()).balance += amount
        self.send_wallet(coin)
        self.note(cause)

    def _send_order(self, order: Order, seq: int) -> None:
        self._frames.matched("order", [order.row()], seq=seq, created_ms=order.updated_ms)
        self.send_wallet(SETTLE_COIN)
        self._send_position(order.symbol)

    def _send_position(self, symbol: str) -> None:
        # Bybit sends the position at every change of an order, with the old time and seq where nothing was filled.
        position = self.positions.setdefault(symbol, HeldPosition(symbol))
        self._frames.changed("position", position.row(self.prices.mark(symbol)))

    def _open_order(self, order_id: str) -> Order:
        order = self.open_orders.get(order_id)
        if order is None:
            raise SandboxError(f"no open order has the id {order_id}")
        return order

    def on_tick(self, symbol: str, price: Decimal) -> Decimal:
        """Return the nearest price at which a symbol can be traded."""
        instrument = self.prices.instrument(symbol)
        tick = Decimal(instrument.tick_units).scaleb(-instrument.price_digits)
        return (price / tick).quantize(Decimal(1)) * tick

    def _new_id(self, version: int) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=version))
