"""
Trades, tickers and liquidations in Bybit's own JSON, written by hand.

The order of keys is that of recorded frames, which are newer than the documentation's examples.
Source: Bybit V5, Trade; Ticker; All Liquidation.
"""

from collections.abc import Callable

from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelEvent, ChannelStream, trade_id
from hedgelock_ingest.sandbox.exchange.market.market import Market, MarketTrade
from hedgelock_ingest.sandbox.exchange.market.tickers import linear_fields, spot_fields

TRADES_IN_A_FRAME = 1_024


class TradeStream(ChannelStream):
    """`publicTrade`: the fills of one taker's order, at most 1,024 a frame."""

    kind = "trade"
    is_random = True

    def __init__(self, market: Market) -> None:
        super().__init__(market.instrument.category, f"publicTrade.{market.instrument.symbol}", 0.1)
        self.market = market
        self._row = _linear_trade if self.category == "linear" else _spot_trade

    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        chance = self.market.random.random()
        count = 1 if chance < 0.75 else 2 + int((chance - 0.75) * 12) if chance < 0.97 else 6 + int(chance * 1000) % 15
        return self.sweep(count, now_ms)[0]

    def sweep(self, count: int, now_ms: int) -> list[ChannelEvent]:
        """Match one order with so many fills; more than 1,024 take several frames with one `seq`."""
        fills = self.market.trade(count, now_ms)
        frames = [fills[i : i + TRADES_IN_A_FRAME] for i in range(0, count, TRADES_IN_A_FRAME)]
        return [self._event(frame, now_ms) for frame in frames]

    def _event(self, fills: list[MarketTrade], now_ms: int) -> ChannelEvent:
        rows = ",".join([self._row(self.market, fill) for fill in fills])
        head = f'"type":"snapshot","ts":{now_ms}' if self.category == "linear" else f'"ts":{now_ms},"type":"snapshot"'
        return ChannelEvent(
            f'{{"topic":"{self.channel}",{head},"data":[{rows}]}}', tuple([fill.number for fill in fills])
        )


class TickerStream(ChannelStream):
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

    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        self.market.drift_interest()
        fields = self._fields(self.market, now_ms)
        known = self._known
        changed = {name: text for name, text in fields.items() if known.get(name) != text}
        self._known = fields
        self.seq = self.market.seq
        if self.category == "linear":
            return ChannelEvent(self._linear_text("delta", {"symbol": fields["symbol"], **changed}, now_ms), self.seq)
        return ChannelEvent(self._spot_text(now_ms), self.seq)

    def snapshot(self, now_ms: int) -> ChannelEvent | None:
        if not self._known:
            self._known = self._fields(self.market, now_ms)
        text = (
            self._linear_text("snapshot", self._known, now_ms) if self.category == "linear" else self._spot_text(now_ms)
        )
        return ChannelEvent(text, self.seq)

    def _linear_text(self, kind: str, fields: dict[str, str], now_ms: int) -> str:
        body = ",".join([f'"{name}":"{text}"' for name, text in fields.items()])
        return f'{{"topic":"{self.channel}","type":"{kind}","data":{{{body}}},"cs":{self.seq},"ts":{now_ms}}}'

    def _spot_text(self, now_ms: int) -> str:
        body = ",".join([f'"{name}":"{text}"' for name, text in self._known.items()])
        return f'{{"topic":"{self.channel}","ts":{now_ms},"type":"snapshot","cs":{self.seq},"data":{{{body}}}}}'


class LiquidationStream(ChannelStream):
    """`allLiquidation`, on linear only: positions that were closed at their bankruptcy price."""

    kind = "liquidation"
    is_random = True

    def __init__(self, market: Market, *, per_s: float) -> None:
        interval_s = 1.0 / per_s if per_s > 0 else float("inf")
        super().__init__(market.instrument.category, f"allLiquidation.{market.instrument.symbol}", interval_s)
        self.market = market

    def advance(self, now_ms: int, *, must: bool) -> ChannelEvent | None:
        market, instrument = self.market, self.market.instrument
        is_long = market.random.random() < 0.5
        bankrupt = market.book.best_bid + int(market.random.uniform(-0.01, 0.01) * market.book.best_bid)
        price = instrument.price(bankrupt)
        size = instrument.size(1 + int(market.random.expovariate(1.0) * instrument.usual_lots))
        matched_ms = now_ms - 200 - int(market.random.random() * 200)
        side = "Buy" if is_long else "Sell"
        row = f'{{"T":{matched_ms},"s":"{instrument.symbol}","S":"{side}","v":"{size}","p":"{price}"}}'
        text = f'{{"topic":"{self.channel}","type":"snapshot","ts":{now_ms},"data":[{row}]}}'
        return ChannelEvent(text, (matched_ms, side, size, price))


_TRUTH = {True: "true", False: "false"}


def _linear_trade(market: Market, fill: MarketTrade) -> str:
    instrument = market.instrument
    return (
        f'{{"T":{fill.matched_ms},"s":"{instrument.symbol}","S":"{"Buy" if fill.is_buy else "Sell"}",'
        f'"v":"{instrument.size(fill.lots)}","p":"{instrument.price(fill.ticks)}","L":"{fill.tick_direction}",'
        f'"i":"{trade_id("linear", fill.number)}","BT":false,"RPI":{_TRUTH[fill.is_rpi]},"seq":{fill.seq}}}'
    )


def _spot_trade(market: Market, fill: MarketTrade) -> str:
    instrument = market.instrument
    return (
        f'{{"i":"{fill.number}","T":{fill.matched_ms},"p":"{instrument.price(fill.ticks)}",'
        f'"v":"{instrument.size(fill.lots)}","S":"{"Buy" if fill.is_buy else "Sell"}","seq":{fill.seq},'
        f'"s":"{instrument.symbol}","BT":false,"RPI":{_TRUTH[fill.is_rpi]}}}'
    )
