"""A minimal market of one symbol in one category: a price, five levels a side, and their frames."""

from random import Random
from typing import Any, NamedTuple

from hedgelock_ingest.sandbox.exchange.market.channel_stream import trade_id

SYMBOL = "BTCUSDT"
LEVELS = 5
_REACH_TICKS = 7
_TRADES_KEPT = 1_000
_SEQUENCE_STEP = 40


class Written(NamedTuple):
    """A frame and the identities of its event, as in the sandbox's ledger."""

    raw: bytes
    identities: list[Any]


class MatchedTrade(NamedTuple):
    """One public trade, with its REST row."""

    matched_ms: int
    rest_row: str


class MemoryMarket:
    """
    The price and the counters shared by the channels of a category.

    `sequence` is Bybit's cross sequence: each event takes a greater one.
    """

    def __init__(self, category: str, random: Random) -> None:
        self.category = category
        self.is_linear = category == "linear"
        self.random = random
        self.mid = 618_740 if self.is_linear else 6_187_400
        self.last = self.mid
        self.sequence = random.randrange(10**10, 10**11)
        self.volume = 98_430_105
        self.interest = 58_117_022
        self.trades: list[MatchedTrade] = []

    def next_sequence(self) -> int:
        """Advance the cross sequence and return it."""
        self.sequence += 1 + int(self.random.random() * _SEQUENCE_STEP)
        return self.sequence

    def price(self, ticks: int) -> str:
        """Write a price."""
        return f"{ticks // 10}.{ticks % 10}0" if self.is_linear else f"{ticks // 100}.{ticks % 100:02d}"

    def size(self, lots: int) -> str:
        """Write a size."""
        return f"{lots // 1000}.{lots % 1000:03d}" if self.is_linear else f"{lots // 10**6}.{lots % 10**6:06d}"

    def ticker(self) -> dict[str, str]:
        """Return the ticker as REST reports it, with bid and ask for spot, too."""
        price = self.price
        return {
            "symbol": SYMBOL,
            "lastPrice": price(self.last),
            "volume24h": self.size(self.volume),
            "bid1Price": price(self.mid - 1),
            "bid1Size": self.size(1 + self.sequence % 977),
            "ask1Price": price(self.mid + 1),
            "ask1Size": self.size(1 + self.sequence % 991),
        }

    def head(self, kind: str, now_ms: int) -> str:
        """Write `type` and `ts` in the category's order."""
        return f'"type":"{kind}","ts":{now_ms}' if self.is_linear else f'"ts":{now_ms},"type":"{kind}"'


class MemoryTradeStream:
    """`publicTrade`: the fills of one taker's order, mostly one."""

    def __init__(self, market: MemoryMarket) -> None:
        self.market = market
        self.name = f"publicTrade.{SYMBOL}"
        self._number = market.random.randrange(1 << 60, 1 << 61)

    def snapshot(self, now_ms: int) -> bytes | None:
        """Nothing is sent first."""
        return None

    def advance(self, now_ms: int, wrong_ms: int = 0) -> Written:
        """Match one order; its times are ahead of the true ones by `wrong_ms`."""
        market = self.market
        random = market.random.random
        count = 1 if random() < 0.75 else 2 + int(random() * 2)
        sequence, side = market.next_sequence(), "Buy" if random() < 0.5 else "Sell"
        matched_ms, rows, identities = now_ms - 3, [], []
        dated_ms = matched_ms + wrong_ms
        for _ in range(count):
            self._number += 1
            lots = 1 + int(random() * 5_000)
            market.volume += lots
            market.last = market.mid + int(random() * 5) - 2
            identity = trade_id(market.category, self._number)
            identities.append(identity)
            price, size = market.price(market.last), market.size(lots)
            if market.is_linear:
                rows.append(
                    f'{{"T":{dated_ms},"s":"{SYMBOL}","S":"{side}","v":"{size}","p":"{price}","L":"PlusTick",'
                    f'"i":"{identity}","BT":false,"RPI":false,"seq":{sequence}}}'
                )
            else:
                rows.append(
                    f'{{"i":"{identity}","T":{dated_ms},"p":"{price}","v":"{size}","S":"{side}","seq":{sequence},'
                    f'"s":"{SYMBOL}","BT":false,"RPI":false}}'
                )
            market.trades.append(
                MatchedTrade(
                    matched_ms,
                    f'{{"execId":"{identity}","symbol":"{SYMBOL}","price":"{price}","size":"{size}","side":"{side}",'
                    f'"time":"{dated_ms}","isBlockTrade":false,"isRPITrade":false,"seq":"{sequence}"}}',
                )
            )
        del market.trades[:-_TRADES_KEPT]
        head = market.head("snapshot", now_ms + wrong_ms)
        text = f'{{"topic":"{self.name}",{head},"data":[{",".join(rows)}]}}'
        return Written(text.encode(), identities)


class MemoryLiquidationStream:
    """`allLiquidation`, on linear only."""

    def __init__(self, market: MemoryMarket) -> None:
        self.market = market
        self.name = f"allLiquidation.{SYMBOL}"

    def snapshot(self, now_ms: int) -> bytes | None:
        """Nothing is sent first."""
        return None

    def advance(self, now_ms: int, wrong_ms: int = 0) -> Written:
        """Liquidate one position, now and then two that look alike."""
        now_ms += wrong_ms
        market = self.market
        random = market.random.random
        matched_ms, side = now_ms - 200 - int(random() * 200), "Buy" if random() < 0.5 else "Sell"
        size, price = market.size(1 + int(random() * 900)), market.price(market.mid + int(random() * 100))
        row = f'{{"T":{matched_ms},"s":"{SYMBOL}","S":"{side}","v":"{size}","p":"{price}"}}'
        count = 2 if random() < 0.1 else 1
        text = f'{{"topic":"{self.name}","type":"snapshot","ts":{now_ms},"data":[{",".join([row] * count)}]}}'
        return Written(text.encode(), [[matched_ms, side, size, price] for _ in range(count)])


class MemoryTickerStream:
    """`tickers`: on linear a snapshot, then what changed; on spot snapshots without bid and ask."""

    def __init__(self, market: MemoryMarket) -> None:
        self.market = market
        self.name = f"tickers.{SYMBOL}"
        self._sequence = market.next_sequence()
        self._fields = self._read()

    def snapshot(self, now_ms: int) -> bytes:
        """Write what a new subscriber is sent: what the last event left, with the time and the sequence of now."""
        return self._text("snapshot", self._fields, now_ms, self.market.next_sequence())

    def advance(self, now_ms: int, wrong_ms: int = 0) -> Written:
        """Write what changed since the last event."""
        now_ms += wrong_ms
        before = self._move()
        if not self.market.is_linear:
            return Written(self._text("snapshot", self._fields, now_ms), [self._sequence])
        changed = {name: value for name, value in self._fields.items() if before[name] != value}
        return Written(self._text("delta", {"symbol": SYMBOL} | changed, now_ms), [self._sequence])

    def start_over(self, now_ms: int) -> Written:
        """Write a snapshot amid the deltas."""
        self._move()
        return Written(self._text("snapshot", self._fields, now_ms), [self._sequence])

    def _move(self) -> dict[str, str]:
        market, before = self.market, self._fields
        market.interest += int(market.random.random() * 100) - 50
        self._sequence = market.next_sequence()
        self._fields = self._read()
        return before

    def _read(self) -> dict[str, str]:
        market = self.market
        price, last = market.price, market.price(market.last)
        volume = market.size(market.volume)
        if not market.is_linear:
            return {
                "symbol": SYMBOL,
                "lastPrice": last,
                "highPrice24h": "62752.9",
                "lowPrice24h": "61000.1",
                "prevPrice24h": "62484.6",
                "volume24h": volume,
                "turnover24h": f"{market.volume * 3}.22907118",
                "price24hPcnt": "-0.0098",
                "usdIndexPrice": f"{last}00136",
            }
        return {
            "symbol": SYMBOL,
            "tickDirection": "PlusTick" if market.last > market.mid else "ZeroMinusTick",
            "price24hPcnt": "-0.009772",
            "lastPrice": last,
            "prevPrice24h": "62484.60",
            "highPrice24h": "62752.90",
            "lowPrice24h": "61000.10",
            "prevPrice1h": "61901.80",
            "markPrice": price(market.mid + 2),
            "indexPrice": price(market.mid + 3),
            "openInterest": market.size(market.interest),
            "openInterestValue": f"{market.interest * 61}.51",
            "turnover24h": f"{market.volume * 61}.8331",
            "volume24h": f"{volume}0",
            "fundingIntervalHour": "8",
            "fundingCap": "0.005",
            "nextFundingTime": "1715760000000",
            "fundingRate": "0.00008055",
            "bid1Price": price(market.mid - 1),
            "bid1Size": market.size(1 + market.sequence % 977),
            "ask1Price": price(market.mid + 1),
            "ask1Size": market.size(1 + market.sequence % 991),
            "preOpenPrice": "",
            "preQty": "",
            "curPreListingPhase": "",
        }

    def _text(self, kind: str, fields: dict[str, str], now_ms: int, sequence: int | None = None) -> bytes:
        body, cs = ",".join([f'"{name}":"{value}"' for name, value in fields.items()]), sequence or self._sequence
        if self.market.is_linear:
            text = f'{{"topic":"{self.name}","type":"{kind}","data":{{{body}}},"cs":{cs},"ts":{now_ms}}}'
        else:
            text = f'{{"topic":"{self.name}","ts":{now_ms},"type":"{kind}","cs":{cs},"data":{{{body}}}}}'
        return text.encode()


class MemoryBookStream:
    """`orderbook.50` with about five levels a side: a snapshot, then deltas whose `u` grows by one."""

    def __init__(self, market: MemoryMarket) -> None:
        self.market = market
        self.name = f"orderbook.50.{SYMBOL}"
        self._update = market.random.randrange(10**6, 10**8)
        self._sequence = market.next_sequence()
        self._matched_ms = 0
        self._bids = {market.mid - n: 1_000 + n for n in range(1, LEVELS + 1)}
        self._asks = {market.mid + n: 1_000 + n for n in range(1, LEVELS + 1)}
        self.was_restarted = False

    def snapshot(self, now_ms: int) -> bytes:
        """Write the current book."""
        bids, asks = sorted(self._bids.items(), reverse=True), sorted(self._asks.items())
        return self._text("snapshot", bids, asks, now_ms)

    def advance(self, now_ms: int, wrong_ms: int = 0) -> Written:
        """Change a few levels."""
        now_ms += wrong_ms
        bids, asks = self._move()
        self._count(self._update + 1, now_ms)
        return Written(self._text("delta", bids.items(), asks.items(), now_ms), [self._update])

    def start_over(self, now_ms: int) -> Written:
        """Write a snapshot amid the deltas, as Bybit does after trouble on its side."""
        return self._anew(self._update + 1, now_ms)

    def restart(self, now_ms: int) -> Written:
        """Begin with number 1 again, as after a restart of Bybit's service."""
        self.was_restarted = True
        return self._anew(1, now_ms)

    def _anew(self, update: int, now_ms: int) -> Written:
        self._move()
        self._count(update, now_ms)
        return Written(self.snapshot(now_ms), [update])

    def _count(self, update: int, now_ms: int) -> None:
        self._update, self._sequence, self._matched_ms = update, self.market.next_sequence(), now_ms - 2

    def _move(self) -> tuple[dict[int, int], dict[int, int]]:
        market = self.market
        random = market.random.random
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        if random() < 0.3:
            market.mid += 1 if random() < 0.5 else -1
            bids |= dict.fromkeys([ticks for ticks in self._bids if ticks >= market.mid], 0)
            asks |= dict.fromkeys([ticks for ticks in self._asks if ticks <= market.mid], 0)
        for side, changes, way in ((self._bids, bids, -1), (self._asks, asks, 1)):
            if len(side) - len(changes) > LEVELS:
                changes[max(side, key=lambda ticks: way * ticks)] = 0
            elif changes or random() < 0.7:
                changes[market.mid + way * (1 + int(random() * _REACH_TICKS))] = 1 + int(random() * 9_000)
        if not bids and not asks:
            bids[market.mid - 1] = 1 + int(random() * 9_000)
        for side, changes in ((self._bids, bids), (self._asks, asks)):
            for ticks, lots in changes.items():
                if lots:
                    side[ticks] = lots
                else:
                    side.pop(ticks, None)
        return bids, asks

    def _text(self, kind: str, bids: Any, asks: Any, now_ms: int) -> bytes:
        price, size = self.market.price, self.market.size
        b = ",".join([f'["{price(ticks)}","{size(lots) if lots else 0}"]' for ticks, lots in bids])
        a = ",".join([f'["{price(ticks)}","{size(lots) if lots else 0}"]' for ticks, lots in asks])
        return (
            f'{{"topic":"{self.name}",{self.market.head(kind, now_ms)},"data":{{"s":"{SYMBOL}","b":[{b}],"a":[{a}],'
            f'"u":{self._update},"seq":{self._sequence}}},"cts":{self._matched_ms}}}'
        ).encode()


type Stream = MemoryTradeStream | MemoryLiquidationStream | MemoryTickerStream | MemoryBookStream

_KINDS: dict[str, type[Stream]] = {
    "publicTrade": MemoryTradeStream,
    "allLiquidation": MemoryLiquidationStream,
    "tickers": MemoryTickerStream,
    "orderbook.50": MemoryBookStream,
}
WEIGHTS = {"publicTrade": 4.0, "allLiquidation": 0.8, "tickers": 3.0, "orderbook.50": 5.0}
"""How often each feed has an event, beside the others."""


def open_stream(market: MemoryMarket, feed: str) -> Stream:
    """Return the stream of a feed, such as `orderbook.50`."""
    return _KINDS[feed](market)
