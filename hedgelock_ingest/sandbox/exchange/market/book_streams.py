"""
Order books in Bybit's own JSON, written by hand.

Spot, and level 1 of both categories, put `ts` before `type`. Source: Bybit V5, Orderbook.
"""

from hedgelock_ingest.sandbox.exchange.market.book import BookView
from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelEvent, ChannelStream
from hedgelock_ingest.sandbox.exchange.market.market import Market

BOOK_DEPTHS = {1: 0.01, 50: 0.02, 200: 0.1, 1000: 0.2}


class BookStream(ChannelStream):
    """`orderbook.50`, `.200` and `.1000`: a snapshot, then deltas whose `u` grows by one."""

    kind = "book"

    def __init__(self, market: Market, depth: int, first_update: int) -> None:
        instrument = market.instrument
        super().__init__(instrument.category, f"orderbook.{depth}.{instrument.symbol}", BOOK_DEPTHS[depth])
        self.market = market
        self.view = BookView(market.book, depth)
        self.update_id = first_update
        self.seq = market.seq
        self.changed_ms = 0
        self._changes = max(2, int(self.interval_s * 100))

    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        bids: list[tuple[int, int]] = []
        asks: list[tuple[int, int]] = []
        while not bids and not asks:
            self.market.evolve(self._changes)
            bids, asks = self.view.changes()
        self._count(now_ms, self.update_id + 1)
        return ChannelEvent(self._text("delta", bids, asks, now_ms), self.update_id)

    def snapshot(self, now_ms: int) -> ChannelEvent | None:
        if self.changed_ms == 0:
            self.changed_ms = now_ms - 2
        bids, asks = self.view.levels()
        return ChannelEvent(self._text("snapshot", bids, asks, now_ms), self.update_id)

    def restart(self, now_ms: int) -> ChannelEvent:
        """Restart with `u` 1, as after a restart of Bybit's service."""
        return self._restarted(now_ms, 1)

    def start_over(self, now_ms: int) -> ChannelEvent:
        """Send a snapshot amid the deltas, as Bybit does after a problem on its side."""
        return self._restarted(now_ms, self.update_id + 1)

    def _restarted(self, now_ms: int, update_id: int) -> ChannelEvent:
        self.market.evolve(self._changes)
        self.view.changes()
        self._count(now_ms, update_id)
        bids, asks = self.view.levels()
        return ChannelEvent(self._text("snapshot", bids, asks, now_ms), update_id)

    def _count(self, now_ms: int, update_id: int) -> None:
        self.update_id = update_id
        self.seq = self.market.seq
        self.changed_ms = now_ms - 2

    def _text(self, kind: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]], now_ms: int) -> str:
        instrument = self.market.instrument
        price, size = instrument.price, instrument.size
        b = ",".join([f'["{price(ticks)}","{size(lots)}"]' for ticks, lots in bids])
        a = ",".join([f'["{price(ticks)}","{size(lots)}"]' for ticks, lots in asks])
        return (
            f'{{"topic":"{self.channel}",{self._head(kind, now_ms)},"data":{{"s":"{instrument.symbol}",'
            f'"b":[{b}],"a":[{a}],"u":{self.update_id},"seq":{self.seq}}},"cts":{self.changed_ms}}}'
        )

    def _head(self, kind: str, now_ms: int) -> str:
        if self.category == "linear":
            return f'"type":"{kind}","ts":{now_ms}'
        return f'"ts":{now_ms},"type":"{kind}"'


class TopStream(BookStream):
    """`orderbook.1`: snapshots only, sent again with the same `u` when nothing changes for a while."""

    def __init__(self, market: Market, first_update: int, *, repeat_s: float) -> None:
        super().__init__(market, 1, first_update)
        self._repeat_ms = int(repeat_s * 1000)
        self._sent_ms = 0

    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        if must:
            self.market.touch_top()
        else:
            self.market.evolve(1)
        bids, asks = self.view.changes()
        if not bids and not asks:
            # A size that changed back leaves nothing to send.
            return self.advance(now_ms, must=True) if must else self.repeat(now_ms)
        self._count(now_ms, self.update_id + 1)
        return self._sent(now_ms)

    def snapshot(self, now_ms: int) -> ChannelEvent | None:
        self._sent_ms = self._sent_ms or now_ms
        return super().snapshot(now_ms)

    def repeat(self, now_ms: int) -> ChannelEvent | None:
        return self._sent(now_ms) if now_ms - self._sent_ms >= self._repeat_ms else None

    def _sent(self, now_ms: int) -> ChannelEvent:
        self._sent_ms = now_ms
        bids, asks = self.view.levels()
        return ChannelEvent(self._text("snapshot", bids, asks, now_ms), self.update_id)

    def _head(self, kind: str, now_ms: int) -> str:
        return f'"ts":{now_ms},"type":"{kind}"'
