"""One linear position: how fills change it, and how Bybit describes it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import ONE, ZERO, rounded, text

LEVERAGE = Decimal(10)
TAKER_FEE = Decimal("0.00055")
MAKER_FEE = Decimal("0.0002")
_MAINTENANCE = Decimal("0.005")
_RISK_LIMIT = "2000000"


@dataclass(slots=True)
class HeldPosition:
    """
    A position in one-way mode; `size` is negative when it is short.

    `updated_ms` and `seq` are those of the last fill; -1 before the first one.
    """

    symbol: str
    size: Decimal = ZERO
    entry: Decimal = ZERO
    current_pnl: Decimal = ZERO
    total_pnl: Decimal = ZERO
    created_ms: int = 0
    opened_ms: int = 0
    updated_ms: int = 0
    seq: int = -1

    @property
    def value(self) -> Decimal:
        """The entry value of the position."""
        return rounded(abs(self.size) * self.entry)

    @property
    def initial_margin(self) -> Decimal:
        """Initial margin: a share of the value, and the fee of a close at the bankruptcy price."""
        return margin_of(self.value, is_long=self.size > 0)

    @property
    def maintenance_margin(self) -> Decimal:
        """The margin below which it is liquidated."""
        return rounded(self.value * _MAINTENANCE + _closing_fee(self.value, is_long=self.size > 0))

    def unrealised(self, mark: Decimal) -> Decimal:
        """Return the profit at a price."""
        return rounded(self.size * (mark - self.entry))

    def apply(self, quantity: Decimal, price: Decimal, *, now_ms: int, seq: int) -> tuple[Decimal, Decimal]:
        """
        Apply a fill; `quantity` is negative for a sale.

        Returns:
            The size that the fill closed, and the profit of that.
        """
        closed = min(abs(quantity), abs(self.size)) if quantity * self.size < 0 else ZERO
        profit = rounded(closed * (price - self.entry) * (ONE if self.size > 0 else -ONE))
        left = self.size + quantity
        if self.size == 0 or left * self.size < 0:
            self.entry, self.opened_ms, self.current_pnl = price, now_ms, ZERO
        elif closed == 0:
            self.entry = rounded((abs(self.size) * self.entry + abs(quantity) * price) / abs(left))
        if left == 0:
            self.entry, self.opened_ms = ZERO, 0
        self.size = left
        self.created_ms = self.created_ms or now_ms
        self.updated_ms, self.seq = now_ms, seq
        return closed, profit

    def realise(self, amount: Decimal) -> None:
        """Book a profit, a fee or both."""
        self.current_pnl += amount
        self.total_pnl += amount

    def row(self, mark: Decimal) -> dict[str, Any]:
        """Describe it as the stream does. Source: Bybit V5, WebSocket Position."""
        initial, maintenance = text(self.initial_margin), text(self.maintenance_margin)
        return {
            "positionIdx": 0,
            "tradeMode": 0,
            "riskId": 1,
            "riskLimitValue": _RISK_LIMIT,
            "symbol": self.symbol,
            "side": "" if not self.size else "Buy" if self.size > 0 else "Sell",
            "size": text(abs(self.size)),
            "entryPrice": text(self.entry),
            "leverage": text(LEVERAGE),
            "breakEvenPrice": text(self._break_even()) if self.size else "",
            "positionValue": text(self.value),
            "positionBalance": "0",
            "markPrice": text(mark),
            "positionIM": initial,
            "positionIMByMp": initial,
            "positionMM": maintenance,
            "positionMMByMp": maintenance,
            "takeProfit": "0",
            "stopLoss": "0",
            "trailingStop": "0",
            "unrealisedPnl": text(self.unrealised(mark)),
            "curRealisedPnl": text(self.current_pnl),
            "cumRealisedPnl": text(self.total_pnl),
            "sessionAvgPrice": "",
            "createdTime": str(self.created_ms),
            "updatedTime": str(self.updated_ms),
            "openTime": self.opened_ms,
            "tpslMode": "Full",
            "liqPrice": "",
            "bustPrice": "",
            "category": "linear",
            "positionStatus": "Normal",
            "adlRankIndicator": 2 if self.size else 0,
            "autoAddMargin": 0,
            "leverageSysUpdatedTime": "",
            "mmrSysUpdatedTime": "",
            "seq": self.seq,
            "isReduceOnly": False,
        }

    def rest_row(self, mark: Decimal) -> dict[str, Any]:
        """Describe it as REST does: `avgPrice` for `entryPrice`, and no category."""
        row = self.row(mark)
        del row["category"]
        return {"avgPrice" if name == "entryPrice" else name: value for name, value in row.items()}

    def _break_even(self) -> Decimal:
        fee = ONE + TAKER_FEE if self.size > 0 else ONE - TAKER_FEE
        return rounded(self.entry * fee - self.current_pnl / self.size)


def margin_of(value: Decimal, *, is_long: bool) -> Decimal:
    """Return the initial margin of a position of this value."""
    return rounded(value / LEVERAGE + _closing_fee(value, is_long=is_long))


def order_margin(value: Decimal, *, is_buy: bool) -> Decimal:
    """Return the initial margin of an open order of this value, the fee of opening included."""
    return rounded(value / LEVERAGE + value * TAKER_FEE + _closing_fee(value, is_long=is_buy))


def _closing_fee(value: Decimal, *, is_long: bool) -> Decimal:
    at_bankruptcy = ONE - ONE / LEVERAGE if is_long else ONE + ONE / LEVERAGE
    return value * at_bankruptcy * TAKER_FEE
