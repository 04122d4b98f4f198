"""
The first copy of a frame wins, whichever line brought it, and the order of the exchange is kept.

Every line brings all frames of a channel, complete and in order, from its subscription on. So of lines that overlap,
whatever is new on one of them comes next, and what another one brought before is a copy. A line that joins could bring
a frame before the live line has brought the ones in front of it; its frames are therefore held until one of them is
known from the live line. With that, what is accepted is always a beginning of the exchange's sequence.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from hedgelock_ingest.protocol.wire import (
    BookMessage,
    DataMessage,
    LiquidationsMessage,
    TickerMessage,
    TradesMessage,
)

KNOWN_IDENTITIES = 20_000
HELD_FRAMES = 5_000
JOIN_MARGIN_S = 1.0
"""How much longer than any difference of delay between two lines."""
SKIP_PATIENCE_S = 0.5
"""How long a book update that does not follow waits for another line to bring the missing one."""


def identities(message: DataMessage) -> Sequence[Hashable]:
    """
    Name what a frame tells, so that another line's copy has the same names.

    A book state is named by (`u`, `seq`), a ticker by (`ts`, `cs`), a trade by `i`. Liquidations have no id: the whole
    row names one, with its count among equal rows of the frame.

    Source: Bybit V5, WebSocket Stream, Public.
    """
    match message:
        case BookMessage():
            return ((message.data.u, message.data.seq),)
        case TickerMessage():
            return ((message.ts, message.cs),)
        case TradesMessage():
            return [row.i for row in message.data]
        case LiquidationsMessage():
            return liquidation_identities(message)
    raise AssertionError(message)  # Cannot happen: decode() makes no other type.


def liquidation_identities(message: LiquidationsMessage) -> list[Hashable]:
    """Name each row by its content and by how many equal rows stand before it in the frame."""
    seen: dict[tuple[int, str, str, str], int] = {}
    names: list[Hashable] = []
    for row in message.data:
        content = (row.T, row.S, row.v, row.p)
        seen[content] = count = seen.get(content, 0) + 1
        names.append((*content, count))
    return names


@dataclass(slots=True)
class Offer[T]:
    """One frame of one line: what was decoded, and what the caller wants back when it is accepted."""

    message: DataMessage
    payload: T
    names: Sequence[Hashable]


@dataclass(slots=True)
class _Waiting[T]:
    """A line that has not joined yet, with the frames that it brought."""

    held: deque[Offer[T]] = field(default_factory=deque)
    names: set[Hashable] = field(default_factory=set)
    overflowed: bool = False


@dataclass(frozen=True, slots=True)
class Handover[T]:
    """What follows from the end of a line: frames to accept now, and whether something may be missing before them."""

    accepted: list[Offer[T]]
    is_hole: bool


class FirstCopy[Key: Hashable, T]:
    """
    First copy wins for one channel whose frames have names.

    `now_s` is any monotonic clock in seconds; it decides nothing but how long ago a line was confirmed and heard.
    """

    def __init__(self) -> None:
        self.joined: set[Key] = set()
        self.copies = 0
        self._known: dict[Hashable, int] = {}
        self._horizon_ms = 0
        self._waiting: dict[Key, _Waiting[T]] = {}
        self._confirmed_s: dict[Key, float] = {}

    def line_opened(self, line: Key) -> None:
        """Take note of a line: the only one is live at once, another one has to join."""
        if self.joined:
            self._waiting[line] = _Waiting()
        else:
            self.joined.add(line)

    def confirmed(self, line: Key, now_s: float) -> None:
        """Take note that Bybit sends the channel on this line from now on, at the latest."""
        self._confirmed_s.setdefault(line, now_s)

    def has_joined(self, line: Key) -> bool:
        """Tell whether the line alone would be enough."""
        return line in self.joined

    def offer(self, line: Key, message: DataMessage, payload: T, now_s: float) -> list[Offer[T]]:
        """Take one frame of a line; give what is to be accepted now, in order."""
        offer = Offer(message, payload, identities(message))
        if line in self.joined:
            return self._take(line, offer, now_s)
        waiting = self._waiting.get(line)
        if waiting is None:  # a frame of a line that was closed already
            return []
        if self._joins(line, waiting, offer, now_s):
            # What it brought before stands in front of a known frame, so the live line has brought it.
            return self._join(line, [offer], now_s)
        self._hold(waiting, offer)
        return []

    def line_closed(self, line: Key, *, heard_s: float, now_s: float) -> Handover[T]:
        """
        Take a line away; when no live one is left, the first that waits takes over.

        Args:
            line: The one that ended.
            heard_s: When anything was last read from it. A line confirmed well before that has all that followed.
            now_s: The present.
        """
        self._waiting.pop(line, None)
        was_live = line in self.joined
        self.joined.discard(line)
        self._confirmed_s.pop(line, None)
        if not was_live or self.joined:
            return Handover(self._line_gone(line, now_s), is_hole=False)
        left_over = self._line_gone(line, now_s)
        if not self._waiting:
            return Handover(left_over, is_hole=True)
        heir = min(self._waiting, key=lambda key: self._confirmed_s.get(key, float("inf")))
        waiting = self._waiting[heir]
        is_hole = waiting.overflowed or self._confirmed_s.get(heir, float("inf")) + JOIN_MARGIN_S > heard_s
        held = list(waiting.held)
        return Handover(left_over + self._join(heir, held, now_s), is_hole)

    def tick(self, now_s: float) -> list[Offer[T]]:
        """Give what has waited long enough."""
        return []

    def _joins(self, line: Key, waiting: _Waiting[T], offer: Offer[T], now_s: float) -> bool:
        if any(name in self._known for name in offer.names):
            return True
        # A quiet channel: confirmed long ago and nothing on its way, so there is nothing to overtake.
        confirmed_s = self._confirmed_s.get(line)
        return not waiting.held and confirmed_s is not None and confirmed_s + JOIN_MARGIN_S < now_s

    def _join(self, line: Key, offers: Sequence[Offer[T]], now_s: float) -> list[Offer[T]]:
        self._waiting.pop(line, None)
        self.joined.add(line)
        accepted: list[Offer[T]] = []
        for offer in offers:
            accepted += self._take(line, offer, now_s)
        return accepted

    @staticmethod
    def _hold(waiting: _Waiting[T], offer: Offer[T]) -> None:
        waiting.held.append(offer)
        waiting.names.update(offer.names)
        if len(waiting.held) > HELD_FRAMES:
            dropped = waiting.held.popleft()
            waiting.names.difference_update(dropped.names)
            waiting.overflowed = True

    def _take(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        if self._is_copy(offer):
            self.copies += 1
            return []
        return self._accept(offer, now_s)

    def _is_copy(self, offer: Offer[T]) -> bool:
        # Before the horizon names are forgotten: only a line far behind still brings such frames.
        return offer.message.ts < self._horizon_ms or all(name in self._known for name in offer.names)

    def _accept(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        known = self._known
        for name in offer.names:
            known[name] = offer.message.ts
        while len(known) > KNOWN_IDENTITIES:
            self._horizon_ms = max(self._horizon_ms, known.pop(next(iter(known))))
        return [offer, *self._joined_by(offer, now_s)] if self._waiting else [offer]

    def _joined_by(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        """Let lines join that brought this very frame before; what they brought after it is new."""
        accepted: list[Offer[T]] = []
        for line, waiting in list(self._waiting.items()):
            if waiting.names.isdisjoint(offer.names):
                continue
            held = list(waiting.held)
            first = next(n for n, other in enumerate(held) if not set(offer.names).isdisjoint(other.names))
            accepted += self._join(line, held[first:], now_s)
        return accepted

    def _line_gone(self, line: Key, now_s: float) -> list[Offer[T]]:
        return []


class FirstCopyOfBook[Key: Hashable, T](FirstCopy[Key, T]):
    """
    First copy wins for an order book, whose updates are numbered: an update that one line skipped may come by another.

    `is_broken` is true from a skipped update until the next snapshot; the caller then asks for one.

    Source: Bybit V5, WebSocket Stream, Public, Orderbook ("u": +1 per delta is what third parties measured).
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_broken = False
        self.late = 0
        self._last: tuple[int, int] | None = None
        self._ahead: dict[int, Offer[T]] = {}
        self._ahead_since_s = 0.0
        self._reached: dict[Key, int] = {}

    def tick(self, now_s: float) -> list[Offer[T]]:
        """Give up waiting for a skipped update that no line has brought in time."""
        if self._ahead and now_s - self._ahead_since_s > SKIP_PATIENCE_S:
            return self._give_up(now_s)
        return []

    def _take(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        book = _book(offer)
        self._reached[line] = book.data.u
        if book.type == "snapshot":
            return self._take_snapshot(offer, book, now_s)
        last_u = self._last[0] if self._last else None
        if last_u is None or book.data.u == last_u + 1:
            return self._advance(offer, now_s)
        if book.data.u <= last_u:
            self._count_passed(offer)
            return []
        if self.is_broken:
            return self._advance(offer, now_s)
        if not self._ahead:
            self._ahead_since_s = now_s
        self._ahead.setdefault(book.data.u, offer)
        return self._give_up_if_skipped_by_all(now_s)

    def _take_snapshot(self, offer: Offer[T], book: BookMessage, now_s: float) -> list[Offer[T]]:
        if not self._replaces(offer, book):
            self.copies += 1
            return []
        self.is_broken = False
        self._ahead = {u: other for u, other in self._ahead.items() if u > book.data.u}
        return self._advance(offer, now_s)

    def _replaces(self, offer: Offer[T], book: BookMessage) -> bool:
        if self._last is None:
            return True
        if (book.data.u, book.data.seq) == self._last:
            return self.is_broken
        if book.data.u == 1:  # Bybit's service was restarted and counts from 1 again (Orderbook, field "u").
            return not self._is_copy(offer)
        return book.data.u > self._last[0] or book.data.seq > self._last[1]

    def _count_passed(self, offer: Offer[T]) -> None:
        if self._is_copy(offer):
            self.copies += 1
        else:
            self.late += 1

    def _advance(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        data = _book(offer).data
        self._last = (data.u, data.seq)
        accepted = self._accept(offer, now_s)
        while self._last and (follower := self._ahead.pop(self._last[0] + 1, None)):
            accepted += self._advance(follower, now_s)
        return accepted

    def _give_up_if_skipped_by_all(self, now_s: float) -> list[Offer[T]]:
        last_u = self._last[0] if self._last else 0
        if self._ahead and all(self._reached.get(line, 0) > last_u for line in self.joined):
            return self._give_up(now_s)
        return []

    def _give_up(self, now_s: float) -> list[Offer[T]]:
        self.is_broken = True
        accepted: list[Offer[T]] = []
        while self._ahead:
            accepted += self._advance(self._ahead.pop(min(self._ahead)), now_s)
        return accepted

    def _line_gone(self, line: Key, now_s: float) -> list[Offer[T]]:
        self._reached.pop(line, None)
        return self._give_up_if_skipped_by_all(now_s)


def _book[T](offer: Offer[T]) -> BookMessage:
    if not isinstance(offer.message, BookMessage):  # Cannot happen: decode() makes no other type for an order book.
        raise AssertionError(offer.message)
    return offer.message
