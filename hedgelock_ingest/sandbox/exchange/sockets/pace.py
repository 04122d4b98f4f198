"""Schedule of each channel's events: Bybit's own pace, or a given number of frames a second."""

import heapq
from collections.abc import Iterator
from random import Random

from hedgelock_ingest.sandbox.exchange.market.book_streams import TopStream
from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelStream
from hedgelock_ingest.sandbox.exchange.market.channels import Channels, ExchangeChannel

_SHARES = {"book": 0.5, "trade": 0.3, "ticker": 0.2}
_MAX_CATCH_UP_S = 0.1
_ROUND = 1_000
_AT_ONCE = 64  # frames published between two writes, so that none waits for many others


class Pace:
    """
    Publishes the events that are due at each tick.

    `rate` is in frames a second over all channels; None is Bybit's pace. A late tick is caught up with, at most by
    0.1 s.
    """

    def __init__(self, channels: Channels, *, rate: float | None, random: Random) -> None:
        self._channels = channels
        self._random = random
        self._rate = rate
        self._due: list[tuple[float, int, ExchangeChannel]] = []
        self._round: list[ExchangeChannel] = []
        self._place = 0
        self._known = 0
        self._owed = 0.0
        self._last_s = 0.0
        self.is_paused = False

    @property
    def rate(self) -> float | None:
        """Frames a second, None for Bybit's pace."""
        return self._rate

    def change(self, rate: float | None, now_s: float) -> None:
        """Continue at another rate."""
        self._rate = rate
        self._known = 0
        self._owed = 0.0
        self._last_s = now_s

    def tick(self, now_s: float, now_ms: int) -> bool:
        """Publish what is due, and return whether more is due right after that is written."""
        if len(self._channels) != self._known:
            self._plan(now_s)
        elapsed_s = min(now_s - self._last_s, _MAX_CATCH_UP_S)
        self._last_s = now_s
        if self.is_paused:
            return False
        self._publish_due(now_s, now_ms)
        if not self._rate or not self._round:
            return False
        self._owed = min(self._owed + self._rate * elapsed_s, self._rate * _MAX_CATCH_UP_S + 1)
        self._publish_owed(now_ms)
        return self._owed >= _AT_ONCE

    def _publish_due(self, now_s: float, now_ms: int) -> None:
        due = self._due
        while due and due[0][0] <= now_s:
            due_s, order, channel = due[0]
            stream = channel.stream
            is_timed = self._rate is None or stream.kind == "liquidation"
            event = stream.advance(now_ms, must=False) if is_timed else stream.repeat(now_ms)
            if event is not None:
                channel.publish(event, now_ms)
            heapq.heapreplace(due, (max(due_s, now_s - _MAX_CATCH_UP_S) + self._wait_s(channel), order, channel))

    def _publish_owed(self, now_ms: int) -> None:
        count = min(int(self._owed), _AT_ONCE)
        self._owed -= count
        for _ in range(count):
            channel = self._round[self._place]
            self._place = (self._place + 1) % len(self._round)
            event = channel.stream.advance(now_ms, must=True)
            if event is not None:
                channel.publish(event, now_ms)

    def _wait_s(self, channel: ExchangeChannel) -> float:
        stream = channel.stream
        if stream.is_random:
            return self._random.expovariate(1.0 / stream.interval_s)
        return stream.interval_s if self._rate is None else 0.1

    def _plan(self, now_s: float) -> None:
        timed = [channel for channel in self._channels if self._is_timed(channel.stream)]
        planned = {channel: due_s for due_s, _, channel in self._due}
        self._due = [
            (planned.get(channel, now_s + self._wait_s(channel)), order, channel) for order, channel in enumerate(timed)
        ]
        heapq.heapify(self._due)
        self._round = list(_spread([c for c in self._channels if c.stream.kind in _SHARES]))
        self._place = 0
        self._known = len(self._channels)

    def _is_timed(self, stream: ChannelStream) -> bool:
        if stream.interval_s == float("inf"):
            return False
        if stream.kind == "liquidation":
            return self._rate != 0
        return self._rate is None or isinstance(stream, TopStream)


def _spread(channels: list[ExchangeChannel]) -> Iterator[ExchangeChannel]:
    """Yield a round in which each channel appears as often as its share says, evenly spread."""
    if not channels:
        return
    kinds = [channel.stream.kind for channel in channels]
    total = sum(_SHARES[kind] for kind in set(kinds))
    weights = [_SHARES[kind] / kinds.count(kind) / total for kind in kinds]
    credits_ = [0.0] * len(channels)
    for _ in range(_ROUND):
        credits_ = [credit + weight for credit, weight in zip(credits_, weights, strict=True)]
        chosen = max(range(len(channels)), key=credits_.__getitem__)
        credits_[chosen] -= 1.0
        yield channels[chosen]
