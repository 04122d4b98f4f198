"""
Bybit's private messages, and the rows of its REST answers, which have nearly the same fields.

Numbers that Bybit leaves empty (`""`) decode as `""` and are published as null. Unknown fields are ignored.

Source: Bybit V5, WebSocket Stream, Private (Wallet, Position, Order, Execution); Account, Position, Trade, Crypto Loan.
"""

from typing import Annotated, Any, Literal

import msgspec

DigitsOrEmpty = Annotated[str, msgspec.Meta(pattern=r"^(?:-?[0-9]+(?:\.[0-9]+)?)?\Z")]
Digits = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(?:\.[0-9]+)?\Z")]
# Up to the year 9892, so that it always fits a datetime.
MillisecondsText = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9]{1,14}|1[0-9]{14}|2[0-4][0-9]{13})\Z")]
MillisecondsTextOrEmpty = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9]{0,14}|1[0-9]{14}|2[0-4][0-9]{13})\Z")]
Sequence = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class WalletCoin(msgspec.Struct, frozen=True, gc=False):
    """
    One coin; `availableToWithdraw` is `""` in some account modes.

    What follows it only describes the coin, as `AccountFigures` describe the account.
    """

    coin: Name
    walletBalance: Digits
    availableToWithdraw: DigitsOrEmpty = ""
    equity: Any = None
    usdValue: Any = None
    unrealisedPnl: Any = None
    borrowAmount: Any = None
    accruedInterest: Any = None
    locked: Any = None
    collateralSwitch: Any = None
    marginCollateral: Any = None


class AccountFigures(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """
    The figures of an account in USD, and its margin rates; None where a row lacks them.

    They only describe the account: a value of an unexpected kind must not make the balances beside it a dead letter.
    """

    totalEquity: Any = None
    totalWalletBalance: Any = None
    totalMarginBalance: Any = None
    totalAvailableBalance: Any = None
    totalPerpUPL: Any = None
    totalInitialMargin: Any = None
    totalMaintenanceMargin: Any = None
    accountIMRate: Any = None
    accountMMRate: Any = None


class WalletAccount(AccountFigures, frozen=True, gc=False):
    """One account; a message need not carry all coins."""

    coin: tuple[WalletCoin, ...]
    accountType: str = "UNIFIED"


class PositionRow(msgspec.Struct, frozen=True, gc=False):
    """
    One side of one symbol; in REST rows the entry price is `avgPrice`, and the category is that of the list.

    `updatedTime` is `""` in flat rows of symbols that were never traded (see `is_blank`), and in no other.
    """

    symbol: Name
    side: Literal["Buy", "Sell", "None", ""]
    size: Digits
    updatedTime: MillisecondsTextOrEmpty
    seq: Sequence
    positionIdx: Sequence = 0
    category: str = ""
    entryPrice: DigitsOrEmpty = ""
    avgPrice: DigitsOrEmpty = ""
    markPrice: DigitsOrEmpty = ""
    leverage: DigitsOrEmpty = ""
    positionValue: DigitsOrEmpty = ""
    liqPrice: DigitsOrEmpty = ""
    breakEvenPrice: DigitsOrEmpty = ""
    takeProfit: DigitsOrEmpty = ""
    stopLoss: DigitsOrEmpty = ""
    unrealisedPnl: DigitsOrEmpty = ""
    curRealisedPnl: DigitsOrEmpty = ""
    cumRealisedPnl: DigitsOrEmpty = ""
    positionStatus: str = ""

    def __post_init__(self) -> None:
        """Refuse a position without a time: whether it is older or newer than a known one would be unknown."""
        if not self.updatedTime and set(self.size) & set("123456789"):
            raise ValueError("a position that is open, and has no updatedTime")

    @property
    def is_blank(self) -> bool:
        """Whether the row has no content: the symbol was never traded. Source: Bybit V5, Get Position Info, `seq`."""
        return not self.updatedTime


class OrderRow(msgspec.Struct, frozen=True, gc=False):
    """The state of one order after a change."""

    symbol: Name
    orderId: Name
    orderStatus: Name
    updatedTime: MillisecondsText
    createdTime: MillisecondsText
    qty: Digits
    cumExecQty: DigitsOrEmpty
    category: str = ""
    orderLinkId: str = ""
    side: str = ""
    orderType: str = ""
    price: DigitsOrEmpty = ""
    avgPrice: DigitsOrEmpty = ""
    leavesQty: DigitsOrEmpty = ""
    cumExecValue: DigitsOrEmpty = ""
    triggerPrice: DigitsOrEmpty = ""
    timeInForce: str = ""
    reduceOnly: bool | None = None
    positionIdx: Sequence | None = None
    cancelType: str = ""
    rejectReason: str = ""


class ExecutionRow(msgspec.Struct, frozen=True, gc=False):
    """One fill, funding payment or settlement."""

    symbol: Name
    execId: Name
    orderId: str
    execPrice: Digits
    execQty: Digits
    execTime: MillisecondsText
    execFee: DigitsOrEmpty
    side: str
    category: str = ""
    orderLinkId: str = ""
    execValue: DigitsOrEmpty = ""
    feeRate: DigitsOrEmpty = ""
    feeCurrency: str = ""
    execType: str = ""
    isMaker: bool | None = None
    closedSize: DigitsOrEmpty = ""
    execPnl: DigitsOrEmpty = ""
    markPrice: DigitsOrEmpty = ""
    leavesQty: DigitsOrEmpty = ""
    seq: Sequence | None = None


class _Private(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    topic: str
    ts: Milliseconds = msgspec.field(name="creationTime")
    id: str = ""


class WalletMessage(_Private, frozen=True, gc=False, kw_only=True):
    """Balances that changed."""

    data: Annotated[tuple[WalletAccount, ...], msgspec.Meta(min_length=1)]


class PositionMessage(_Private, frozen=True, gc=False, kw_only=True):
    """Positions, including ones that an order did not change."""

    data: Annotated[tuple[PositionRow, ...], msgspec.Meta(min_length=1)]


class OrderMessage(_Private, frozen=True, gc=False, kw_only=True):
    """Orders that changed."""

    data: Annotated[tuple[OrderRow, ...], msgspec.Meta(min_length=1)]


class ExecutionMessage(_Private, frozen=True, gc=False, kw_only=True):
    """One or more fills of one order."""

    data: Annotated[tuple[ExecutionRow, ...], msgspec.Meta(min_length=1)]


ORDER_ENDS = frozenset({"Filled", "Cancelled", "PartiallyFilledCanceled", "Rejected", "Deactivated"})
"""The statuses after which an order does not change. Source: Bybit V5, Enums, `orderStatus`."""

type PrivateMessage = WalletMessage | PositionMessage | OrderMessage | ExecutionMessage

# The price of the moment is left out: the copies of two lines may have been made at different moments.
_POSITION_CONTENT = [name for name in PositionRow.__struct_fields__ if name not in ("markPrice", "unrealisedPnl")]

PRIVATE_CHANNELS = ("wallet", "position", "order", "execution")

DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "wallet": msgspec.json.Decoder(WalletMessage),
    "position": msgspec.json.Decoder(PositionMessage),
    "order": msgspec.json.Decoder(OrderMessage),
    "execution": msgspec.json.Decoder(ExecutionMessage),
}


def position_key(category: str, row: PositionRow) -> str:
    """Return the key of one side of one symbol, `linear:BTCUSDT:0`; hedge mode has two sides."""
    return f"{category}:{row.symbol}:{row.positionIdx}"


def order_identity(row: OrderRow) -> str:
    """
    Return the identity of one state of one order; two `Filled` messages of an order differ in the reason fields.

    Source: Bybit V5, Order, notes on a cancel that meets a fill.
    """
    return "|".join((row.orderId, row.updatedTime, row.orderStatus, row.cumExecQty, row.cancelType, row.rejectReason))


def private_identities(message: PrivateMessage) -> list[str]:
    """Return the identities of a frame's content; another line's copy has the same ones."""
    match message:
        case WalletMessage():
            return [f"{message.id}|{message.ts}"]
        case PositionMessage():
            # One identity for all rows, with the time: a frame may repeat positions unchanged since an earlier frame.
            # With all content: a change of take profit, for example, has neither a new time nor a new sequence.
            rows = ["|".join([str(getattr(row, name)) for name in _POSITION_CONTENT]) for row in message.data]
            return [",".join([*rows, str(message.ts)])]
        case OrderMessage():
            return [order_identity(row) for row in message.data]
        case ExecutionMessage():
            return [row.execId for row in message.data]
