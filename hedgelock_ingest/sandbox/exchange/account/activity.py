"""Timed changes around the account: random trading, and a fall of prices that raises its loan-to-value."""

from decimal import Decimal
from random import Random

from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

COURSES = ("calm", "margin-call", "liquidation")
_SIZES = ("0.002", "0.004", "0.006", "0.01")
_MAX_OPEN_ORDERS = 3
_MAX_POSITION = Decimal("0.5")
_MAX_DELAY_S = 1.0
_LIMIT_PRICE_DISTANCE = Decimal("0.002")
_LTV_BEYOND_THRESHOLD = Decimal("0.005")


class AccountActivity:
    """Acts on the account every `interval_s` seconds on average, drawn from `random`."""

    def __init__(
        self, account: SimulatedAccount, symbols: tuple[str, ...], *, interval_s: float, random: Random
    ) -> None:
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


class PriceFall:
    """
    Lets prices fall evenly so that the threshold of a course is crossed within `seconds`.

    A calm course does nothing. The fall ends a little beyond the threshold; then prices follow their paths again.
    """

    def __init__(self, course: str, loans: Loans, prices: Prices, *, seconds: float) -> None:
        self._loans = loans
        self._prices = prices
        self._seconds = seconds
        self._goal = {"margin-call": loans.margin_call_ltv, "liquidation": loans.liquidation_ltv}.get(course)
        self._factor_per_s = 0.0
        self._last_s = 0.0

    def begin(self, now_s: float) -> None:
        """Start the fall."""
        ltv = self._loans.ltv()
        if self._goal is None or not ltv:
            return
        self._factor_per_s = float(ltv / (self._goal + _LTV_BEYOND_THRESHOLD)) ** (1.0 / self._seconds)
        self._last_s = now_s

    def tick(self, now_s: float) -> None:
        """Lower the prices by the share of the fall that is due since the last tick."""
        if not self._factor_per_s or self._goal is None:
            return
        ltv = self._loans.ltv()
        if not ltv or ltv >= self._goal + _LTV_BEYOND_THRESHOLD:
            self._factor_per_s = 0.0
            return
        self._prices.fall(self._factor_per_s ** (now_s - self._last_s))
        self._last_s = now_s
