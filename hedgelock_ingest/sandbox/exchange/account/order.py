"""One order and one execution, as Bybit describes them."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hedgelock_ingest.sandbox.exchange.account.amounts import ZERO, rounded, text
from hedgelock_ingest.sandbox.exchange.account.categories import LINEAR, CategoryRules

OPEN = ("New", "PartiallyFilled")
_WITHOUT_CREATE_TYPE = ("spot", "option")


@dataclass(slots=True)
class Order:
    """An order; its number grows with each order of the account."""

    number: int
    order_id: str
    symbol: str
    side: str
    order_type: str
    price: Decimal
    qty: Decimal
    created_ms: int
    updated_ms: int
    last_price: Decimal
    order_link_id: str = ""
    reduce_only: bool = False
    status: str = "New"
    cancel_type: str = "UNKNOWN"
    reject_reason: str = "EC_NoError"
    filled: Decimal = ZERO
    filled_value: Decimal = ZERO
    fee: Decimal = ZERO
    closed_pnl: Decimal = ZERO
    rules: CategoryRules = LINEAR

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled."""
        return self.status in OPEN

    @property
    def leaves(self) -> Decimal:
        """The quantity that is still to be filled."""
        return self.qty - self.filled if self.is_open else ZERO

    @property
    def signed(self) -> int:
        """1 for a purchase, -1 for a sale."""
        return 1 if self.side == "Buy" else -1

    @property
    def fee_coin(self) -> str:
        """The coin of the fee: on spot the one that is received."""
        if self.rules.category == "spot" and self.side == "Buy":
            return self.rules.base_coin(self.symbol)
        return self.rules.settle_coin(self.symbol)

    @property
    def average_price(self) -> Decimal:
        """The average price of its fills."""
        if self.rules.category == "inverse":
            return rounded(self.filled / self.filled_value)
        return rounded(self.filled_value / self.filled)

    def row(self) -> dict[str, Any]:
        """Describe it as the stream does. Source: Bybit V5, WebSocket Order; key order as recorded."""
        row = {
            "category": self.rules.category,
            "symbol": self.symbol,
            "orderId": self.order_id,
            "orderLinkId": self.order_link_id,
            "parentOrderLinkId": "",
            "blockTradeId": "",
            "side": self.side,
            "positionIdx": 0,
            "orderStatus": self.status,
            "cancelType": self.cancel_type,
            "rejectReason": self.reject_reason,
            "timeInForce": "IOC" if self.order_type == "Market" else "GTC",
            "isLeverage": "0" if self.rules.category == "spot" else "",
            "price": text(self.price),
            "qty": text(self.qty),
            "avgPrice": text(self.average_price) if self.filled else "",
            "leavesQty": text(self.leaves),
            "leavesValue": text(self.rules.value(self.leaves, self.price)),
            "cumExecQty": text(self.filled),
            "cumExecValue": text(self.filled_value),
            "cumExecFee": text(self.fee),
            "orderType": self.order_type,
            "stopOrderType": "",
            "orderIv": "",
            "triggerPrice": "",
            "takeProfit": "",
            "stopLoss": "",
            "triggerBy": "",
            "tpTriggerBy": "",
            "slTriggerBy": "",
            "triggerDirection": 0,
            "placeType": "price" if self.rules.category == "option" else "",
            "lastPriceOnCreated": text(self.last_price),
            "closeOnTrigger": False,
            "reduceOnly": self.reduce_only,
            "smpGroup": 0,
            "smpType": "None",
            "smpOrderId": "",
            "slLimitPrice": "0",
            "tpLimitPrice": "0",
            "tpslMode": "UNKNOWN",
            "createType": "CreateByUser",
            "marketUnit": "",
            "createdTime": str(self.created_ms),
            "updatedTime": str(self.updated_ms),
            "feeCurrency": "",
            "closedPnl": text(self.closed_pnl),
            "slippageTolerance": "0",
            "slippageToleranceType": "UNKNOWN",
            "cumFeeDetail": {self.fee_coin: text(self.fee)} if self.filled else {},
            "rpiTakerAccess": False,
            "rpiMatchedQty": "0",
        }
        if self.rules.category in _WITHOUT_CREATE_TYPE:
            del row["createType"]
        return row

    def rest_row(self) -> dict[str, Any]:
        """Describe it as REST does, where some fields that are not set have another text."""
        row = self.row()
        del row["category"]
        unset = {"stopOrderType": "UNKNOWN", "triggerBy": "UNKNOWN", "triggerPrice": "0.00"}
        if self.rules.category == "spot":
            row["basePrice"] = row.pop("lastPriceOnCreated")
        return {**row, **unset, "avgPrice": row["avgPrice"] or "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One fill; its number grows with each fill of the account."""

    number: int
    exec_id: str
    order: Order
    price: Decimal
    qty: Decimal
    value: Decimal
    fee: Decimal
    fee_rate: Decimal
    profit: Decimal
    closed: Decimal
    leaves: Decimal
    mark: Decimal
    is_maker: bool
    filled_ms: int
    seq: int
    index: Decimal | None = None

    def row(self) -> dict[str, Any]:
        """Describe it as the stream does. Source: Bybit V5, WebSocket Execution."""
        order = self.order
        index = "" if self.index is None else text(self.index)
        row = {
            "category": order.rules.category,
            "symbol": order.symbol,
            "closedSize": text(self.closed),
            "execFee": text(self.fee),
            "execId": self.exec_id,
            "execPrice": text(self.price),
            "execQty": text(self.qty),
            "execType": "Trade",
            "execValue": text(self.value),
            "feeRate": text(self.fee_rate),
            "tradeIv": "",
            "markIv": "",
            "blockTradeId": "",
            "markPrice": text(self.mark),
            "indexPrice": index,
            "underlyingPrice": index,
            "leavesQty": text(self.leaves),
            "orderId": order.order_id,
            "orderLinkId": order.order_link_id,
            "orderPrice": text(order.price),
            "orderQty": text(order.qty),
            "orderType": order.order_type,
            "stopOrderType": "UNKNOWN",
            "side": order.side,
            "execTime": str(self.filled_ms),
            "isLeverage": "0",
            "isMaker": self.is_maker,
            "seq": self.seq,
            "marketUnit": "",
            "execPnl": text(self.profit),
            "createType": "CreateByUser",
            "extraFees": "",
            "feeCurrency": order.fee_coin,
        }
        if order.rules.category in _WITHOUT_CREATE_TYPE:
            del row["createType"]
        return row

    def rest_row(self) -> dict[str, Any]:
        """Describe it as REST does, with some fields fewer."""
        row = self.row()
        for name in ("category", "execPnl", "isLeverage", "marketUnit"):
            del row[name]
        return {**row, "execFeeV2": ""}
