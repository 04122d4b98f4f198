"""
Arbitration between lines: the first copy of a frame wins, and the order of the exchange is kept.

Every line brings all frames of a channel, complete and in order, from its subscription on. If lines overlap, a frame
that is new on one of them comes next, and a frame that another line brought before is a copy. A line that joins could
bring a frame before the live line has brought the preceding ones; its frames are therefore held until one of them is
known from the live line. The accepted frames are thus always a prefix of the exchange's sequence.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Final

import msgspec

from hedgelock_ingest.protocol.frame_identities import KNOWN_FOR_MS, FrameIdentities
from hedgelock_ingest.protocol.messages import (
    BookMessage,
    DataMessage,
    LiquidationsMessage,
    TickerMessage,
    TradesMessage,
)
from hedgelock_ingest.protocol.private_messages import private_identities

_WITH_STATE: Final = (BookMessage, TickerMessage)
HELD_FRAMES = 5_000
"""Limit of frames held for one line that has not joined."""
RENUMBERED_AFTER_MS = 1_000
"""A lower update id of a book is an old one, unless its time is this much later: then Bybit has renumbered."""
_OLDEST_UPDATE_MS: Final = 60_000
"""Old updates are not older than this: a line so far behind has lost its pongs, and is closed."""
OLDEST_FRAME_MS: Final = KNOWN_FOR_MS
"""A frame that is older than the last one by more than this is not old: one of the two times is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArbitrationTiming:
    """
    Assumptions about the lag between lines, in seconds.

    `join_margin_s` is longer than any lag between two lines. `skip_timeout_s` is how long a book update with a
    missing predecessor waits for another line to bring the missing one.
    """

    join_margin_s: float = 1.0
    skip_timeout_s: float = 0.5


DEFAULT_TIMING: Final = ArbitrationTiming()
DEFAULT_LAG_MS: Final = int(DEFAULT_TIMING.join_margin_s * 1000)


def identities(message: DataMessage) -> Sequence[Hashable]:
    """
    Return the identities of a frame's content; another line's copy has the same ones.

    They are (`u`, `seq`) of a book state, (`ts`, `cs`) of a ticker, `i` of a trade. Liquidations have no id: theirs is
    the complete row, with its count among equal rows of the frame.

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
    """Identify each row by its content and its count among equal rows of the frame."""
    seen: dict[tuple[int, str, str, str], int] = {}
    found: list[Hashable] = []
    for row in message.data:
        content = (row.T, row.S, row.v, row.p)
        seen[content] = count = seen.get(content, 0) + 1
        found.append((*content, count))
    return found


def may_be_renumbered(message: BookMessage, last_ms: int) -> bool:
    """
    Return whether a lower update id than the one of `last_ms` may mean that Bybit has renumbered the book.

    A time far before that one shows nothing: either may be wrong.
    """
    return not -_OLDEST_UPDATE_MS <= message.ts - last_ms <= RENUMBERED_AFTER_MS


def is_older_by_time(ts: int, last_ms: int, passed_ms: int, *, lag_ms: int = DEFAULT_LAG_MS) -> bool:
    """
    Return whether a frame may be older than the last one, by its time alone.

    It was then under way for longer than the last one. If it was for longer than lines lag, one of the two times is
    wrong, and the frame counts as new.

    Args:
        ts: The frame's time, Bybit's.
        last_ms: The last frame's time, Bybit's.
        passed_ms: By how much it was received later than the last one.
        lag_ms: Maximum lag between lines.
    """
    return ts < last_ms and last_ms - ts + passed_ms <= lag_ms


def is_older_ticker(message: TickerMessage, last_ms: int, last_sequence: int | None) -> bool | None:
    """Return whether a ticker is older than another one by its sequence; None if its sequence is the same or absent."""
    if message.cs is None or last_sequence is None or message.cs == last_sequence:
        return None
    return message.cs < last_sequence and _is_shortly_before(message.ts, last_ms)


def _is_shortly_before(ts: int, last_ms: int) -> bool:
    return 0 < last_ms - ts <= OLDEST_FRAME_MS


def _is_snapshot(message: DataMessage) -> bool:
    return isinstance(message, _WITH_STATE) and message.type == "snapshot"


def _is_older_by_number(message: DataMessage, last: DataMessage) -> bool | None:
    """Return whether a frame is older than the last one by the numbers that Bybit gives them; None without any."""
    match message, last:
        case BookMessage(data=data), BookMessage(data=known):
            is_lower = data.u <= known.u and data.seq <= known.seq and (data.u, data.seq) != (known.u, known.seq)
            return is_lower and not may_be_renumbered(message, last.ts)
        case TickerMessage(), TickerMessage():
            return is_older_ticker(message, last.ts, last.cs)
        case TradesMessage(data=rows), TradesMessage(data=known_rows):
            sequence, last_sequence = rows[-1].seq, known_rows[-1].seq
            if sequence is not None and last_sequence is not None:
                return sequence < last_sequence and _is_shortly_before(message.ts, last.ts)
        case LiquidationsMessage(data=liquidations), LiquidationsMessage(data=known_liquidations):
            if liquidations[-1].T >= known_liquidations[-1].T:
                return False
    return None


class Offer[T](msgspec.Struct, frozen=True, gc=False):
    """
    One frame of one line: the decoded message, and the caller's payload, returned when it is accepted.

    `received_s` is when it was received, by the clock of the calls.
    """

    message: DataMessage
    payload: T
    identities: Sequence[Hashable]
    received_s: float


@dataclass(slots=True)
class _Waiting[T]:
    """
    State of a line that has not joined yet, with its held frames, the first of which came at `since_s`.

    `repeated` of them, at the beginning, show nothing new.
    """

    held: deque[Offer[T]] = field(default_factory=deque)
    identities: set[Hashable] = field(default_factory=set)
    overflowed: bool = False
    since_s: float = float("inf")
    repeated: int = 0

    @property
    def has_news(self) -> bool:
        """Whether a held frame may be new."""
        return len(self.held) > self.repeated


@dataclass(frozen=True, slots=True)
class LineEnd[T]:
    """Result of the end of a line: frames to accept now, and whether frames may be missing before them."""

    accepted: list[Offer[T]]
    has_gap: bool


class ChannelArbitration[Key: Hashable, T]:
    """
    First copy wins for one channel whose frames have identities.

    `joined` are the lines each of which is complete by itself. `copies` counts frames that another line had brought,
    `late` new ones that could only have been accepted out of order. `is_broken` is true while deltas arrive whose
    snapshot is missing; the caller then requests one. `now_s` is any monotonic clock in seconds; it is used only for
    how long ago a line was confirmed and last received from, and for how much later one frame came than another.
    """

    def __init__(
        self,
        timing: ArbitrationTiming = DEFAULT_TIMING,
        *,
        received_s: Callable[[Key], float] = lambda line: float("inf"),
    ) -> None:
        """Start without lines; `received_s` returns when a line last proved that its data still arrives."""
        self._timing = timing
        self._received_s = received_s
        self.joined: set[Key] = set()
        self.copies = 0
        self.late = 0
        self.is_broken = False
        # No frame accepted since the channel was last without a line: the first frame that is not old is accepted.
        self._is_fresh = True
        self._last: DataMessage | None = None
        self._last_s = 0.0
        self._last_at_opening: dict[Key, DataMessage | None] = {}
        # Which line brought it, and what each line brought last on the slow path.
        self._front: Key | None = None
        self._offered: dict[Key, DataMessage] = {}
        self._known = FrameIdentities()
        self._waiting: dict[Key, _Waiting[T]] = {}
        self._confirmed_s: dict[Key, float] = {}

    def line_opened(self, line: Key) -> None:
        """Add a line."""
        self._waiting[line] = _Waiting()
        self._last_at_opening[line] = self._last

    def confirmed(self, line: Key, now_s: float) -> None:
        """Note that Bybit sends the channel on this line from now on, at the latest."""
        self._confirmed_s.setdefault(line, now_s)
        if not self.joined:
            self._go_live_alone(line)

    @property
    def last_ms(self) -> int | None:
        """Bybit's time of the last frame accepted, None before the first."""
        return None if self._last is None else self._last.ts

    @property
    def is_live(self) -> bool:
        """Whether a joined line is confirmed."""
        return not self._confirmed_s.keys().isdisjoint(self.joined)

    def has_joined(self, line: Key) -> bool:
        """Return whether the line has joined: it is complete by itself."""
        return line in self.joined

    def join_if_quiet(self, line: Key, now_s: float) -> bool:
        """Join a line on which a quiet channel has brought nothing new yet; return whether it has joined."""
        waiting = self._waiting.get(line)
        if waiting is not None and not waiting.has_news and self._is_quiet(line, now_s):
            self._join(line, (), now_s)
        return line in self.joined

    def repeats(self, line: Key, message: DataMessage) -> bool:
        """Return whether a line begins with a snapshot of what is known."""
        return False

    def quickest(self) -> Key | None:
        """Return the joined line on which to request a snapshot; None when there is none."""
        return next(iter(self.joined), None)

    def take_next(self, line: Key, message: DataMessage, now_s: float) -> bool:
        """Accept one frame of a line on the fast path, which fits nearly all; if it returns False, call `offer`."""
        if self._is_fresh or self._waiting or line not in self.joined or self.is_broken:
            return False
        at_ms, last = message.ts, self._last
        known = self._known
        if at_ms <= known.horizon_ms or (last is not None and at_ms < last.ts and type(message) is TickerMessage):
            return False
        found = identities(message)
        if not known.has_none_of(found):
            return False
        self._last, self._last_s = message, now_s
        self._front = line
        known.add(found, at_ms)
        return True

    def offer(self, line: Key, message: DataMessage, payload: T, now_s: float) -> list[Offer[T]]:
        """Offer one frame of a line; return the frames to accept now, in order."""
        accepted = self._offer(line, Offer(message, payload, identities(message), now_s), now_s)
        self._offered[line] = message
        if accepted:
            self._front = line
        return accepted

    def _offer(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        if self._is_fresh and not self.joined:
            self._go_live_alone(line)
        if line in self.joined:
            return self._take(line, offer, now_s)
        waiting = self._waiting[line]
        if self.is_broken and (offers := self._from_snapshot(line, [*waiting.held, offer])):
            return self._join(line, offers, now_s)
        if self._joins(line, waiting, offer, now_s):
            self._count_late(waiting.held)
            return self._join(line, [offer], now_s)
        waiting.since_s = min(waiting.since_s, now_s)
        self._hold(waiting, offer)
        return []

    def line_closed(self, line: Key, *, received_s: float, now_s: float) -> LineEnd[T]:
        """
        Remove a line; when no joined one is left, the waiting one that has carried the channel longest succeeds it.

        Args:
            line: The line that ended.
            received_s: When anything was last read from it. A line confirmed well before that has all later frames.
            now_s: The present time.
        """
        self._waiting.pop(line, None)
        self._confirmed_s.pop(line, None)
        self._offered.pop(line, None)
        self._last_at_opening.pop(line, None)
        was_live = line in self.joined
        self.joined.discard(line)
        accepted = self._line_removed(line, now_s)
        if not was_live or self.joined:
            return LineEnd(accepted, has_gap=False)
        successor = self._successor()
        if successor is None:
            self._is_fresh = True
            return LineEnd(accepted, has_gap=True)
        waiting = self._waiting[successor]
        past, held = self._split_off_past(successor, waiting.held)
        # A number proves that the lines overlap; a time does not, since Bybit may have sent a wrong one.
        is_overlapping = any(self._is_older_by_number(offer) for offer in past)
        has_gap = not is_overlapping and (waiting.overflowed or not self._is_settled(successor, received_s))
        # A successor that lags still brings old rows; old states are recognised by their numbers.
        is_behind = bool(past) and not isinstance(self._last, _WITH_STATE)
        self._is_fresh = self._is_fresh or has_gap or is_behind
        return LineEnd(accepted + self._join(successor, held, now_s), has_gap)

    def tick(self, now_s: float) -> list[Offer[T]]:
        """Return the frames that have waited long enough."""
        return []

    def _go_live_alone(self, line: Key) -> None:
        for other in self.joined - {line}:
            self._waiting[other] = _Waiting()
        self._waiting.pop(line, None)
        self.joined = {line}

    def _successor(self) -> Key | None:
        candidates = [key for key, waiting in self._waiting.items() if waiting.held or key in self._confirmed_s]
        return min(candidates, key=self._carries_since_s, default=None)

    def _carries_since_s(self, line: Key) -> float:
        """Return since when a waiting line certainly carries the channel: the confirmation may have been lost."""
        return min(self._confirmed_s.get(line, float("inf")), self._waiting[line].since_s)

    def _is_settled(self, line: Key, now_s: float) -> bool:
        return self._confirmed_s.get(line, float("inf")) + self._timing.join_margin_s < now_s

    def _split_off_past(self, line: Key, held: Sequence[Offer[T]]) -> tuple[list[Offer[T]], list[Offer[T]]]:
        """Split held frames into those older than the last accepted one, which are dropped, and those after them."""
        future = list(dropwhile(lambda offer: self._is_past(line, offer), held))
        past = list(held)[: len(held) - len(future)]
        self._count_late(past)
        return past, future

    def _from_snapshot(self, line: Key, offers: Sequence[Offer[T]]) -> Sequence[Offer[T]]:
        """Return the offers from the first snapshot that is not old; empty if there is none."""
        for place, offer in enumerate(offers):
            if _is_snapshot(offer.message) and not self._is_past(line, offer):
                return offers[place:]
        return []

    def _count_late(self, dropped: Iterable[Offer[T]]) -> None:
        # A snapshot at the start of a line repeats known content under another identity; other frames are new.
        self.late += sum(not _is_snapshot(offer.message) for offer in dropped)

    def _joins(self, line: Key, waiting: _Waiting[T], offer: Offer[T], now_s: float) -> bool:
        return not self._known.has_none_of(offer.identities) or (not waiting.has_news and self._is_quiet(line, now_s))

    def _is_quiet(self, line: Key, now_s: float) -> bool:
        # A quiet channel: confirmed long ago and nothing on its way, so there is nothing to overtake. If no live line
        # has been received from since, all may be dead: then frames are missing between them and this line.
        if not self._is_settled(line, now_s):
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
        waiting.identities.update(offer.identities)
        if len(waiting.held) > HELD_FRAMES:
            dropped = waiting.held.popleft()
            waiting.identities.difference_update(dropped.identities)
            waiting.overflowed = True

    def _take(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        return self._take_first(line, offer, now_s) if self._is_fresh else self._decide(line, offer, now_s)

    def _take_first(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        is_past = self._is_past(line, offer)
        if not isinstance(offer.message, _WITH_STATE):
            self._is_fresh = is_past
            if is_past:
                return self._drop(line, offer)
            return self._accept_preceding(offer, now_s) + self._decide(line, offer, now_s)
        self._is_fresh = False
        if is_past and _is_snapshot(offer.message):
            return [offer]  # All that follows it is known, so there is no gap; it lets translation close its gap.
        # Accepted even when it is known, so that translation sees where the gap ends.
        return self._begin(offer, now_s)

    def _accept_preceding(self, first: Offer[T], now_s: float) -> list[Offer[T]]:
        """Accept held frames of waiting lines that precede the first frame of a live line: they subscribed earlier."""
        accepted: list[Offer[T]] = []
        for line, waiting in list(self._waiting.items()):
            if waiting.identities.isdisjoint(first.identities):
                continue
            while set(first.identities).isdisjoint(waiting.held[0].identities):
                offer = waiting.held.popleft()
                waiting.identities.difference_update(offer.identities)
                if not self._is_past(line, offer) and not self._is_copy(line, offer):
                    accepted += self._accept(offer, now_s)
        return accepted

    def _begin(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self.is_broken = not _is_snapshot(offer.message)
        return self._accept(offer, now_s)

    def _decide(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        if self.is_broken and _is_snapshot(offer.message):
            return self._begin(offer, now_s)
        if self._is_copy(line, offer):
            self.copies += 1
            return []
        if isinstance(offer.message, _WITH_STATE) and self._is_past(line, offer):
            self.late += 1
            return []
        return self._accept(offer, now_s)

    def _drop(self, line: Key, offer: Offer[T]) -> list[Offer[T]]:
        if self._is_copy(line, offer):
            self.copies += 1
        else:
            self.late += 1
        return []

    def _is_past(self, line: Key, offer: Offer[T]) -> bool:
        """Return whether a frame that is not known is older than the last one: by its numbers, else by its time."""
        is_older = self._is_older_by_number(offer)
        if is_older is not None or self._last is None:
            return bool(is_older)
        if self._last_at_opening.get(line) is self._last or self._is_in_front(line):
            return False  # The line was opened after the last frame had come, or has brought it.
        passed_ms, lag_ms = (offer.received_s - self._last_s) * 1000, self._timing.join_margin_s * 1000
        return is_older_by_time(offer.message.ts, self._last.ts, int(passed_ms), lag_ms=int(lag_ms))

    def _is_older_by_number(self, offer: Offer[T]) -> bool | None:
        return None if self._last is None else _is_older_by_number(offer.message, self._last)

    def _is_copy(self, line: Key, offer: Offer[T]) -> bool:
        if self._known.has_all_of(offer.identities):
            return True
        # Identities up to the horizon may have been dropped: a line far behind still brings such frames. On a line that
        # has brought the last accepted frame the next one is new, and its time is wrong.
        return offer.message.ts <= self._known.horizon_ms and not self._is_in_front(line)

    def _is_in_front(self, line: Key) -> bool:
        """Return whether a line has brought the last accepted frame."""
        brought = self._offered.get(line)
        if line == self._front or self._last is None:
            return True
        return brought is not None and identities(brought)[-1] == identities(self._last)[-1]

    def _accept(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self._last, self._last_s = offer.message, offer.received_s
        self._known.add(offer.identities, offer.message.ts)
        return [offer, *self._join_lines_with(offer, now_s)] if self._waiting else [offer]

    def _join_lines_with(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        """Join the waiting lines that hold a copy of this frame; their later frames are new."""
        accepted: list[Offer[T]] = []
        for line, waiting in list(self._waiting.items()):
            if line not in self._waiting or waiting.identities.isdisjoint(offer.identities):
                continue
            held = list(waiting.held)
            first = next(n for n, other in enumerate(held) if not set(offer.identities).isdisjoint(other.identities))
            self._count_late(held[:first])
            accepted += self._join(line, held[first:], now_s)
        return accepted

    def _line_removed(self, line: Key, now_s: float) -> list[Offer[T]]:
        return []
