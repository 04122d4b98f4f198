"""First copy wins for numbered frames: what one line skipped may come by another."""

from collections.abc import Hashable

from hedgelock_ingest.protocol.first_copy import FirstCopy, Offer
from hedgelock_ingest.protocol.wire import BookMessage

SKIP_PATIENCE_S = 0.5
"""How long a book update that does not follow waits for another line to bring the missing one."""


class FirstCopyOfBook[Key: Hashable, T](FirstCopy[Key, T]):
    """
    First copy wins for an order book of more than one level, whose updates are numbered.

    `is_broken` is true from a skipped update, too, until the next snapshot.

    Source: Bybit V5, WebSocket Stream, Public, Orderbook ("u": +1 per delta is what third parties measured; "seq":
    smaller is earlier).
    """

    def __init__(self) -> None:
        super().__init__()
        self._reached_u = 0
        self._reached_seq = 0
        self._ahead: dict[int, Offer[T]] = {}
        self._ahead_since_s = 0.0
        self._brought_u: dict[Key, int] = {}

    def tick(self, now_s: float) -> list[Offer[T]]:
        """Give up waiting for a skipped update that no line has brought in time."""
        if self._ahead and now_s - self._ahead_since_s > SKIP_PATIENCE_S:
            return self._give_up(now_s)
        return []

    def _begin(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self.is_broken = _book(offer).type == "delta"
        self._ahead.clear()
        self._brought_u.clear()
        return self._advance(offer, now_s)

    def _decide(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        book = _book(offer)
        data = book.data
        if book.type == "snapshot":
            return self._take_snapshot(line, offer, book, now_s)
        follows = data.u == self._reached_u + 1
        # After a restart of Bybit's service a slower line still brings higher numbers, of the past.
        if not follows and (data.u <= self._reached_u or data.seq < self._reached_seq):
            return self._pass_over(offer)
        self._brought_u[line] = data.u
        if follows or self.is_broken:
            return self._advance(offer, now_s)
        if not self._ahead:
            self._ahead_since_s = now_s
        self._ahead.setdefault(data.u, offer)
        return self._give_up_if_skipped_by_all(now_s)

    def _take_snapshot(self, line: Key, offer: Offer[T], book: BookMessage, now_s: float) -> list[Offer[T]]:
        data = book.data
        if not self._replaces(offer, book):
            self.copies += 1
            return []
        self.is_broken = False
        if data.u < self._reached_u:
            self._brought_u.clear()
        self._brought_u[line] = data.u
        ahead, self._ahead = self._ahead, {}
        for u, other in ahead.items():
            if u > data.u and _book(other).data.seq >= data.seq:
                self._ahead[u] = other
        return self._advance(offer, now_s)

    def _replaces(self, offer: Offer[T], book: BookMessage) -> bool:
        u, seq = book.data.u, book.data.seq
        if (u, seq) == (self._reached_u, self._reached_seq):
            return self.is_broken
        if u == 1:  # Bybit's service was restarted and counts from 1 again (Orderbook, field "u").
            return not self._is_copy(offer)
        if self.is_broken and u > self._reached_u:
            return True
        return (seq, u) > (self._reached_seq, self._reached_u)

    def _advance(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        data = _book(offer).data
        self._reached_u, self._reached_seq = data.u, data.seq
        self._ahead.pop(data.u, None)
        accepted = self._accept(offer, now_s)
        while follower := self._ahead.pop(self._reached_u + 1, None):
            accepted += self._advance(follower, now_s)
        self._ahead_since_s = now_s  # another update is the missing one now
        return accepted

    def _give_up_if_skipped_by_all(self, now_s: float) -> list[Offer[T]]:
        if self._ahead and all(self._brought_u.get(line, 0) > self._reached_u for line in self.joined):
            return self._give_up(now_s)
        return []

    def _give_up(self, now_s: float) -> list[Offer[T]]:
        self.is_broken = True
        accepted: list[Offer[T]] = []
        while self._ahead and self.is_broken:  # a line that joins meanwhile may bring a snapshot
            accepted += self._advance(self._ahead.pop(min(self._ahead)), now_s)
        return accepted

    def _line_gone(self, line: Key, now_s: float) -> list[Offer[T]]:
        self._brought_u.pop(line, None)
        return self._give_up_if_skipped_by_all(now_s)


def _book[T](offer: Offer[T]) -> BookMessage:
    if not isinstance(offer.message, BookMessage):  # Cannot happen: decode() makes no other type for an order book.
        raise AssertionError(offer.message)
    return offer.message
