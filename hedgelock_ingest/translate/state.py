"""What translation remembers from frame to frame; saved with the position that it belongs to."""

from typing import Literal

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.translate.account_state import AccountState


class GapSpan(msgspec.Struct, frozen=True):
    """A hole that has ended and waits for REST to fill it."""

    from_ms: int
    from_sequence: int | None
    to_ms: int
    to_sequence: int | None
    reason: str


class ChannelState(msgspec.Struct):
    """
    Where a channel stands: its last frame, and why frames are missing after it (None: none are).

    `last_ms` is Bybit's time of the last frame, or ours when the channel went live and nothing came yet. `healing` are
    holes that have ended and are not recorded yet.
    """

    last_ms: int
    last_sequence: int | None = None
    gap_reason: str | None = None
    unfilled: list[GapSpan] = []


class BookState(msgspec.Struct, gc=False):
    """An order book, price to size, as it stood `at_ms` by Bybit's clock; `continuous` until an update is missing."""

    depth: int
    update_id: int = 0
    sequence: int = 0
    continuous: bool = False
    at_ms: int = 0
    next_state_ms: int = 0
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}


class TickerState(msgspec.Struct, gc=False):
    """A merged ticker under the published names; `last` names the last frame by (`ts`, `cs`)."""

    last: tuple[int, int | None] | None = None
    has_snapshot: bool = False
    fields: dict[str, str | int | None] = {}


class State(msgspec.Struct):
    """
    Everything; the keys are channels with their category, `linear:orderbook.50.BTCUSDT`; `prints` are identities, as
    texts or, a chunk of UUIDs, as their bytes.

    `lost_ms` is from when on the journal has lost frames that nobody can count: a channel that is not known here may
    have had some.
    """

    channels: dict[str, ChannelState] = {}
    books: dict[str, BookState] = {}
    tickers: dict[str, TickerState] = {}
    prints: dict[str, list[list[str] | bytes]] = {}
    account: AccountState = msgspec.field(default_factory=AccountState)
    heals: bool = False
    lost_ms: int | None = None


type NoteKind = Literal["started", "down", "up", "unhealed"]


class Note(msgspec.Struct, frozen=True):
    """
    A note of our own in the journal, about channels with their category.

    `started`: the process begins; what came since the last frame is missing; `heals` says whether it asks REST for
    that. `down`: no live line is left. `up`: Bybit sends the channels from now on. `unhealed`: REST could not fill the
    holes that have ended, `reason` says why.
    """

    note: NoteKind
    at_ms: int
    channels: list[str]
    reason: str = ""
    heals: bool = False


_note = msgspec.json.Decoder(Note)


def decode_note(raw: bytes) -> Note:
    """
    Decode a journalled note.

    Raises:
        FrameError: It is none of ours.
    """
    try:
        return _note.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError("a note that we do not know") from error
