"""The feed that a frame belongs to: a channel of Bybit with its category."""

import msgspec

from hedgelock_ingest.translate.state import BookState, ChannelState, TickerState


class Feed(msgspec.Struct, gc=False):
    """
    A feed such as `linear:orderbook.50.BTCUSDT`, and what its records are made of; `key` is `linear:BTCUSDT`.

    The rest are parts of the state, which stand there under the feed's name, so that they need not be looked up; None
    as long as they are not in the state.
    """

    name: str
    category: str
    symbol: str
    key: bytes
    channel: ChannelState | None = None
    book: BookState | None = None
    ticker: TickerState | None = None


def category_of(origin: str) -> str:
    """Tell the category of where a frame came from, such as `linear` of `linear-a`."""
    return origin.partition("-")[0]


def feed_of(origin: str, topic: str) -> Feed:
    """Tell the feed of a frame from where it came from, such as `linear-a`, and from the topic in it."""
    category = category_of(origin)
    symbol = topic.rpartition(".")[2]
    return Feed(f"{category}:{topic}", category, symbol, f"{category}:{symbol}".encode())
