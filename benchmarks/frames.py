"""
Frames to send: Bybit's spot and linear tickers, trades and order books, in their real shapes and sizes.

Each frame carries its number in Bybit's cross sequence field (`seq`, on tickers `cs`), which the product publishes as
`sequence`. So one search pattern finds it in a frame and in the record built from it.
"""

import re
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

SYMBOLS = tuple(
    f"{coin}USDT"
    for coin in (
        "BTC", "ETH", "SOL", "XRP", "DOGE", "BNB", "ADA", "SUI", "LINK", "AVAX",
        "LTC", "DOT", "NEAR", "APT", "ARB", "OP", "TON", "TRX", "UNI", "HYPE",
    )
)  # fmt: skip
CATEGORIES = ("spot", "linear")
FEEDS = ("tickers", "publicTrade", "orderbook.50")
CHANNELS = tuple(f"{feed}.{symbol}" for symbol in SYMBOLS for feed in FEEDS)

TOPIC_BY_FEED = {"tickers": "market-data", "publicTrade": "market-trades", "orderbook": "market-order-books"}

# Fourteen digits; no other number in a frame or a record begins with 7731.
_FIRST_SEQUENCE = 77_310_000_000_000
NUMBER = re.compile(rb":7731(\d{10})")
STATE = re.compile(rb'"type":"state"[^\[\]]*?:7731')  # our own full order books repeat the number of their last update
SEQUENCE_OF_SNAPSHOTS = 76_000_000_000_000

_FIRST_UPDATE = 20_000_000
_LEVELS = 50
_WEIGHTS = {
    ("linear", "orderbook"): 30, ("linear", "publicTrade"): 18, ("linear", "tickers"): 12,
    ("spot", "orderbook"): 20, ("spot", "publicTrade"): 14, ("spot", "tickers"): 6,
}  # fmt: skip
_TIMETABLE_FRAMES = 4_000
_SAMPLE_TIME_MS = 1_700_000_000_000

type FillTemplate = Callable[[bytes, int, int], bytes]


class _Template(NamedTuple):
    is_linear: bool
    text: bytes
    framed: bytes
    fill: FillTemplate


class Frames:
    """
    An endless, seeded sequence of frames, with headers of an unmasked WebSocket.

    Order books keep their depth, and their update ids are consecutive, so that no update is out of order.
    """

    def __init__(self, *, first_number: int = 0, seed: int = 7) -> None:
        self.next_number = first_number
        self._random = Random(seed)
        self._update_ids = dict.fromkeys(
            [f"{category}:{symbol}" for category in CATEGORIES for symbol in SYMBOLS],
            # A later part of the sequence starts above all ids that an earlier part can have used.
            _FIRST_UPDATE + first_number,
        )
        self._books = {name: _Book(self._random) for name in self._update_ids}
        self._timetable = [self._template() for _ in range(_TIMETABLE_FRAMES)]

    @property
    def mean_bytes(self) -> float:
        """Mean size of a frame without its WebSocket header."""
        return (
            sum(len(each.fill(each.text, _SAMPLE_TIME_MS, _FIRST_SEQUENCE)) for each in self._timetable)
            / _TIMETABLE_FRAMES
        )

    def snapshot(self, category: str, channel: str, ts_ms: int) -> bytes | None:
        """Return the first message of a channel, without a header and a number; None for trades."""
        feed, _, symbol = channel.rpartition(".")
        if feed == "tickers":
            return _ticker_snapshot(category, symbol, ts_ms)
        if feed == "orderbook.50":
            name = f"{category}:{symbol}"
            return self._books[name].snapshot(symbol, ts_ms, self._update_ids[name])
        return None

    def take(self, count: int, ts_ms: int) -> tuple[bytes, bytes]:
        """Return the next `count` frames: those of spot, those of linear, each with its WebSocket header."""
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        number, self.next_number = self.next_number, self.next_number + count
        for n in range(number, number + count):
            template = self._timetable[n % _TIMETABLE_FRAMES]
            parts[template.is_linear].append(template.fill(template.framed, ts_ms, _FIRST_SEQUENCE + n))
        return b"".join(parts[0]), b"".join(parts[1])

    def raw(self, count: int, ts_ms: int) -> Iterator[tuple[str, bytes]]:
        """Yield the next `count` frames without headers, each with its category."""
        number, self.next_number = self.next_number, self.next_number + count
        for n in range(number, number + count):
            template = self._timetable[n % _TIMETABLE_FRAMES]
            yield CATEGORIES[template.is_linear], template.fill(template.text, ts_ms, _FIRST_SEQUENCE + n)

    def _template(self) -> _Template:
        ((category, feed),) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        symbol = self._random.choice(SYMBOLS)
        fill: FillTemplate
        if feed == "orderbook":
            text, fill = self._books[f"{category}:{symbol}"].delta(symbol), self._fill_book(category, symbol)
        elif feed == "publicTrade":
            text, fill = _trade(symbol, self._random), _fill_trade
        else:
            text, fill = _ticker(category, symbol, self._random), _fill_ticker
        size = len(fill(text, _SAMPLE_TIME_MS, _FIRST_SEQUENCE))  # every number in a frame has a fixed width
        framed = websocket_header(size).replace(b"%", b"%%") + text
        return _Template(category == "linear", text, framed, fill)

    def _fill_book(self, category: str, symbol: str) -> FillTemplate:
        update_ids, name = self._update_ids, f"{category}:{symbol}"

        def fill(text: bytes, ts_ms: int, sequence: int) -> bytes:
            update_ids[name] = update_id = update_ids[name] + 1
            return text % (ts_ms, update_id, sequence, ts_ms)

        return fill


def websocket_header(size: int) -> bytes:
    """Return the header of a final, unmasked text frame (RFC 6455, 5.2)."""
    return b"\x81%c" % size if size < 126 else b"\x81\x7e" + size.to_bytes(2)


def websocket_frame(payload: bytes) -> bytes:
    """Return a payload with its WebSocket header."""
    return websocket_header(len(payload)) + payload


class _Book:
    """An order book with 50 fixed prices a side: deltas change sizes, delete a level and restore it."""

    def __init__(self, random: Random) -> None:
        self._random = random
        middle = random.randrange(1_000_000, 6_000_000)
        self._sides = [_prices(random, middle, step) for step in (-1, 1)]
        self._deleted = [0, 0]
        self._is_deleting = False

    def snapshot(self, symbol: str, ts_ms: int, update_id: int) -> bytes:
        sides = [",".join(self._level(price) for price in side).encode() for side in self._sides]
        return (
            _BOOK
            % (b"50.%b" % symbol.encode(), b"%d" % ts_ms, b"snapshot", symbol.encode(), *sides)
            % (
                update_id,
                SEQUENCE_OF_SNAPSHOTS + update_id,
                ts_ms,
            )
        )

    def delta(self, symbol: str) -> bytes:
        self._is_deleting = not self._is_deleting
        sides = [self._changes(number).encode() for number in (0, 1)]
        return _BOOK % (b"50.%b" % symbol.encode(), b"%d", b"delta", symbol.encode(), *sides)

    def _changes(self, number: int) -> str:
        prices = self._sides[number]
        changed = self._random.sample(range(_LEVELS - 1), self._random.randrange(1, 13))
        levels = [self._level(prices[index]) for index in sorted(changed)]
        if self._is_deleting:
            self._deleted[number] = self._random.randrange(_LEVELS)
            return ",".join([f'["{prices[self._deleted[number]]}","0"]', *levels])
        return ",".join([*levels, self._level(prices[self._deleted[number]])])

    def _level(self, price: str) -> str:
        return f'["{price}","{self._random.randrange(1, 9_999_999) / 1_000_000:f}"]'


_BOOK = b'{"topic":"orderbook.%b","ts":%b,"type":"%b","data":{"s":"%b","b":[%b],"a":[%b],"u":%%d,"seq":%%d},"cts":%%d}'


def _prices(random: Random, middle: int, step: int) -> list[str]:
    prices, price = [], middle
    for _ in range(_LEVELS):
        price += step * random.randrange(1, 40)
        prices.append(f"{price / 100:.2f}")
    return prices


def _trade(symbol: str, random: Random) -> bytes:
    price = random.randrange(100_000, 6_000_000) / 100
    return (
        f'{{"topic":"publicTrade.{symbol}","type":"snapshot","ts":%d,"data":[{{"T":%d,"s":"{symbol}",'
        f'"S":"{random.choice(("Buy", "Sell"))}","v":"{random.randrange(1, 99_999) / 1000:.3f}","p":"{price:.2f}",'
        f'"L":"{random.choice(("PlusTick", "ZeroMinusTick"))}","i":"20f43950-d8dd-5b31-9112-%012d","BT":false,'
        '"RPI":false,"seq":%d}]}'
    ).encode()


def _fill_trade(text: bytes, ts_ms: int, sequence: int) -> bytes:
    return text % (ts_ms, ts_ms, sequence - _FIRST_SEQUENCE, sequence)


def _fill_ticker(text: bytes, ts_ms: int, sequence: int) -> bytes:
    return text % (sequence, ts_ms)


def _ticker(category: str, symbol: str, random: Random) -> bytes:
    price = random.randrange(100_000, 6_000_000)
    if category == "spot":
        return _spot_ticker(symbol, price)
    fields = {
        "lastPrice": _cents(price),
        "markPrice": _cents(price + 3),
        "indexPrice": _cents(price + 8),
        "openInterestValue": _cents(359_599_422_327 + price),
        "turnover24h": _cents(607_373_901_783 + price),
        "bid1Price": _cents(price - 10),
        "bid1Size": f"{random.randrange(1, 99_999) / 1000:.3f}",
        "ask1Price": _cents(price + 10),
        "ask1Size": f"{random.randrange(1, 99_999) / 1000:.3f}",
    }
    # Bybit sends changed fields only: the last price or the top of the book, often not both.
    dropped = random.sample(list(fields), random.randrange(5))
    changed = ",".join(f'"{name}":"{text}"' for name, text in fields.items() if name not in dropped)
    return (
        f'{{"topic":"tickers.{symbol}","type":"delta","data":{{"symbol":"{symbol}",{changed}}},"cs":%d,"ts":%d}}'
    ).encode()


def _ticker_snapshot(category: str, symbol: str, ts_ms: int) -> bytes:
    if category == "spot":
        return _spot_ticker(symbol, 6_187_400) % (SEQUENCE_OF_SNAPSHOTS, ts_ms)
    return (
        f'{{"topic":"tickers.{symbol}","type":"snapshot","data":{{"symbol":"{symbol}","tickDirection":"ZeroPlusTick",'
        '"price24hPcnt":"-0.009772","lastPrice":"61874.00","prevPrice24h":"62484.60","highPrice24h":"62752.90",'
        '"lowPrice24h":"61000.10","prevPrice1h":"61901.80","markPrice":"61875.25","indexPrice":"61903.73",'
        '"openInterest":"58117.022","openInterestValue":"3596005265.51","turnover24h":"6073739017.8331",'
        '"volume24h":"98430.1050","nextFundingTime":"1715760000000","fundingRate":"0.00008055",'
        '"bid1Price":"61873.90","bid1Size":"3.783","ask1Price":"61874.00","ask1Size":"16.278"},'
        f'"cs":{SEQUENCE_OF_SNAPSHOTS},"ts":{ts_ms}}}'
    ).encode()


def _spot_ticker(symbol: str, price: int) -> bytes:
    return (
        f'{{"topic":"tickers.{symbol}","type":"snapshot","data":{{"symbol":"{symbol}","lastPrice":"{_cents(price)}",'
        f'"highPrice24h":"{_cents(price + 90_000)}","lowPrice24h":"{_cents(price - 90_000)}",'
        f'"prevPrice24h":"{_cents(price + 4_100)}","volume24h":"6780.866843",'
        '"turnover24h":"141946527.22907118","price24hPcnt":"0.0196",'
        f'"usdIndexPrice":"{_cents(price + 7)}"}},"cs":%d,"ts":%d}}'
    ).encode()


def _cents(cents: int) -> str:
    return f"{cents / 100:.2f}"
