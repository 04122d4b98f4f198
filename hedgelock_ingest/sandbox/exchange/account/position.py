"""One position: how fills change it, and how Bybit describes it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, text
from hedgelock_ingest.sandbox.exchange.account.categories import LEVERAGE, LINEAR, CategoryRules

_RISK_LIMIT = "2000000"
_OPTION_GREEKS = {"delta": "0.5", "gamma": "0.00002", "vega": "12.5", "theta": "-30.25"}


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
    rules: CategoryRules = LINEAR

    @property
    def value(self) -> Decimal:
        """The entry value of the position."""
        return self.rules.value(self.size, self.entry)

    @property
    def initial_margin(self) -> Decimal:
        """Initial margin: a share of the value, and the fee of a close at the bankruptcy price."""
        return self.rules.initial_margin(self.symbol, self.size, self.entry)

    @property
    def maintenance_margin(self) -> Decimal:
        """The margin below which it is liquidated."""
        return self.rules.maintenance_margin(self.symbol, self.size, self.entry)

    def unrealised(self, mark: Decimal) -> Decimal:
        """Return the profit at a price."""
        return self.rules.profit(self.size, self.entry, mark)

    def apply(self, quantity: Decimal, price: Decimal, *, now_ms: int, seq: int) -> tuple[Decimal, Decimal]:
        """
        Apply a fill; `quantity` is negative for a sale.

        Returns:
            The size that the fill closed, and the profit of that.
        """
        closed = min(abs(quantity), abs(self.size)) if quantity * self.size < 0 else ZERO
        profit = self.rules.profit(closed if self.size > 0 else -closed, self.entry, price) if closed else ZERO
        left = self.size + quantity
        if self.size == 0 or left * self.size < 0:
            self.entry, self.opened_ms, self.current_pnl = price, now_ms, ZERO
        elif closed == 0:
            self.entry = self.rules.average(self.size, self.entry, quantity, price)
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
        break_even = self.rules.break_even(self.size, self.entry, self.current_pnl) if self.size else None
        is_option = self.rules.category == "option"
        return {
            "positionIdx": 0,
            "tradeMode": 0,
            "riskId": 0 if is_option else 1,
            "riskLimitValue": "" if is_option else _RISK_LIMIT,
            "symbol": self.symbol,
            "side": "" if not self.size else "Buy" if self.size > 0 else "Sell",
            "size": text(abs(self.size)),
            "entryPrice": text(self.entry),
            "leverage": "" if is_option else text(LEVERAGE),
            "breakEvenPrice": "" if break_even is None else text(break_even),
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
            "tpslMode": "" if is_option else "Full",
            "liqPrice": "",
            "bustPrice": "",
            "category": self.rules.category,
            "positionStatus": "Normal",
            "adlRankIndicator": 2 if self.size else 0,
            "autoAddMargin": 0,
            "leverageSysUpdatedTime": "",
            "mmrSysUpdatedTime": "",
            "seq": self.seq,
            "isReduceOnly": False,
            **(_OPTION_GREEKS if is_option and self.size else {}),
        }

    def rest_row(self, mark: Decimal) -> dict[str, Any]:
        """Describe it as REST does: `avgPrice` for `entryPrice`, no category, and no times before the first fill."""
        row = self.row(mark)
        del row["category"]
        if self.seq == -1:
            row |= {"createdTime": "", "updatedTime": "", "positionValue": ""}
        return {"avgPrice" if name == "entryPrice" else name: value for name, value in row.items()}
