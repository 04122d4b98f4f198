"""Arbitration for tickers: the snapshot at the beginning of a line may show nothing new."""

from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal

from hedgelock_ingest.protocol.arbitration import DEFAULT_TIMING, ArbitrationTiming, ChannelArbitration, Offer
from hedgelock_ingest.protocol.messages import DataMessage, TickerMessage
from hedgelock_ingest.protocol.ticker_fields import ROLLING


class TickerArbitration[Key: Hashable, T](ChannelArbitration[Key, T]):
    """
    First copy wins for a ticker, whose frames are merged to compare the snapshot of a new line with.

    The cross sequence `cs` of a snapshot may be later although the ticker has not changed since: other channels use it,
    too.

    Source: Bybit V5, WebSocket Stream, Public, Ticker ("cs").
    """

    def __init__(
        self,
        timing: ArbitrationTiming = DEFAULT_TIMING,
        *,
        received_s: Callable[[Key], float] = lambda line: float("inf"),
    ) -> None:
        super().__init__(timing, received_s=received_s)
        self._fields: dict[str, object] = {}

    def repeats(self, line: Key, message: DataMessage) -> bool:
        """Return whether a line begins with a snapshot of the known ticker."""
        if not isinstance(message, TickerMessage) or message.type != "snapshot" or line in self._offered:
            return False
        return _lasting(message.data) == _lasting(self._fields) and not _shows_trades(self._fields, message.data)

    def take_next(self, line: Key, message: DataMessage, now_s: float) -> bool:
        """Accept one frame of a line on the fast path."""
        if not super().take_next(line, message, now_s):
            return False
        self._merge(message)
        return True

    def _offer(self, line: Key, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        is_usable = not (self._is_fresh or self.is_broken)
        if line in self._waiting and is_usable and self.repeats(line, offer.message):
            if self._has_last_sequence(offer.message):
                self.copies += 1
                return self._join(line, [], now_s)
            # Until this later sequence a change may have been undone: the line joins like one without frames.
            self._waiting[line].repeated = 1
        return super()._offer(line, offer, now_s)

    def _has_last_sequence(self, message: DataMessage) -> bool:
        last = self._last
        if not isinstance(message, TickerMessage) or not isinstance(last, TickerMessage):
            return False
        return message.cs is not None and message.cs == last.cs

    def _accept(self, offer: Offer[T], now_s: float) -> list[Offer[T]]:
        self._merge(offer.message)
        return super()._accept(offer, now_s)

    def _merge(self, message: DataMessage) -> None:
        if not isinstance(message, TickerMessage):  # Cannot happen: decode() makes no other type for a ticker.
            raise AssertionError(message)
        if message.type == "snapshot":
            self._fields = message.data.copy()
        else:
            self._fields.update(message.data)


def _lasting(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in ROLLING}


def _shows_trades(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Return whether the volume has grown, which only trades do; without trades it falls, as old ones leave the day."""
    known, volume = before.get("volume24h"), after.get("volume24h")
    if known == volume:
        return False
    if not isinstance(known, str) or not isinstance(volume, str) or not known or not volume:
        return True
    return Decimal(volume) > Decimal(known)
