"""The feed of a frame: one of Bybit's channels with its category."""

import msgspec

from hedgelock_ingest.translate.state import BookState, ChannelState, TickerState


class Feed(msgspec.Struct, gc=False):
    """
    A feed such as `linear:orderbook.50.BTCUSDT` with references to its state; `key` is such as `linear:BTCUSDT`.

    `channel`, `book` and `ticker` refer to the entries that the state holds under the feed's name, which saves the
    lookup; None as long as the state has no such entry.
    """

    name: str
    category: str
    symbol: str
    key: bytes
    channel: ChannelState | None = None
    book: BookState | None = None
    ticker: TickerState | None = None


def category_of(origin: str) -> str:
    """Return the category of an origin, such as `linear` of `linear-a`."""
    return origin.partition("-")[0]


def feed_of(origin: str, topic: str) -> Feed:
    """Return the feed of a frame, given its origin, such as `linear-a`, and the topic in it."""
    category = category_of(origin)
    symbol = topic.rpartition(".")[2]
    return Feed(f"{category}:{topic}", category, symbol, f"{category}:{symbol}".encode())
