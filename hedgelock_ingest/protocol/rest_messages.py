"""REST answers as they are journalled, and the rows in them."""

from enum import StrEnum
from typing import Annotated

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.private_messages import (
    Digits,
    DigitsOrEmpty,
    ExecutionRow,
    Milliseconds,
    MillisecondsText,
    Name,
    OrderRow,
    PositionRow,
    WalletAccount,
)


class Part(StrEnum):
    """The kind of data that was requested."""

    WALLET = "wallet"
    POSITIONS = "positions"
    ORDERS = "orders"
    EXECUTIONS = "executions"
    COLLATERAL = "collateral"
    LOANS = "loans"
    TRADES = "trades"


PRIVATE_FEED_BY_PART = {
    Part.WALLET: "private:wallet",
    Part.POSITIONS: "private:position",
    Part.ORDERS: "private:order",
    Part.EXECUTIONS: "private:execution",
}
"""Feed of each part of the account; collateral and loans have none."""


class Purpose(StrEnum):
    """
    Purpose of a request.

    A `snapshot` is the full present state, a `poll` the same on a schedule, a `heal` the contents of a gap. A
    `read_back` is a poll that another process has made and published.
    """

    SNAPSHOT = "snapshot"
    POLL = "poll"
    GAP_FILL = "heal"
    READ_BACK = "read_back"


class RestAnswer(msgspec.Struct, frozen=True):
    """
    One or more answers of Bybit that together form one part.

    `time_ms` is Bybit's time of the first of them, since later changes may be missing in it; of trades, which are
    requested twice in full, it is that of the last.
    `results` are the `result` objects, unchanged, each under its name: the category for positions, orders, executions
    and trades (`linear`), `wallet`, `position` for collateral, `flexible`, `fixed` and `legacy` for loans. Pages of a
    list are joined.
    `feed` is the channel whose gap a `heal` fills.
    """

    part: Part
    purpose: Purpose
    time_ms: Milliseconds
    results: dict[str, msgspec.Raw]
    feed: str = ""

    def result(self, name: str) -> msgspec.Raw:
        """
        Return a result.

        Raises:
            FrameError: The answer does not have it.
        """
        if name not in self.results:
            raise FrameError(f"an answer about {self.part} without the result {name}")
        return self.results[name]


class WalletResult(msgspec.Struct, frozen=True):
    """Source: Bybit V5, Account, Get Wallet Balance."""

    list: tuple[WalletAccount, ...]


class PositionsResult(msgspec.Struct, frozen=True):
    """Source: Bybit V5, Position, Get Position Info."""

    list: tuple[PositionRow, ...]


class OrdersResult(msgspec.Struct, frozen=True):
    """Source: Bybit V5, Trade, Get Open & Closed Orders; Get Order History."""

    list: tuple[OrderRow, ...]


class ExecutionsResult(msgspec.Struct, frozen=True):
    """Source: Bybit V5, Trade, Get Trade History."""

    list: tuple[ExecutionRow, ...]


class Borrowed(msgspec.Struct, frozen=True):
    """Debt in one coin; the amounts include principal and interest."""

    loanCurrency: Name
    fixedTotalDebt: Digits
    fixedTotalDebtUSD: Digits
    flexibleTotalDebt: Digits
    flexibleTotalDebtUSD: Digits
    flexibleHourlyInterestRate: DigitsOrEmpty = ""


class Pledged(msgspec.Struct, frozen=True):
    """Collateral in one coin; `amountUSD` is after the collateral ratio."""

    currency: Name
    amount: Digits
    amountUSD: Digits


class LoanPositionResult(msgspec.Struct, frozen=True):
    """
    The complete loan account, in USD. `ltv` may be empty when nothing is borrowed.

    Source: Bybit V5, Crypto Loan (New), Get Crypto Loan Position.
    """

    borrowList: tuple[Borrowed, ...]
    collateralList: tuple[Pledged, ...]
    ltv: DigitsOrEmpty
    totalCollateral: Digits
    totalDebt: Digits
    totalSupply: DigitsOrEmpty = ""


class LoansResult(msgspec.Struct, frozen=True):
    """Rows of flexible loans, fixed contracts or legacy orders, which differ too much for one type."""

    list: tuple[dict[str, str | int | bool | None], ...]


class RestTradeRow(msgspec.Struct, frozen=True, gc=False):
    """Source: Bybit V5, Market, Get Public Recent Trading History."""

    execId: Name
    symbol: Name
    price: Digits
    size: Digits
    side: str
    time: MillisecondsText
    isBlockTrade: bool | None = None
    isRPITrade: bool | None = None
    seq: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{0,18}\Z")] = ""


class TradesResult(msgspec.Struct, frozen=True):
    """Source: Bybit V5, Market, Get Public Recent Trading History."""

    list: tuple[RestTradeRow, ...]
