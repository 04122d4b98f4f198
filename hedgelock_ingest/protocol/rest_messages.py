"""REST answers as they are journalled, and the rows in them."""

from enum import StrEnum
from typing import Annotated

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.private_messages import (
    Digits,
    DigitsOrEmpty,
    Milliseconds,
    MillisecondsText,
    Name,
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
    TICKER = "ticker"


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

    A `snapshot` is the full present state, a `poll` the same on a schedule or in place of a line, a `heal` the contents
    of a gap. A `read_back` is a poll that another process has made and published.
    """

    SNAPSHOT = "snapshot"
    POLL = "poll"
    GAP_FILL = "heal"
    READ_BACK = "read_back"


TRANSFERABLE = "withdrawal"
"""The result of an answer about the wallet that holds what may be transferred; absent where Bybit did not report it."""

SETTLE_COINS = ("USDT", "USDC")
"""The coins in which linear contracts settle; lists of them are requested for each."""

CATEGORIES_BY_PART = {
    Part.POSITIONS: ("linear", "inverse", "option"),
    Part.ORDERS: ("linear", "inverse", "option", "spot"),
    Part.EXECUTIONS: ("linear", "inverse", "option", "spot"),
}
"""The categories that the private stream carries. Source: Bybit V5, WebSocket Stream, Private, "All-In-One Topic"."""


class RestAnswer(msgspec.Struct, frozen=True):
    """
    One or more answers of Bybit that together form one part.

    `time_ms` is Bybit's time of the first of them, since later changes may be missing in it.
    `results` are the `result` objects, unchanged, each under its name: the category for positions, orders, executions,
    trades and tickers (`linear`), `wallet`, and `withdrawal` beside it if known, `position` for collateral, `flexible`,
    `fixed` and `legacy` for loans. Pages of a list are joined. An answer is silent about categories that are not in
    `results`, and about linear contracts that settle in other coins than `settle_coins`; `refused` maps requested
    categories to Bybit's reason.
    `feed` is the feed of trades or of a ticker. `closes_gaps` is false for all but the last answer about a gap: REST
    may lag behind the stream, so a later one may hold more. `is_whole` is false if the present state may hold more,
    since rows could not be decoded when a poll was published. `trace_id` is the trace of the record that was read back.
    """

    part: Part
    purpose: Purpose
    time_ms: Milliseconds
    results: dict[str, msgspec.Raw]
    feed: str = ""
    settle_coins: tuple[str, ...] = SETTLE_COINS
    refused: dict[str, str] = {}
    closes_gaps: bool = True
    is_whole: bool = True
    trace_id: str = ""

    @property
    def silent_about(self) -> dict[str, str]:
        """Categories of the stream that the answer is silent about, each with the reason."""
        expected = CATEGORIES_BY_PART.get(self.part, ())
        return {name: self.refused.get(name, "not requested") for name in expected if name not in self.results}

    def covers(self, category: str, symbol: str) -> bool:
        """Return whether the answer would hold a row about the symbol if there were one."""
        return category in self.results and (category != "linear" or settle_coin(symbol) in self.settle_coins)

    def result(self, name: str) -> msgspec.Raw:
        """
        Return a result.

        Raises:
            FrameError: The answer does not have it.
        """
        if name not in self.results:
            raise FrameError(f"an answer about {self.part} without the result {name}")
        return self.results[name]


def settle_coin(symbol: str) -> str:
    """
    Return the coin in which a linear contract settles, such as `BTCUSDT`, `BTCPERP` or `BTC-27DEC24`.

    Source: Bybit V5, Market, Get Instruments Info: USDC contracts are named by their base coin, others by both coins.
    """
    name, _, expiry = symbol.partition("-")
    if name.endswith(("PERP", "USDC")):
        return "USDC"
    if name.endswith("USDT"):
        return "USDT"
    return "USDC" if expiry else ""


class TransferableResult(msgspec.Struct, frozen=True):
    """
    The amounts that may leave the unified account, by coin, undecoded.

    Source: Bybit V5, Account, Get Transferable Amount (Unified).
    """

    availableWithdrawalMap: dict[str, msgspec.Raw]


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


type LoanRow = dict[str, str | int | bool | None]
"""A flexible loan, fixed contract or legacy order, which differ too much for one type."""


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
    seq: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{0,19}\Z")] = ""
