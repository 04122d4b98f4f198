"""State that translation keeps between frames; saved with the position that it belongs to."""

from typing import Literal

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol.exchange_time import ExchangeTime
from hedgelock_ingest.protocol.rest_messages import LoanRow

IDENTITIES_REMEMBERED = 5_000
"""Beyond them, what answers about a gap repeat is remembered until the gap is filled, so that nothing is duplicated."""


type Figures = dict[str, str | bool | None]
"""Published figures that describe a coin or an account."""


class Coin(msgspec.Struct, frozen=True, gc=False):
    """
    A balance at a time, which is 0 if it is unknown; `detail` holds the other figures of that time.

    `available` is None where Bybit does not report it; its time is separate, and 0 if it is unknown. `streamed_ms` is
    the time of the last frame about the coin.
    """

    wallet: str
    available: str | None
    at_ms: int = 0
    available_ms: int = 0
    detail: Figures | None = None
    streamed_ms: int = 0


type PositionFields = dict[str, str | int | None]
"""A published position."""


class AccountState(msgspec.Struct):
    """
    The current account.

    `coins` are those of the unified account, `other_coins` those of others by account type; `margin` holds the figures
    of the unified account at `margin_ms`. `positions` are by `category:symbol:index` and include flat ones;
    `positions_as_of` are their (`updatedTime`, `seq`), `positions_seen_ms` the latest times for which they are known,
    `positions_streamed_ms` the times of the last frames about them, or of the list without them by which they are flat,
    `positions_repeated` the open ones as they were last repeated, with a later mark price. `..._absent_ms` are the
    times of the first lists that lacked an entry, and of the last ones that lacked a coin that is gone. `loan` holds
    loan_amount, collateral_value and ltv, `loans` the published rows by kind. `seen_ms` is by part. `orders` and
    `executions` are identities.
    """

    coins: dict[str, Coin] = {}
    other_coins: dict[str, dict[str, Coin]] = {}
    coins_absent_ms: dict[str, int] = {}
    margin: Figures | None = None
    margin_ms: int = 0
    margin_streamed_ms: int = 0
    positions: dict[str, PositionFields] = {}
    positions_as_of: dict[str, tuple[int, int]] = {}
    positions_seen_ms: dict[str, int] = {}
    positions_streamed_ms: dict[str, int] = {}
    positions_absent_ms: dict[str, int] = {}
    positions_repeated: dict[str, PositionFields] = {}
    loan: dict[str, str] | None = None
    loans: dict[str, list[LoanRow] | None] | None = None
    loans_absent_ms: dict[str, int] = {}
    seen_ms: dict[str, int] = {}
    orders: list[str] = []
    executions: list[str] = []


class Coverage(msgspec.Struct):
    """
    How far REST has filled a gap of trades: up to `to_ms`, 0 before any answer, without the spans in `skipped`.

    `undecodable` is the largest number of rows in an answer that could not be decoded.
    """

    to_ms: int = 0
    skipped: list[tuple[int, int]] = []
    undecodable: int = 0


class GapSpan(msgspec.Struct, frozen=True):
    """A closed gap that waits for REST to fill it; `coverage` changes in place."""

    from_ms: int
    from_sequence: int | None
    to_ms: int
    to_sequence: int | None
    reason: str
    coverage: Coverage = msgspec.field(default_factory=Coverage)


class ChannelState(msgspec.Struct):
    """
    State of a channel: its last frame, and why frames are missing after it (`gap_reason`; None if none are).

    `last_ms` is Bybit's time of the last frame, `frame_ms`, or our time when the channel went live if that is later. If
    the frame's own time is wrong, it is an estimate, and never later than the frame.
    `coverage` is that of the gap that is open. `unfilled` are closed gaps that are not recorded yet.
    """

    last_ms: int
    last_sequence: int | None = None
    gap_reason: str | None = msgspec.field(default=None, name="hole")
    unfilled: list[GapSpan] = msgspec.field(default_factory=list, name="healing")
    frame_ms: int = 0
    coverage: Coverage = msgspec.field(default_factory=Coverage)


class BookState(msgspec.Struct, gc=False):
    """An order book, price to size, at `at_ms` by Bybit's clock; `continuous` is false once an update is missing."""

    depth: int
    update_id: int = 0
    sequence: int = 0
    continuous: bool = False
    at_ms: int = 0
    next_state_ms: int = 0
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}


class TickerState(msgspec.Struct, gc=False):
    """
    A merged ticker under the published names; `last` is (`ts`, `cs`) of the last frame, which was
    read at `received_ms`.

    `unknown` are the required fields of Bybit that no frame has named since the snapshot, not even as empty.
    """

    last: tuple[int, int | None] | None = None
    received_ms: int = 0
    has_snapshot: bool = False
    unknown: list[str] = []
    fields: dict[str, str | int | None] = {}


class State(msgspec.Struct):
    """
    The complete state; keys are channels with their category, `linear:orderbook.50.BTCUSDT`.

    `seen_ids` are ids of published rows, as texts or, a chunk of UUIDs, as bytes. `fills_gaps` is whether gaps of
    trades wait for REST. `lost_ms` is the time from which the journal has lost an unknown number of
    frames: a channel that is not in `channels` may have had some. `time` is Bybit's, by our wall clock.
    """

    channels: dict[str, ChannelState] = {}
    books: dict[str, BookState] = {}
    tickers: dict[str, TickerState] = {}
    seen_ids: dict[str, list[list[str] | bytes]] = msgspec.field(default_factory=dict, name="prints")
    account: AccountState = msgspec.field(default_factory=AccountState)
    fills_gaps: bool = msgspec.field(default=False, name="heals")
    lost_ms: int | None = None
    time: ExchangeTime = msgspec.field(default_factory=ExchangeTime)


type NoteKind = Literal["started", "down", "up", "unhealed"]


class Note(msgspec.Struct, frozen=True):
    """
    A note of our own in the journal, about channels with their category.

    `started`: the process starts; frames since the last one are missing; `fills_gaps` is whether REST fills them.
    `down`: no live line is left. `up`: Bybit sends the channels from now on. `unhealed`: REST could not fill the
    closed gaps; `reason` is why.
    """

    note: NoteKind
    at_ms: int
    channels: list[str]
    reason: str = ""
    fills_gaps: bool = msgspec.field(default=False, name="heals")


_note = msgspec.json.Decoder(Note)


def decode_note(raw: bytes) -> Note:
    """
    Decode a journalled note.

    Raises:
        FrameError: The note is of an unknown kind or malformed.
    """
    try:
        return _note.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError("an unknown or malformed note") from error


class Feed(msgspec.Struct, gc=False):
    """
    A feed such as `linear:orderbook.50.BTCUSDT` with references to its state; `key` is such as `linear:BTCUSDT`.

    `channel`, `book` and `ticker` refer to the entries that the state holds under the feed's name, which saves the
    lookup; None as long as the state has no such entry.
    """

    name: str
    category: str
    symbol: str
    key: bytes
    channel: ChannelState | None = None
    book: BookState | None = None
    ticker: TickerState | None = None


def category_of(origin: str) -> str:
    """Return the category of an origin, such as `linear` of `linear-a`."""
    return origin.partition("-")[0]


def feed_of(origin: str, topic: str) -> Feed:
    """Return the feed of a frame, given its origin, such as `linear-a`, and the topic in it."""
    category = category_of(origin)
    symbol = topic.rpartition(".")[2]
    return Feed(f"{category}:{topic}", category, symbol, f"{category}:{symbol}".encode())
