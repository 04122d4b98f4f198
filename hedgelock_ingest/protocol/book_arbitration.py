"""Arbitration for numbered frames: an update that one line skipped may come from another."""

from collections.abc import Callable, Hashable

from hedgelock_ingest.protocol.arbitration import (
    DEFAULT_TIMING,
    ArbitrationTiming,
    ChannelArbitration,
    Offer,
    may_be_renumbered,
)
from hedgelock_ingest.protocol.messages import BookMessage, DataMessage


class BookArbitration[Key: Hashable, T](ChannelArbitration[Key, T]):
    """
    First copy wins for an order book of more than one level, whose updates are numbered.

    `is_broken` is also true from a skipped update until the next snapshot.

    Source: Bybit V5, WebSocket Stream, Public, Orderbook ("u": +1 per delta, as third parties measured; "seq":
    smaller is earlier).
    """

    def __init__(
        self,
        timing: ArbitrationTiming = DEFAULT_TIMING,
        *,
        received_s: Callable[[Key], float] = lambda line: float("inf"),
    ) -> None:
        super().__init__(timing, received_s=received_s)
        self._reached_u = 0
        self._reached_seq = 0
        # Frames after a missing update, by update id.
        self._deltas_ahead: dict[int, Offer[T]] = {}
        self._snapshots_ahead: dict[int, Offer[T]] = {}
        self._missing_since_s = 0.0
        self._brought_u: dict[Key, int] = {}

    def quickest(self) -> Key | None:
        """Return the joined line that is ahead: the snapshot of a line that lags would be old on arrival."""
        return max(self.joined, key=lambda line: self._brought_u.get(line, 0), default=None)

    def take_next(self, line: Key, message: DataMessage, now_s: float) -> bool:
        """Accept the delta with the next number if no frame and no line waits."""
        if type(message) is not BookMessage or message.type == "snapshot":
            return False
        data = message.data
        if data.u != self._reached_u + 1 or line not in self.joined or self._is_fresh or self.is_broken:
            return False
        if self._waiting or self._deltas_ahead or self._snapshots_ahead:
            return False
        self._brought_u[line] = self._reached_u = data.u
        self._reached_seq = data.seq
        self._last, self._last_s = message, now_s
        self._known.add(((data.u, data.seq),), message.ts)
        return True

    def tick(self, now_s: float) -> list[Offer[T]]:
        """Stop waiting for a skipped update that no line has brought in time."""
        if self._is_waiting() and now_s - self._missing_since_s > self._timing.skip_timeout_s:
            return self._skip_missing(now_s) + self._settle(now_s)
        return []

    def _begin(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self.is_broken = _book(offer).type == "delta"
        self._deltas_ahead.clear()
        self._snapshots_ahead.clear()
        self._brought_u.clear()
        return self._advance(offer, now_s)

    def _decide(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        book = _book(offer)
        data = book.data
        if book.type == "snapshot":
            return self._take_snapshot(line, offer, book, now_s)
        follows = data.u == self._reached_u + 1
        # After a restart of Bybit's service a line that lags still brings old updates with higher numbers.
        if not follows and (data.u <= self._reached_u or data.seq < self._reached_seq):
            if self._known.has_none_of(offer.identities) and self._is_renumbered(book):
                return self._continue_renumbered(offer, now_s)
            return self._drop(line, offer)
        self._brought_u[line] = data.u
        if not follows:
            self._wait(now_s)
            self._deltas_ahead.setdefault(data.u, offer)
            return self._settle(now_s)
        accepted = self._advance(offer, now_s)
        return accepted + self._settle(now_s) if self._is_waiting() else accepted

    def _is_in_front(self, line: Key) -> bool:
        return self._brought_u.get(line, 0) >= self._reached_u

    def _take_snapshot(self, line: Key, offer: Offer[T], book: BookMessage, now_s: float) -> list[Offer[T]]:
        data = book.data
        if not self._replaces(line, offer, book):
            self.copies += 1
            return []
        if data.u < self._reached_u:
            self._brought_u.clear()
        self._brought_u[line] = data.u
        if data.u <= self._reached_u or self._is_next(data.u):
            return self._replace(offer, now_s) + self._settle(now_s)
        # A line that lags may still bring the updates before the snapshot: they come first.
        self._wait(now_s)
        self._snapshots_ahead.setdefault(data.u, offer)
        return self._settle(now_s)

    def _is_next(self, snapshot_u: int) -> bool:
        # A snapshot that Bybit sends by itself takes a delta's number on all lines; a requested one comes on one line,
        # beside the deltas of the others.
        return snapshot_u == self._reached_u + 1 and not self.is_broken

    def _replaces(self, line: Key, offer: Offer[T], book: BookMessage) -> bool:
        u, seq = book.data.u, book.data.seq
        if (u, seq) == (self._reached_u, self._reached_seq):
            return self.is_broken
        if u == 1:  # Bybit's service was restarted and counts from 1 again (Orderbook, field "u").
            return not self._is_copy(line, offer)
        if self.is_broken and u > self._reached_u:
            return True
        if self._known.has_none_of(offer.identities) and self._is_renumbered(book):
            return True
        return (seq, u) > (self._reached_seq, self._reached_u)

    def _is_renumbered(self, book: BookMessage) -> bool:
        return self._last is not None and may_be_renumbered(book, self._last.ts)

    def _continue_renumbered(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        """Continue with a delta after a renumbering whose snapshot no line has brought."""
        self._deltas_ahead.clear()
        self._snapshots_ahead.clear()
        self._brought_u.clear()
        self.is_broken = True
        return self._advance(offer, now_s)

    def _replace(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        data = _book(offer).data
        self.is_broken = False
        for ahead in (self._deltas_ahead, self._snapshots_ahead):
            for u in [u for u, other in ahead.items() if u <= data.u or _book(other).data.seq < data.seq]:
                del ahead[u]
        return self._advance(offer, now_s)

    def _advance(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        data = _book(offer).data
        self._reached_u, self._reached_seq = data.u, data.seq
        self._deltas_ahead.pop(data.u, None)
        self._missing_since_s = now_s  # another update is missing from now on
        return self._accept(offer, now_s)

    def _is_waiting(self) -> bool:
        return bool(self._deltas_ahead or self._snapshots_ahead)

    def _wait(self, now_s: float) -> None:
        if not self._is_waiting():
            self._missing_since_s = now_s

    def _settle(self, now_s: float) -> list[Offer[T]]:
        """Accept frames that now follow, and skip an update that no line can bring any more."""
        accepted: list[Offer[T]] = []
        while self._is_waiting():
            next_u = self._reached_u + 1
            if snapshot := self._snapshots_ahead.pop(self._reached_u, None):
                accepted += self._replace(snapshot, now_s) if self.is_broken else self._repeated()
            elif delta := self._deltas_ahead.pop(next_u, None):
                accepted += self._advance(delta, now_s)
            elif (next_u in self._snapshots_ahead and self._is_next(next_u)) or self._have_all_brought(next_u):
                accepted += self._skip_missing(now_s)
            else:
                break
        return accepted

    def _repeated(self) -> list[Offer[T]]:
        self.copies += 1
        return []

    def _have_all_brought(self, update_id: int) -> bool:
        return all(self._brought_u.get(line, 0) >= update_id for line in self.joined)

    def _skip_missing(self, now_s: float) -> list[Offer[T]]:
        """Continue with the lowest waiting number."""
        lowest = min((*self._deltas_ahead, *self._snapshots_ahead))
        delta = self._deltas_ahead.pop(lowest, None)
        if delta is None:
            return self._replace(self._snapshots_ahead.pop(lowest), now_s)
        self.is_broken = True
        return self._advance(delta, now_s)

    def _line_removed(self, line: Key, now_s: float) -> list[Offer[T]]:
        self._brought_u.pop(line, None)
        return self._settle(now_s)


def _book[T](offer: Offer[T]) -> BookMessage:
    if not isinstance(offer.message, BookMessage):  # Cannot happen: decode() makes no other type for an order book.
        raise AssertionError(offer.message)
    return offer.message
