"""
The first copy of a frame wins, whichever line brought it, and the order of the exchange is kept.

Every line brings all frames of a channel, complete and in order, from its subscription on. So of lines that overlap,
whatever is new on one of them comes next, and what another one brought before is a copy. A line that joins could bring
a frame before the live line has brought the ones in front of it; its frames are therefore held until one of them is
known from the live line. With that, what is accepted is always a beginning of the exchange's sequence.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Final

import msgspec

from hedgelock_ingest.protocol.messages import (
    BookMessage,
    DataMessage,
    LiquidationsMessage,
    TickerMessage,
    TradesMessage,
)
from hedgelock_ingest.protocol.private_messages import private_identities
from hedgelock_ingest.protocol.seen_names import Names

_WITH_STATE: Final = (BookMessage, TickerMessage)
HELD_FRAMES = 5_000
RENUMBERED_AFTER_MS = 1_000
"""A book's lower numbers are of the past, unless Bybit made them so much later: then it counts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyTiming:
    """
    What is supposed of how far lines lie apart, in seconds.

    `join_margin_s` is longer than any difference of delay between two lines. `skip_patience_s` is how long a book
    update that does not follow waits for another line to bring the missing one.
    """

    join_margin_s: float = 1.0
    skip_patience_s: float = 0.5


DEFAULT_TIMING: Final = CopyTiming()


def identities(message: DataMessage) -> Sequence[Hashable]:
    """
    Name what a frame tells, so that another line's copy has the same names.

    A book state is named by (`u`, `seq`), a ticker by (`ts`, `cs`), a trade by `i`. Liquidations have no id: the whole
    row names one, with its count among equal rows of the frame.

    Source: Bybit V5, WebSocket Stream, Public.
    """
    if isinstance(message, TradesMessage):
        return [row.i for row in message.data]
    if isinstance(message, TickerMessage):
        return ((message.ts, message.cs),)
    if isinstance(message, BookMessage):
        return ((message.data.u, message.data.seq),)
    return liquidation_identities(message) if isinstance(message, LiquidationsMessage) else private_identities(message)


def liquidation_identities(message: LiquidationsMessage) -> list[Hashable]:
    """Name each row by its content and by how many equal rows stand before it in the frame."""
    seen: dict[tuple[int, str, str, str], int] = {}
    names: list[Hashable] = []
    for row in message.data:
        content = (row.T, row.S, row.v, row.p)
        seen[content] = count = seen.get(content, 0) + 1
        names.append((*content, count))
    return names


def may_count_anew(message: BookMessage, last_ms: int) -> bool:
    """Tell whether lower numbers than those of `last_ms` may be new all the same, from wherever Bybit counts then."""
    return message.ts > last_ms + RENUMBERED_AFTER_MS


def _is_snapshot(message: DataMessage) -> bool:
    return isinstance(message, _WITH_STATE) and message.type == "snapshot"


def _is_past(message: DataMessage, last: DataMessage | None) -> bool:
    """Tell whether a frame is older than the last one by everything that Bybit numbers its frames with."""
    match message, last:
        case BookMessage(data=data), BookMessage(data=known):
            is_lower = data.u <= known.u and data.seq <= known.seq and (data.u, data.seq) != (known.u, known.seq)
            return is_lower and not may_count_anew(message, last.ts)
        case TickerMessage(), TickerMessage():
            return message.ts < last.ts and (message.cs or 0) <= (last.cs or 0)
    return last is not None and message.ts < last.ts


class Offer[T](msgspec.Struct, frozen=True, gc=False):
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
    has_gap: bool


class FirstCopy[Key: Hashable, T]:
    """
    First copy wins for one channel whose frames have names.

    `joined` are the lines each of which alone would be enough. `copies` counts frames that another line had brought,
    `late` new ones that could only have been accepted out of order. `is_broken` is true while changes come whose
    snapshot is missing; the caller then asks for one. `now_s` is any monotonic clock in seconds; it decides nothing
    but how long ago a line was confirmed and heard.
    """

    def __init__(
        self, timing: CopyTiming = DEFAULT_TIMING, *, received_s: Callable[[Key], float] = lambda line: float("inf")
    ) -> None:
        """Begin without a line; `received_s` says when a line last gave a sign that its data still comes."""
        self._timing = timing
        self._received_s = received_s
        self.joined: set[Key] = set()
        self.copies = 0
        self.late = 0
        self.is_broken = False
        # No frame yet since there was no line: the first that is not of the past is taken, whoever brings it.
        self._is_fresh = True
        self._last: DataMessage | None = None
        self._known = Names()
        self._waiting: dict[Key, _Waiting[T]] = {}
        self._confirmed_s: dict[Key, float] = {}

    def line_opened(self, line: Key) -> None:
        """Take note of a line."""
        self._waiting[line] = _Waiting()

    def confirmed(self, line: Key, now_s: float) -> None:
        """Take note that Bybit sends the channel on this line from now on, at the latest."""
        self._confirmed_s.setdefault(line, now_s)
        if not self.joined:
            self._go_live_alone(line)

    @property
    def is_live(self) -> bool:
        """Whether a line that would be enough alone is confirmed."""
        return not self._confirmed_s.keys().isdisjoint(self.joined)

    def has_joined(self, line: Key) -> bool:
        """Tell whether the line alone would be enough."""
        return line in self.joined

    def quickest(self) -> Key | None:
        """Name the joined line to ask for a snapshot; None when there is none."""
        return next(iter(self.joined), None)

    def take_next(self, line: Key, message: DataMessage) -> bool:
        """Accept one frame of a line if it plainly comes next, which is what nearly all do; else `offer` decides."""
        if self._is_fresh or self._waiting or line not in self.joined or self.is_broken:
            return False
        at_ms, last = message.ts, self._last
        known = self._known
        if at_ms <= known.horizon_ms or (last is not None and at_ms < last.ts and type(message) is TickerMessage):
            return False
        names = identities(message)
        if not known.has_none_of(names):
            return False
        self._last = message
        known.add(names, at_ms)
        return True

    def offer(self, line: Key, message: DataMessage, payload: T, now_s: float) -> list[Offer[T]]:
        """Take one frame of a line; give what is to be accepted now, in order."""
        offer = Offer(message, payload, identities(message))
        if self._is_fresh and not self.joined:
            self._go_live_alone(line)
        if line in self.joined:
            return self._take(line, offer, now_s)
        waiting = self._waiting[line]
        if self.is_broken and (whole := self._from_snapshot([*waiting.held, offer])):
            return self._join(line, whole, now_s)
        if self._joins(line, waiting, offer, now_s):
            self._count_late(waiting.held)
            return self._join(line, [offer], now_s)
        self._hold(waiting, offer)
        return []

    def line_closed(self, line: Key, *, received_s: float, now_s: float) -> Handover[T]:
        """
        Take a line away; when no live one is left, the first that waits takes over.

        Args:
            line: The one that ended.
            received_s: When anything was last read from it. A line confirmed well before that has all that followed.
            now_s: The present.
        """
        self._waiting.pop(line, None)
        self._confirmed_s.pop(line, None)
        was_live = line in self.joined
        self.joined.discard(line)
        accepted = self._line_gone(line, now_s)
        if not was_live or self.joined:
            return Handover(accepted, has_gap=False)
        heir = self._heir()
        if heir is None:
            self._is_fresh = True
            return Handover(accepted, has_gap=True)
        waiting = self._waiting[heir]
        held, is_overlapping = self._without_past(waiting.held)
        has_gap = not is_overlapping and (waiting.overflowed or not self._is_settled(heir, received_s))
        # An heir of rows that is behind brings some more of the past; states are known to be past by their numbers.
        is_behind = is_overlapping and not isinstance(self._last, _WITH_STATE)
        self._is_fresh = self._is_fresh or has_gap or is_behind
        return Handover(accepted + self._join(heir, held, now_s), has_gap)

    def tick(self, now_s: float) -> list[Offer[T]]:
        """Give what has waited long enough."""
        return []

    def _go_live_alone(self, line: Key) -> None:
        for other in self.joined - {line}:
            self._waiting[other] = _Waiting()
        self._waiting.pop(line, None)
        self.joined = {line}

    def _heir(self) -> Key | None:
        able = [key for key, waiting in self._waiting.items() if waiting.held or key in self._confirmed_s]
        return min(able, key=lambda key: self._confirmed_s.get(key, float("inf")), default=None)

    def _is_settled(self, line: Key, now_s: float) -> bool:
        return self._confirmed_s.get(line, float("inf")) + self._timing.join_margin_s < now_s

    def _without_past(self, held: Sequence[Offer[T]]) -> tuple[list[Offer[T]], bool]:
        """Leave out what is older than the last accepted frame; that there was such a thing proves an overlap."""
        future = list(dropwhile(lambda offer: _is_past(offer.message, self._last), held))
        self._count_late(list(held)[: len(held) - len(future)])
        return future, len(future) < len(held)

    def _from_snapshot(self, offers: Sequence[Offer[T]]) -> Sequence[Offer[T]]:
        """Give what a line has from its first snapshot on that is not of the past: what the live lines lack."""
        for place, offer in enumerate(offers):
            if _is_snapshot(offer.message) and not _is_past(offer.message, self._last):
                return offers[place:]
        return []

    def _count_late(self, passed: Iterable[Offer[T]]) -> None:
        # What a line begins with tells what is known by another name. Anything else no live line has brought.
        self.late += sum(not _is_snapshot(offer.message) for offer in passed)

    def _joins(self, line: Key, waiting: _Waiting[T], offer: Offer[T], now_s: float) -> bool:
        if not self._known.has_none_of(offer.names):
            return True
        # A quiet channel: confirmed long ago and nothing on its way, so there is nothing to overtake. A live line that
        # was not heard since may be dead without a word: then frames are missing between the two.
        if waiting.held or not self._is_settled(line, now_s):
            return False
        return any(self._is_settled(line, self._received_s(live)) for live in self.joined)

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
        return self._take_first(line, offer, now_s) if self._is_fresh else self._decide(line, offer, now_s)

    def _take_first(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        is_past = _is_past(offer.message, self._last)
        if not isinstance(offer.message, _WITH_STATE):
            self._is_fresh = is_past
            if is_past:
                return self._pass_over(offer)
            return self._brought_before(offer, now_s) + self._decide(line, offer, now_s)
        self._is_fresh = False
        if is_past and _is_snapshot(offer.message):
            return [offer]  # All that follows it is known, so there is no hole; the translation must learn that.
        # Accepted even when it is known: only so does the translation learn where the hole ends.
        return self._begin(offer, now_s)

    def _brought_before(self, first: Offer[T], now_s: float) -> list[Offer[T]]:
        """Accept what a line that waits has brought before the first frame of a live one: it was subscribed earlier."""
        accepted: list[Offer[T]] = []
        for waiting in list(self._waiting.values()):
            if waiting.names.isdisjoint(first.names):
                continue
            while set(first.names).isdisjoint(waiting.held[0].names):
                offer = waiting.held.popleft()
                waiting.names.difference_update(offer.names)
                if not _is_past(offer.message, self._last) and not self._is_copy(offer):
                    accepted += self._accept(offer, now_s)
        return accepted

    def _begin(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self.is_broken = not _is_snapshot(offer.message)
        return self._accept(offer, now_s)

    def _decide(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        if self.is_broken and _is_snapshot(offer.message):
            return self._begin(offer, now_s)
        if self._is_copy(offer):
            self.copies += 1
            return []
        if isinstance(offer.message, _WITH_STATE) and _is_past(offer.message, self._last):
            self.late += 1
            return []
        return self._accept(offer, now_s)

    def _pass_over(self, offer: Offer[T]) -> list[Offer[T]]:
        if self._is_copy(offer):
            self.copies += 1
        else:
            self.late += 1
        return []

    def _is_copy(self, offer: Offer[T]) -> bool:
        # Up to the horizon names are forgotten: only a line far behind still brings such frames.
        return offer.message.ts <= self._known.horizon_ms or self._known.has_all_of(offer.names)

    def _accept(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self._last = offer.message
        self._known.add(offer.names, offer.message.ts)
        return [offer, *self._joined_by(offer, now_s)] if self._waiting else [offer]

    def _joined_by(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        """Let lines join that brought this very frame before; what they brought after it is new."""
        accepted: list[Offer[T]] = []
        for line, waiting in list(self._waiting.items()):
            if line not in self._waiting or waiting.names.isdisjoint(offer.names):
                continue
            held = list(waiting.held)
            first = next(n for n, other in enumerate(held) if not set(offer.names).isdisjoint(other.names))
            self._count_late(held[:first])
            accepted += self._join(line, held[first:], now_s)
        return accepted

    def _line_gone(self, line: Key, now_s: float) -> list[Offer[T]]:
        return []
