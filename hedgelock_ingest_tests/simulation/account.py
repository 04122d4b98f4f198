"""The scripted account: its changes, their private frames, and the state that REST returns for any time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import msgspec

from hedgelock_ingest.sandbox.exchange.account.amounts import rounded, text
from hedgelock_ingest.sandbox.exchange.account.categories import MAKER_FEE, TAKER_FEE
from hedgelock_ingest.sandbox.exchange.account.order import Fill, Order
from hedgelock_ingest.sandbox.exchange.account.position import HeldPosition
from hedgelock_ingest.sandbox.exchange.keys import USER_ID
from hedgelock_ingest_tests.simulation.market import MemoryMarket, Written
from hedgelock_ingest_tests.simulation.private_rows import collateral_result, wallet_row

type Publish = Callable[[str, Written], None]

TOPICS = ("order", "execution", "position", "wallet")
_FILLS, _ORDERS, _DEPOSITS, _LOANS = 0.06, 0.09, 0.11, 0.13
"""Upper bounds of a beat's draw for each kind of change; above the last nothing happens."""
_MIN_POSITION, _MAX_POSITION = Decimal("0.1"), Decimal("1.5")
_MAX_OPEN_ORDERS = 3


class Step[Row](NamedTuple):
    """A state that holds from a time on."""

    at_ms: int
    row: Row


@dataclass(slots=True)
class Steps:
    """The history of everything that REST returns about the account, so that past states can be read as well."""

    coins: list[Step[dict[str, str]]] = field(default_factory=list)
    loans: list[Step[dict[str, Any]]] = field(default_factory=list)
    positions: dict[str, list[Step[dict[str, Any]]]] = field(default_factory=dict)
    orders: dict[str, list[Step[dict[str, Any]]]] = field(default_factory=dict)
    executions: list[Step[dict[str, Any]]] = field(default_factory=list)


def row_at[Row](steps: list[Step[Row]], at_ms: int) -> Row | None:
    """Return the last row up to a time, None if there was none yet."""
    return next((step.row for step in reversed(steps) if step.at_ms <= at_ms), None)


class MemoryAccount:
    """
    One unified account with two linear positions and a loan; each change is published as Bybit publishes it.

    Only if it `goes_flat`, positions are closed and opened, and coins taken out whole.
    """

    def __init__(
        self, random: Random, market: MemoryMarket, now_ms: Callable[[], int], publish: Publish, *, goes_flat: bool
    ) -> None:
        self.goes_flat = goes_flat
        self.steps = Steps()
        self.coins = {"USDT": Decimal(50_000), "BTC": Decimal("0.5"), "USDC": Decimal(5_000)}
        self.positions: dict[str, HeldPosition] = {}
        self.open_orders: dict[str, Order] = {}
        self._random = random
        self._market = market
        self._now_ms = now_ms
        self._publish = publish
        self._last_id = 0
        self._last_message = 0
        for symbol, size in (("BTCUSDT", "0.5"), ("ETHUSDT", "-0.7")):
            position = self.positions[symbol] = HeldPosition(symbol)
            position.apply(Decimal(size), self.mark(symbol), now_ms=now_ms() - 1_000, seq=market.next_sequence())
            self.steps.positions[symbol] = [Step(now_ms() - 1_000, position.rest_row(self.mark(symbol)))]
        self._keep_coins()
        self.change_loan()

    def mark(self, symbol: str) -> Decimal:
        """Return the mark price of a symbol."""
        ticks = self._market.mid + 2
        return Decimal(ticks).scaleb(-1) if symbol == "BTCUSDT" else Decimal(ticks // 20).scaleb(-1)

    def books(self) -> dict[str, Any]:
        """Return the state that the last merged view must show, in the shape of the sandbox's books."""
        return {
            "balances": {name: text(amount) for name, amount in self.coins.items() if amount},
            "positions": {
                symbol: {"size": text(one.size), "entry": text(one.entry)} for symbol, one in self.positions.items()
            },
            "loans": self.steps.loans[-1].row,
        }

    def beat(self) -> None:
        """Draw whether something changes, and change it."""
        draw = self._random.random()
        if draw >= _LOANS:
            return
        if draw < _FILLS:
            self.fill()
        elif draw < _ORDERS:
            self.place_or_cancel()
        elif draw < _DEPOSITS:
            self.deposit()
        else:
            self.change_loan()

    def deposit(self) -> None:
        """Put coins into the wallet, or take some out."""
        name = self._random.choice(list(self.coins))
        if self.goes_flat and name != "USDT" and self._random.random() < 0.5:
            self.coins[name] = Decimal(0) if self.coins[name] else Decimal("0.5")
        else:
            self.coins[name] += Decimal(self._random.randrange(-40, 60)).scaleb(-2)
        self._send_wallet(name)

    def change_loan(self) -> None:
        """Change debt and collateral; no stream reports it."""
        debt = Decimal(9_000 * 10**4 + self._random.randrange(10**7)).scaleb(-4)
        collateral = Decimal(18_000 * 10**4 + self._random.randrange(10**7)).scaleb(-4)
        self.steps.loans.append(Step(self._now_ms(), collateral_result(debt, collateral)))

    def place_or_cancel(self) -> None:
        """Place a limit order, or cancel one."""
        if len(self.open_orders) >= _MAX_OPEN_ORDERS:
            order = self.open_orders.pop(self._random.choice(list(self.open_orders)))
            order.status, order.cancel_type, order.updated_ms = "Cancelled", "CancelByUser", self._now_ms()
        else:
            order = self._new_order("Limit")
            self.open_orders[order.order_id] = order
        self._send_order(order, self._market.next_sequence())
        self._send_position(order.symbol)

    def fill(self) -> None:
        """Fill a market order, or an open one fully or partly: order, execution, position and wallet change."""
        random = self._random
        order = random.choice(list(self.open_orders.values())) if self.open_orders and random.random() < 0.5 else None
        if order is None or not self._may_fill(order.symbol, order.leaves * order.signed):
            order = self._new_order("Market")
        qty = order.leaves
        if order.order_type == "Limit" and random.random() < 0.5:
            qty = max(Decimal("0.001"), (qty / 2).quantize(Decimal("0.001")))
        self._execute(order, qty)

    def trade(self, symbol: str, quantity: Decimal | str) -> None:
        """Fill a market order of this quantity, negative for a sale, without the account's bounds."""
        self._execute(self._order(symbol, Decimal(quantity), "Market"), abs(Decimal(quantity)))

    def _execute(self, order: Order, qty: Decimal) -> None:
        first = (qty / 2).quantize(Decimal("0.001"))
        parts = [first, qty - first] if self._random.random() < 0.3 and first and qty > first else [qty]
        sequence = self._market.next_sequence()
        done = [self._match(order, part, sequence) for part in parts]
        order.status = "Filled" if order.filled == order.qty else "PartiallyFilled"
        order.updated_ms = self._now_ms()
        if not order.is_open:
            self.open_orders.pop(order.order_id, None)
        self._send_order(order, sequence)
        self._send("execution", done[0].order.symbol, [one.row() for one in done], sequence)
        for one in done:
            self.steps.executions.append(Step(one.filled_ms, one.rest_row()))
        self._send_position(order.symbol)
        self._send_wallet("USDT")

    def _may_fill(self, symbol: str, quantity: Decimal) -> bool:
        size = self.positions[symbol].size
        after = size + quantity
        if self.goes_flat:
            return abs(after) <= _MAX_POSITION
        return _MIN_POSITION <= abs(after) <= _MAX_POSITION and after * size > 0

    def _new_order(self, order_type: str) -> Order:
        random = self._random
        symbol = random.choice(list(self.positions))
        size = self.positions[symbol].size
        quantity = Decimal(random.randrange(10, 90)).scaleb(-3)
        if self.goes_flat and random.random() < 0.5:
            quantity = abs(size) or quantity  # closed at once, or opened
        signed = quantity if random.random() < 0.5 else -quantity
        if not self._may_fill(symbol, signed):
            signed = -signed if self._may_fill(symbol, -signed) else -quantity.copy_sign(size)
        return self._order(symbol, signed, order_type)

    def _order(self, symbol: str, signed: Decimal, order_type: str) -> Order:
        now_ms, price = self._now_ms(), self.mark(symbol)
        self._last_id += 1
        return Order(
            number=self._last_id,
            order_id=self._new_id(),
            symbol=symbol,
            side="Buy" if signed > 0 else "Sell",
            order_type=order_type,
            price=price,
            qty=abs(signed),
            created_ms=now_ms,
            updated_ms=now_ms,
            last_price=price,
        )

    def _match(self, order: Order, qty: Decimal, sequence: int) -> Fill:
        now_ms, price = self._now_ms(), self.mark(order.symbol)
        rate = TAKER_FEE if order.order_type == "Market" else MAKER_FEE
        value = rounded(qty * price)
        fee = rounded(value * rate)
        position = self.positions[order.symbol]
        closed, profit = position.apply(qty * order.signed, price, now_ms=now_ms, seq=sequence)
        position.realise(profit - fee)
        self.coins["USDT"] += profit - fee
        order.filled += qty
        order.filled_value += value
        order.fee += fee
        self._last_id += 1
        return Fill(
            number=self._last_id,
            exec_id=self._new_id(),
            order=order,
            price=price,
            qty=qty,
            value=value,
            fee=fee,
            fee_rate=rate,
            profit=profit,
            closed=closed,
            leaves=order.qty - order.filled,
            mark=price,
            is_maker=order.order_type == "Limit",
            filled_ms=now_ms,
            seq=sequence,
        )

    def _new_id(self) -> str:
        return f"{self._random.getrandbits(32):08x}-7d17-4b79-8d99-{self._last_id:012x}"

    def _send_order(self, order: Order, sequence: int) -> None:
        self.steps.orders.setdefault(order.order_id, []).append(Step(order.updated_ms, order.rest_row()))
        self._send("order", order.symbol, [order.row()], sequence)

    def _send_position(self, symbol: str) -> None:
        # Bybit sends the position at every change of an order, with the old time and `seq` where nothing was filled.
        position, mark = self.positions[symbol], self.mark(symbol)
        self.steps.positions[symbol].append(Step(self._now_ms(), position.rest_row(mark)))
        self._send_state("position", position.row(mark))

    def _send_wallet(self, name: str) -> None:
        self._keep_coins()
        self._send_state("wallet", wallet_row({name: text(self.coins[name])}))

    def _keep_coins(self) -> None:
        self.steps.coins.append(Step(self._now_ms(), {name: text(amount) for name, amount in self.coins.items()}))

    def _send(self, topic: str, symbol: str, rows: list[dict[str, Any]], sequence: int) -> None:
        identity = f"{USER_ID}_{symbol}_{sequence}"
        message = {"topic": topic, "id": identity, "creationTime": self._now_ms(), "data": rows}
        identities = [row["execId"] for row in rows] if topic == "execution" else [identity]
        self._publish(topic, Written(_compact(message), identities))

    def _send_state(self, topic: str, row: dict[str, Any]) -> None:
        # Two messages of one millisecond have different ids.
        self._last_message = max(self._last_message + 1, self._now_ms())
        identity = f"{USER_ID}_{topic}_{self._last_message}"
        message = {"id": identity, "topic": topic, "creationTime": self._now_ms(), "data": [row]}
        self._publish(topic, Written(_compact(message), [identity]))


def _compact(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)
