"""One market: the state of a symbol in one category, and the price path that it follows."""

from collections import deque
from dataclasses import dataclass
from random import Random

from hedgelock_ingest.sandbox.exchange.market.book import Book
from hedgelock_ingest.sandbox.exchange.market.instruments import Instrument

_TRADES_KEPT = 1_000
_FAR_GAPS = 20


class PricePath:
    """
    A geometric random walk, one for each symbol, so that spot and linear stay near each other.

    It moves by steps, never by the clock: the same seed and the same number of steps give the same price.
    """

    def __init__(self, start: float, *, volatility: float, random: Random) -> None:
        self.price = start
        self._floor = start * 0.2
        self._ceiling = start * 50
        self._step = volatility
        self._random = random

    def advance(self, steps: int = 1) -> float:
        """Make some steps and return the price."""
        move = self._random.gauss(0.0, self._step * steps**0.5)
        self.price = min(max(self.price * (1.0 + move), self._floor), self._ceiling)
        return self.price

    def jump_to(self, price: float) -> None:
        """Continue from another price; the books follow with their next change."""
        self.price = min(max(price, self._floor), self._ceiling)


@dataclass(frozen=True, slots=True)
class MarketTrade:
    """
    One trade; `number` is its id as an integer: 128 bits of a UUID on linear, the digits themselves on spot.
    """

    number: int
    matched_ms: int
    is_buy: bool
    ticks: int
    lots: int
    tick_direction: str
    seq: int
    is_rpi: bool


class Market:
    """
    The book, the tape and the figures of the day of one instrument.

    `seq` is the cross sequence: it grows with everything that happens, by more than one at a time.
    """

    def __init__(self, instrument: Instrument, path: PricePath, *, random: Random) -> None:
        self.instrument = instrument
        self.random = random
        self.seq = random.randrange(10_000_000_000, 20_000_000_000)
        self.book = Book(
            instrument.start_ticks, gap=instrument.level_gap, usual_lots=instrument.usual_lots, random=random
        )
        self.changed_count = 1
        self.tape: deque[MarketTrade] = deque(maxlen=_TRADES_KEPT)
        self._path = path
        self._next_trade = random.randrange(2_290_000_000_000_000_000, 2_290_000_001_000_000_000)
        start = instrument.start_ticks
        self.last_ticks = start
        self.tick_direction = "ZeroPlusTick"
        self.yesterday_ticks = int(start * random.uniform(0.97, 1.03))
        self.hour_ago_ticks = int(start * random.uniform(0.995, 1.005))
        self.high_ticks = int(max(start, self.yesterday_ticks) * 1.01)
        self.low_ticks = int(min(start, self.yesterday_ticks) * 0.99)
        self.volume = instrument.usual_lots * 200_000
        self.turnover = instrument.value(start, self.volume)
        self.open_interest = instrument.usual_lots * 150_000
        self.mark_ticks = start
        self.index_ticks = start

    def evolve(self, changes: int) -> None:
        """Change about so many levels of the book, following the price path."""
        self.seq += 1 + int(self.random.random() * 40)
        self.changed_count += 1
        book = self.book
        for _ in range(changes):
            if self.random.random() < 0.1:
                self._follow_path()
            else:
                book.change_a_level()

    def touch_top(self) -> None:
        """Change the best bid or ask."""
        self.evolve(1)
        self.book.change_the_top()

    def trade(self, count: int, now_ms: int) -> list[MarketTrade]:
        """
        Match one taker's order with `count` fills at the best prices, worst last.

        All fills share one `seq`, as Bybit's do.
        """
        self.seq += 1 + int(self.random.random() * 40)
        is_buy = self.random.random() < self._chance_of_up()
        is_rpi = self.random.random() < 0.02
        side = self.book.asks if is_buy else self.book.bids
        fills = []
        for _ in range(count):
            ticks = abs(side.keys[0])
            lots = min(side.sizes[side.keys[0]], 1 + int(self.random.expovariate(5.0) * self.instrument.usual_lots))
            self.book.take(side, lots)
            fills.append(self._fill(is_buy, ticks, lots, is_rpi=is_rpi, now_ms=now_ms))
        self.tape.extend(fills)
        return fills

    def drift_interest(self) -> None:
        """Change the figures that change without a trade: mark price, index price, open interest."""
        self.seq += 1 + int(self.random.random() * 40)
        self.open_interest += int(self.random.gauss(0, self.instrument.usual_lots)) or 1
        middle = self.book.best_bid
        self.mark_ticks = middle + int(self.random.gauss(0, self.instrument.level_gap))
        self.index_ticks = middle + int(self.random.gauss(0, 3 * self.instrument.level_gap))

    def _fill(self, is_buy: bool, ticks: int, lots: int, *, is_rpi: bool, now_ms: int) -> MarketTrade:
        if ticks != self.last_ticks:
            self.tick_direction = "PlusTick" if ticks > self.last_ticks else "MinusTick"
        elif not self.tick_direction.startswith("Zero"):
            self.tick_direction = "Zero" + self.tick_direction
        self.last_ticks = ticks
        self.high_ticks = max(self.high_ticks, ticks)
        self.low_ticks = min(self.low_ticks, ticks)
        self.volume += lots
        self.turnover += self.instrument.value(ticks, lots)
        return MarketTrade(
            number=self._trade_number(),
            matched_ms=now_ms - 1,
            is_buy=is_buy,
            ticks=ticks,
            lots=lots,
            tick_direction=self.tick_direction,
            seq=self.seq,
            is_rpi=is_rpi,
        )

    def _trade_number(self) -> int:
        if self.instrument.category == "linear":
            return self.random.getrandbits(128)
        self._next_trade += 1 + int(self.random.random() * 3)
        return self._next_trade

    def _follow_path(self) -> None:
        target = self._path.advance() / self.instrument.tick_size
        distance = int(target) - self.book.best_bid
        if abs(distance) > _FAR_GAPS * self.instrument.level_gap:
            self.book.shift(distance)
        elif self.random.random() < 0.5 + distance / (2 * _FAR_GAPS * self.instrument.level_gap):
            self.book.lift()
        else:
            self.book.lower()

    def _chance_of_up(self) -> float:
        distance = self._path.price / self.instrument.tick_size - self.book.best_bid
        return min(max(0.5 + distance / (2 * _FAR_GAPS * self.instrument.level_gap), 0.1), 0.9)
