"""The channels of the exchange: one shared stream each, sent to all its subscribers in the same bytes."""

from collections.abc import Iterator
from random import Random

from hedgelock_ingest.sandbox.exchange.ledger import ChannelLedger, Ledger, LineDelivery
from hedgelock_ingest.sandbox.exchange.market.book_streams import BOOK_DEPTHS, BookStream, TopStream
from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelEvent, ChannelStream
from hedgelock_ingest.sandbox.exchange.market.instruments import instrument_for
from hedgelock_ingest.sandbox.exchange.market.market import Market, PricePath
from hedgelock_ingest.sandbox.exchange.market.market_streams import LiquidationStream, TickerStream, TradeStream
from hedgelock_ingest.sandbox.exchange.recording import RecordedStream
from hedgelock_ingest.sandbox.exchange.scenario import Scenario
from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection, websocket_frame


class ExchangeChannel:
    """
    One channel, its subscribers and its ledger.

    It exists from the first subscription on. `skips` counts the coming events that are sent to no line, `skips_of`
    those not sent to one line; `doubles` sends each event twice; `extra_fields` counts the coming events that get
    unknown fields. While it `is_withheld`, its symbol is not trading, and there are no events.
    """

    def __init__(self, stream: ChannelStream, ledger: ChannelLedger) -> None:
        self.stream = stream
        self.ledger = ledger
        self.category = stream.category
        self.name = stream.channel
        self.subscribers: dict[ExchangeConnection, LineDelivery] = {}
        self.skips = 0
        self.skips_of: dict[ExchangeConnection, int] = {}
        self.doubles = False
        self.extra_fields = 0
        self.is_withheld = False
        self.last_text = ""

    def publish(self, event: ChannelEvent, now_ms: int) -> None:
        """Send an event to all subscribers and record it in the ledger."""
        if self.is_withheld:
            return
        number = self.ledger.next_number
        self.ledger.add(now_ms, event.identity)
        if self.skips:
            self.skips -= 1
            return
        text = self.last_text = event.text
        if self.extra_fields:
            self.extra_fields -= 1
            text = f'{text[:-1]},"madeUpField":{{"depth":[1,2]}},"anotherOne":""}}'
        frame = websocket_frame(text.encode())
        for connection, delivery in self.subscribers.items():
            if self.skips_of and self._skips(connection):
                continue
            connection.send_event(frame, delivery, number)
            if self.doubles and not connection.is_silent:
                connection.send_frame(frame)

    def subscribe(self, connection: ExchangeConnection) -> None:
        """Send the events from now on to a line."""
        delivery = LineDelivery(self.name)
        self.subscribers[connection] = delivery
        connection.deliveries[self.name] = delivery

    def unsubscribe(self, connection: ExchangeConnection) -> None:
        """Send no more to a line."""
        if self.subscribers.pop(connection, None) is not None:
            connection.past_deliveries.append(connection.deliveries.pop(self.name))

    def _skips(self, connection: ExchangeConnection) -> bool:
        left = self.skips_of.get(connection, 0)
        if left > 1:
            self.skips_of[connection] = left - 1
        elif left:
            del self.skips_of[connection]
        return left > 0


class Channels:
    """
    All markets with their status, and the channels that were ever subscribed to.

    A symbol that is not `Trading` sends nothing; one that is `Closed` cannot be subscribed to.
    """

    def __init__(self, scenario: Scenario, ledger: Ledger) -> None:
        self._scenario = scenario
        self._ledger = ledger
        self._live: dict[tuple[str, str], ExchangeChannel] = {}
        self.paths: dict[str, PricePath] = {}
        self.markets: dict[tuple[str, str], Market] = {}
        self._statuses: dict[tuple[str, str], str] = {}
        for category, symbols in (("spot", scenario.spot_symbols), ("linear", scenario.linear_symbols)):
            for symbol in symbols:
                self.markets[category, symbol] = self._new_market(category, symbol)

    def __iter__(self) -> Iterator[ExchangeChannel]:
        return iter(self._live.values())

    def __len__(self) -> int:
        return len(self._live)

    def live(self, category: str, name: str) -> ExchangeChannel | None:
        """Return a channel that was subscribed to before, or None."""
        return self._live.get((category, name))

    def knows(self, category: str, name: str) -> bool:
        """Return whether a channel can be subscribed to."""
        if self.status(category, _symbol_in(name)) == "Closed":
            return False
        return (category, name) in self._live or self._kind_and_market(category, name) is not None

    def open(self, category: str, name: str) -> ExchangeChannel:
        """Return a known channel; start it at its first subscription."""
        channel = self._live.get((category, name))
        if channel is None:
            channel = ExchangeChannel(self._new_stream(category, name), self._ledger.open(category, name))
            channel.is_withheld = self.status(category, _symbol_in(name)) != "Trading"
            self._live[category, name] = channel
        return channel

    def status(self, category: str, symbol: str) -> str:
        """Return the status of a symbol, whether there is a market for it or not."""
        return self._statuses.get((category, symbol), "Trading")

    def set_status(self, category: str, symbol: str, status: str) -> None:
        """Change the status of a symbol."""
        self._statuses[category, symbol] = status
        for channel in self:
            if (channel.category, _symbol_in(channel.name)) == (category, symbol):
                channel.is_withheld = status != "Trading"

    def open_recorded(self, category: str, name: str) -> ExchangeChannel:
        """Return a channel for recorded frames; one that was not started yet sends nothing else."""
        channel = self._live.get((category, name))
        if channel is None:
            channel = ExchangeChannel(RecordedStream(category, name), self._ledger.open(category, name))
            self._live[category, name] = channel
        return channel

    def _kind_and_market(self, category: str, name: str) -> tuple[str, Market] | None:
        kind, _, symbol = name.rpartition(".")
        market = self.markets.get((category, symbol))
        books = [f"orderbook.{depth}" for depth in BOOK_DEPTHS]
        if market is None or kind not in [*books, "publicTrade", "tickers", "allLiquidation"]:
            return None
        return None if kind == "allLiquidation" and category != "linear" else (kind, market)

    def _new_stream(self, category: str, name: str) -> ChannelStream:
        found = self._kind_and_market(category, name)
        if found is None:
            raise AssertionError(f"channel {name} of {category} was not checked before")
        kind, market = found
        match kind:
            case "publicTrade":
                return TradeStream(market)
            case "tickers":
                return TickerStream(market)
            case "allLiquidation":
                return LiquidationStream(market, per_s=self._scenario.liquidations_per_s)
        depth = int(kind.removeprefix("orderbook."))
        first_update = Random(f"{self._scenario.seed}:{category}:{name}").randrange(1_000_000, 200_000_000)
        if depth == 1:
            return TopStream(market, first_update, repeat_s=self._scenario.level1_repeat_s)
        return BookStream(market, depth, first_update)

    def _new_market(self, category: str, symbol: str) -> Market:
        seed = self._scenario.seed
        instrument = instrument_for(category, symbol)
        if symbol not in self.paths:
            self.paths[symbol] = PricePath(
                instrument.start_ticks * instrument.tick_size,
                volatility=self._scenario.volatility,
                random=Random(f"{seed}:{symbol}"),
            )
        return Market(instrument, self.paths[symbol], random=Random(f"{seed}:{category}:{symbol}"))


def _symbol_in(channel: str) -> str:
    return channel.rpartition(".")[2]
