"""Channels: Bybit's subscription strings, which ones we subscribe to, and on which lines."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hedgelock_ingest.errors import TooManyChannels
from hedgelock_ingest.protocol.frames import PRIVATE, Category
from hedgelock_ingest.protocol.private_messages import PRIVATE_CHANNELS

PUBLIC_FEEDS = re.compile(r"tickers|publicTrade|allLiquidation|orderbook\.(?:1|50|200|1000)")
"""The public feeds that we support. Source: Bybit V5, WebSocket Stream, Public."""

ARGUMENTS_LIMIT = 21_000
"""Characters of `args` on one public connection. Source: Bybit V5, Connect, "Public channel - Args limits"."""

_STATE_CHANNELS = ("tickers.", "orderbook.")
"""Prefixes of channels that send a state instead of events."""

_LINE_LETTERS = "ab"


class LinePlan(NamedTuple):
    """A line to open: its name, such as `linear-a2`, and what it carries; `category` may be `private`."""

    name: str
    category: str
    channels: tuple[str, ...]


def feed_name(category: str, channel: str) -> str:
    """Return the name of one channel of one category, as in gaps and dead letters: `linear:publicTrade.BTCUSDT`."""
    return f"{category}:{channel}"


def category_and_symbol(feed: str) -> tuple[str, str]:
    """Return the category and the symbol of a public feed, such as `linear` and `BTCUSDT`."""
    category, _, channel = feed.partition(":")
    return category, channel.rpartition(".")[2]


def is_trades_feed(feed: str) -> bool:
    """Return whether a feed consists of public trades, which REST lists as well."""
    return feed.partition(":")[2].startswith("publicTrade.")


def is_ticker_feed(feed: str) -> bool:
    """Return whether a feed is a ticker, which REST reports as well."""
    return feed.partition(":")[2].startswith("tickers.")


def is_steady(channel: str) -> bool:
    """Return whether the channel sends continuously, so that silence means it is stale; trades may pause."""
    return channel.startswith(_STATE_CHANNELS)


def starts_with_snapshot(channel: str) -> bool:
    """Return whether Bybit answers a subscription with the full state; other channels send only later events."""
    return channel.startswith(_STATE_CHANNELS)


def channels_for(category: Category, symbols: Iterable[str], feeds: Sequence[str]) -> tuple[str, ...]:
    """
    List the channels to subscribe to, all feeds of a symbol together, without duplicates.

    Spot has no liquidations. Spot tickers carry no bid and ask, so `orderbook.1` is added to them unless a deeper
    book is subscribed (Bybit V5, Ticker, Spot).

    Raises:
        ValueError: A feed is not one of `PUBLIC_FEEDS`.
    """
    unknown = [feed for feed in feeds if not PUBLIC_FEEDS.fullmatch(feed)]
    if unknown:
        raise ValueError(f"found feeds {', '.join(unknown)}, expected any of {PUBLIC_FEEDS.pattern}")
    wanted = [feed for feed in feeds if category is not Category.SPOT or feed != "allLiquidation"]
    has_book = any(feed.startswith("orderbook.") for feed in wanted)
    if category is Category.SPOT and "tickers" in wanted and not has_book:
        wanted.append("orderbook.1")
    channels = (f"{feed}.{symbol}" for symbol in symbols for feed in wanted)
    return tuple(dict.fromkeys(channels))


def split_over_connections(channels: Iterable[str], *, limit: int = ARGUMENTS_LIMIT) -> Iterator[tuple[str, ...]]:
    """
    Split channels, in order, into groups that one connection may carry.

    Raises:
        TooManyChannels: One channel alone exceeds the limit.
    """
    part: list[str] = []
    used = 1
    for channel in channels:
        # Counted as in JSON, with quotes, comma and brackets: whether Bybit counts those is not documented.
        size = len(channel) + 3
        if size >= limit:
            raise TooManyChannels(f"found a channel of {size} characters, expected at most {limit}")
        if used + size > limit:
            yield tuple(part)
            part, used = [], 1
        part.append(channel)
        used += size
    if part:
        yield tuple(part)


def plan_lines(category: Category, channels: Sequence[str], *, copies: int) -> list[LinePlan]:
    """
    Spread channels over lines, each channel on as many as there are copies: `linear-a`, `linear-a2`, `linear-b`, …

    Args:
        category: One connection carries one category.
        channels: Without duplicates; empty gives no line.
        copies: 1 or 2.
    """
    parts = list(split_over_connections(channels))
    return [
        LinePlan(f"{category}-{letter}{number if number > 1 else ''}", category, part)
        for letter in _LINE_LETTERS[:copies]
        for number, part in enumerate(parts, 1)
    ]


def plan_private_lines(*, copies: int) -> list[LinePlan]:
    """Plan the lines of the account: `private-a`, `private-b`; each carries everything."""
    return [LinePlan(f"{PRIVATE}-{letter}", PRIVATE, PRIVATE_CHANNELS) for letter in _LINE_LETTERS[:copies]]
