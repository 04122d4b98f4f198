"""
The streams of a market in Bybit's own JSON, written by hand: one class for each kind of channel.

The order of keys is Bybit's: spot, and level 1 of both categories, put `ts` before `type`.
Source: Bybit V5, WebSocket public topics; recorded frames where those are newer than the documentation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from hedgelock_ingest.sandbox.exchange.book import BookView
from hedgelock_ingest.sandbox.exchange.market import Market, Trade
from hedgelock_ingest.sandbox.exchange.tickers import linear_fields, spot_fields

BOOK_DEPTHS = {1: 0.01, 50: 0.02, 200: 0.1, 1000: 0.2}
TRADES_IN_A_FRAME = 1_024

type Identity = int | tuple[int, ...] | tuple[int, str, str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """A frame's text and what its readers can know it by: a book's `u`, trade ids, a ticker's `cs`."""

    text: str
    identity: Identity


class Stream(ABC):
    """
    What one channel carries.

    `interval_s` is Bybit's push interval; for trades and liquidations the mean time between frames.
    """

    kind: str
    is_random: bool = False

    def __init__(self, category: str, channel: str, interval_s: float) -> None:
        self.category = category
        self.channel = channel
        self.interval_s = interval_s

    @abstractmethod
    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        """Let the market move on and say what there is to send; with `must` there is always something."""

    def snapshot(self, now_ms: int) -> Event | None:
        """Return what a new subscriber is sent first, if anything."""
        return None

    def repeat(self, now_ms: int) -> Event | None:
        """Return what is sent again for want of news, if anything."""
        return None


class BookStream(Stream):
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

    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        bids: list[tuple[int, int]] = []
        asks: list[tuple[int, int]] = []
        while not bids and not asks:
            self.market.evolve(self._changes)
            bids, asks = self.view.changes()
        self._count(now_ms, self.update_id + 1)
        return Event(self._text("delta", bids, asks, now_ms), self.update_id)

    def snapshot(self, now_ms: int) -> Event | None:
        if self.changed_ms == 0:
            self.changed_ms = now_ms - 2
        bids, asks = self.view.levels()
        return Event(self._text("snapshot", bids, asks, now_ms), self.update_id)

    def restart(self, now_ms: int) -> Event:
        """Begin anew with `u` 1, as after a restart of Bybit's service."""
        return self._anew(now_ms, 1)

    def start_over(self, now_ms: int) -> Event:
        """Send a snapshot amid the deltas, as Bybit does after trouble on its side."""
        return self._anew(now_ms, self.update_id + 1)

    def _anew(self, now_ms: int, update_id: int) -> Event:
        self.market.evolve(self._changes)
        self.view.changes()
        self._count(now_ms, update_id)
        bids, asks = self.view.levels()
        return Event(self._text("snapshot", bids, asks, now_ms), update_id)

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

    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        if must:
            self.market.touch_top()
        else:
            self.market.evolve(1)
        bids, asks = self.view.changes()
        if not bids and not asks:
            # A size that changed back leaves nothing to tell.
            return self.advance(now_ms, must=True) if must else self.repeat(now_ms)
        self._count(now_ms, self.update_id + 1)
        return self._sent(now_ms)

    def snapshot(self, now_ms: int) -> Event | None:
        self._sent_ms = self._sent_ms or now_ms
        return super().snapshot(now_ms)

    def repeat(self, now_ms: int) -> Event | None:
        return self._sent(now_ms) if now_ms - self._sent_ms >= self._repeat_ms else None

    def _sent(self, now_ms: int) -> Event:
        self._sent_ms = now_ms
        bids, asks = self.view.levels()
        return Event(self._text("snapshot", bids, asks, now_ms), self.update_id)

    def _head(self, kind: str, now_ms: int) -> str:
        return f'"ts":{now_ms},"type":"{kind}"'


class TradeStream(Stream):
    """`publicTrade`: the fills of one taker's order, at most 1,024 a frame."""

    kind = "trade"
    is_random = True

    def __init__(self, market: Market) -> None:
        super().__init__(market.instrument.category, f"publicTrade.{market.instrument.symbol}", 0.1)
        self.market = market
        self._row = _linear_trade if self.category == "linear" else _spot_trade

    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        chance = self.market.random.random()
        count = 1 if chance < 0.75 else 2 + int((chance - 0.75) * 12) if chance < 0.97 else 6 + int(chance * 1000) % 15
        return self.sweep(count, now_ms)[0]

    def sweep(self, count: int, now_ms: int) -> list[Event]:
        """Match one order with so many fills; more than 1,024 take several frames with one `seq`."""
        fills = self.market.trade(count, now_ms)
        frames = [fills[i : i + TRADES_IN_A_FRAME] for i in range(0, count, TRADES_IN_A_FRAME)]
        return [self._event(frame, now_ms) for frame in frames]

    def _event(self, fills: list[Trade], now_ms: int) -> Event:
        rows = ",".join([self._row(self.market, fill) for fill in fills])
        head = f'"type":"snapshot","ts":{now_ms}' if self.category == "linear" else f'"ts":{now_ms},"type":"snapshot"'
        return Event(f'{{"topic":"{self.channel}",{head},"data":[{rows}]}}', tuple([fill.number for fill in fills]))


class TickerStream(Stream):
    """`tickers`: on linear a snapshot, then only what changed; on spot snapshots, and no best bid or ask."""

    kind = "ticker"

    def __init__(self, market: Market) -> None:
        category = market.instrument.category
        is_linear = category == "linear"
        super().__init__(category, f"tickers.{market.instrument.symbol}", 0.1 if is_linear else 0.05)
        self.market = market
        self._fields: Callable[[Market, int], dict[str, str]] = linear_fields if is_linear else spot_fields
        self._known: dict[str, str] = {}
        self.seq = market.seq

    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        self.market.drift_interest()
        fields = self._fields(self.market, now_ms)
        known = self._known
        changed = {name: text for name, text in fields.items() if known.get(name) != text}
        self._known = fields
        self.seq = self.market.seq
        if self.category == "linear":
            return Event(self._linear_text("delta", {"symbol": fields["symbol"], **changed}, now_ms), self.seq)
        return Event(self._spot_text(now_ms), self.seq)

    def snapshot(self, now_ms: int) -> Event | None:
        if not self._known:
            self._known = self._fields(self.market, now_ms)
        text = (
            self._linear_text("snapshot", self._known, now_ms) if self.category == "linear" else self._spot_text(now_ms)
        )
        return Event(text, self.seq)

    def _linear_text(self, kind: str, fields: dict[str, str], now_ms: int) -> str:
        body = ",".join([f'"{name}":"{text}"' for name, text in fields.items()])
        return f'{{"topic":"{self.channel}","type":"{kind}","data":{{{body}}},"cs":{self.seq},"ts":{now_ms}}}'

    def _spot_text(self, now_ms: int) -> str:
        body = ",".join([f'"{name}":"{text}"' for name, text in self._known.items()])
        return f'{{"topic":"{self.channel}","ts":{now_ms},"type":"snapshot","cs":{self.seq},"data":{{{body}}}}}'


class LiquidationStream(Stream):
    """`allLiquidation`, on linear only: positions that were closed at their bankruptcy price."""

    kind = "liquidation"
    is_random = True

    def __init__(self, market: Market, *, per_s: float) -> None:
        interval_s = 1.0 / per_s if per_s > 0 else float("inf")
        super().__init__(market.instrument.category, f"allLiquidation.{market.instrument.symbol}", interval_s)
        self.market = market

    def advance(self, now_ms: int, *, must: bool) -> Event | None:
        market, instrument = self.market, self.market.instrument
        is_long = market.random.random() < 0.5
        bankrupt = market.book.best_bid + int(market.random.uniform(-0.01, 0.01) * market.book.best_bid)
        price = instrument.price(bankrupt)
        size = instrument.size(1 + int(market.random.expovariate(1.0) * instrument.usual_lots))
        matched_ms = now_ms - 200 - int(market.random.random() * 200)
        side = "Buy" if is_long else "Sell"
        row = f'{{"T":{matched_ms},"s":"{instrument.symbol}","S":"{side}","v":"{size}","p":"{price}"}}'
        text = f'{{"topic":"{self.channel}","type":"snapshot","ts":{now_ms},"data":[{row}]}}'
        return Event(text, (matched_ms, side, size, price))


def trade_id(category: str, number: int) -> str:
    """Write a trade's id: a UUID on linear, digits on spot."""
    if category == "spot":
        return str(number)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_TRUTH = {True: "true", False: "false"}


def _linear_trade(market: Market, fill: Trade) -> str:
    instrument = market.instrument
    return (
        f'{{"T":{fill.matched_ms},"s":"{instrument.symbol}","S":"{"Buy" if fill.is_buy else "Sell"}",'
        f'"v":"{instrument.size(fill.lots)}","p":"{instrument.price(fill.ticks)}","L":"{fill.tick_direction}",'
        f'"i":"{trade_id("linear", fill.number)}","BT":false,"RPI":{_TRUTH[fill.is_rpi]},"seq":{fill.seq}}}'
    )


def _spot_trade(market: Market, fill: Trade) -> str:
    instrument = market.instrument
    return (
        f'{{"i":"{fill.number}","T":{fill.matched_ms},"p":"{instrument.price(fill.ticks)}",'
        f'"v":"{instrument.size(fill.lots)}","S":"{"Buy" if fill.is_buy else "Sell"}","seq":{fill.seq},'
        f'"s":"{instrument.symbol}","BT":false,"RPI":{_TRUTH[fill.is_rpi]}}}'
    )
