"""Random activity of the account: orders, fills and cancellations, as a hedger causes them."""

from decimal import Decimal
from random import Random

from hedgelock_ingest.sandbox.exchange.account.account import Account

_SIZES = ("0.002", "0.004", "0.006", "0.01")
_MAX_OPEN_ORDERS = 3
_MAX_POSITION = Decimal("0.5")
_MAX_DELAY_S = 1.0
_LIMIT_PRICE_DISTANCE = Decimal("0.002")


class AccountLife:
    """Acts on the account every `interval_s` seconds on average, drawn from `random`."""

    def __init__(self, account: Account, symbols: tuple[str, ...], *, interval_s: float, random: Random) -> None:
        self._account = account
        self._symbols = [symbol for symbol in symbols if symbol.endswith("USDT")]
        self._interval_s = interval_s
        self._random = random
        self._next_s: float | None = None

    def tick(self, now_s: float) -> None:
        """Run the steps that are due."""
        if self._next_s is None:
            self._next_s = now_s + self._wait_s()
        while self._symbols and now_s >= self._next_s:
            self.step()
            self._next_s = max(self._next_s, now_s - _MAX_DELAY_S) + self._wait_s()

    def step(self) -> None:
        """Place an order, fill one, or cancel one."""
        still_open = list(self._account.open_orders.values())
        chance = self._random.random()
        if still_open and (chance < 0.5 or len(still_open) >= _MAX_OPEN_ORDERS):
            order = self._random.choice(still_open)
            if chance < 0.1:
                self._account.cancel_order(order.order_id)
            elif chance < 0.25 and order.status == "New":
                self._account.fill_order(order.order_id, order.qty / 2)
            else:
                self._account.fill_order(order.order_id)
            return
        symbol, side, qty = self._random.choice(self._symbols), self._side(), self._random.choice(_SIZES)
        if symbol != "BTCUSDT":
            qty = str(Decimal(qty) * 100)
        if chance < 0.75:
            self._account.fill(symbol, side, qty)
        else:
            self._place(symbol, side, qty)

    def _place(self, symbol: str, side: str, qty: str) -> None:
        mark = self._account.prices.mark(symbol)
        price = mark * (1 - _LIMIT_PRICE_DISTANCE if side == "Buy" else 1 + _LIMIT_PRICE_DISTANCE)
        self._account.place_order(symbol, side, qty, self._account.on_tick(symbol, price))

    def _wait_s(self) -> float:
        return self._random.expovariate(1.0 / self._interval_s)

    def _side(self) -> str:
        position = self._account.positions.get("BTCUSDT")
        if position is not None and abs(position.size) > _MAX_POSITION:
            return "Buy" if position.size < 0 else "Sell"
        return self._random.choice(("Buy", "Sell"))
