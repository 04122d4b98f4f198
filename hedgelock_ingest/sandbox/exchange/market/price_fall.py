"""A fall of all prices that moves the loan-to-value of the account across a threshold."""

from decimal import Decimal

from hedgelock_ingest.sandbox.exchange.account.loans import Loans
from hedgelock_ingest.sandbox.exchange.market.prices import Prices

COURSES = ("calm", "margin-call", "liquidation")
_BEYOND = Decimal("0.005")


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
        self._factor_per_s = float(ltv / (self._goal + _BEYOND)) ** (1.0 / self._seconds)
        self._last_s = now_s

    def tick(self, now_s: float) -> None:
        """Lower the prices by the share of the fall that is due since the last tick."""
        if not self._factor_per_s or self._goal is None:
            return
        ltv = self._loans.ltv()
        if not ltv or ltv >= self._goal + _BEYOND:
            self._factor_per_s = 0.0
            return
        self._prices.fall(self._factor_per_s ** (now_s - self._last_s))
        self._last_s = now_s
