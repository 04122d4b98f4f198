"""Order books: continuity of updates, the state of the book, and our own full snapshots (`state` records)."""

from decimal import Decimal
from itertools import islice
from zlib import crc32

import msgspec

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.arbitration import may_be_renumbered
from hedgelock_ingest.protocol.messages import BookMessage, decode_levels
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.gaps import close_by_snapshot, open_gap
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.state import BookState, ChannelState, Feed

SKIPPED = "an update was skipped"
_encode = msgspec.json.Encoder().encode


class _OrderBookUpdate(msgspec.Struct, gc=False):
    """The fields of `OrderBookUpdate`, in their order."""

    schema_version: int
    source: str
    trace_id: str
    timestamp: str
    symbol: str
    category: str
    type: str
    depth: int
    update_id: int
    sequence: int
    continuous: bool
    matched_at: str | None
    bids: msgspec.Raw
    asks: msgspec.Raw


def new_book(topic: str) -> BookState:
    """Return an empty book for Bybit's topic `orderbook.{depth}.{symbol}`."""
    return BookState(depth=int(topic.split(".", 2)[1]))


def is_known_book(book: BookState, message: BookMessage) -> bool:
    """Return whether our book already holds the content of this frame, or something newer."""
    data = message.data
    if not book.continuous:
        return False
    if data.u < book.update_id and may_be_renumbered(message, book.at_ms):
        return False
    if message.type == "delta":
        return data.u <= book.update_id
    if data.u <= book.update_id and data.seq <= book.sequence:
        return True
    # After three seconds without change level 1 is sent again with the same "u" (Orderbook, "Linear & inverse").
    return book.depth == 1 and data.u == book.update_id and _is_same(book, message)


def take_book(
    builder: RecordBuilder,
    feed: Feed,
    channel: ChannelState,
    book: BookState,
    message: BookMessage,
    *,
    at_ms: int,
    state_depth: int,
    state_interval_ms: int,
) -> None:
    """
    Apply one frame that is not a copy, and add its records.

    Args:
        at_ms: The frame's time, or an estimate if that is wrong: a gap that it closes ends there.
    """
    data = message.data
    timestamp, matched_at = iso(message.ts), None if message.cts is None else iso(message.cts)
    bids, asks = decode_levels(data.b), decode_levels(data.a)
    if message.type == "snapshot":
        if _skips_updates(book, data.u):
            open_gap(channel, SKIPPED)
        close_by_snapshot(builder, feed.name, channel, to_ms=at_ms, to_sequence=data.u)
        book.bids, book.asks, book.continuous = dict(bids), dict(asks), True
    else:
        _track_continuity(channel, book, data.u)
        _apply(book.bids, bids)
        _apply(book.asks, asks)
    book.update_id, book.sequence, book.at_ms = data.u, data.seq, message.ts
    value = _OrderBookUpdate(
        1,
        "websocket",
        builder.trace_id,
        timestamp,
        data.s,
        feed.category,
        message.type,
        book.depth,
        data.u,
        data.seq,
        book.continuous,
        matched_at,
        data.b,
        data.a,
    )
    builder.add(Topic.MARKET_ORDER_BOOKS, feed.key, value, message.ts)
    if state_interval_ms and book.depth > 1 and book.continuous and _is_state_due(book, at_ms, state_interval_ms):
        book.next_state_ms = _next_state_ms(feed.name, at_ms, state_interval_ms)
        value.type = "state"
        value.bids = _raw(best(book.bids, state_depth, highest=True))
        value.asks = _raw(best(book.asks, state_depth, highest=False))
        builder.add(Topic.MARKET_ORDER_BOOKS, feed.key, value, message.ts)


def best(side: dict[str, str], levels: int, *, highest: bool) -> list[tuple[str, str]]:
    """Return the best levels of one side, best first."""
    by_float = dict(zip(map(float, side), side, strict=True))
    if len(by_float) == len(side):  # several times faster than by Decimal, and exact
        prices = [by_float[price] for price in sorted(by_float, reverse=highest)]
    else:
        prices = sorted(side, key=Decimal, reverse=highest)
    return [(price, side[price]) for price in prices[:levels]]


def best_level(side: dict[str, str], *, highest: bool) -> tuple[str, str] | None:
    """Return the best price of one side and its size; None when the side is empty."""
    if not side:
        return None
    pick = max if highest else min
    # Several times faster than by Decimal, and exact: Decimal decides only between prices that are equal as floats.
    prices = list(map(float, side))
    best_price = pick(prices)
    if prices.count(best_price) == 1:
        price = next(islice(side, prices.index(best_price), None))
    else:
        price = pick(side, key=Decimal)
    return price, side[price]


def _skips_updates(book: BookState, update_id: int) -> bool:
    # Update ids of level 1 are not consecutive, since not every update is sent. A lower id is a renumbering from any
    # value; 1 means that Bybit's service was restarted (Orderbook, field "u").
    is_lower = 1 < update_id < book.update_id
    return book.continuous and book.depth > 1 and (is_lower or update_id > book.update_id + 1)


def _is_same(book: BookState, message: BookMessage) -> bool:
    return dict(decode_levels(message.data.b)) == book.bids and dict(decode_levels(message.data.a)) == book.asks


def _track_continuity(channel: ChannelState, book: BookState, update_id: int) -> None:
    if book.continuous and update_id == book.update_id + 1:
        channel.gap_reason = None  # The ids are consecutive, so nothing is missing.
        return
    if book.continuous:
        open_gap(channel, SKIPPED)
    book.continuous = False


def _apply(side: dict[str, str], changes: list[tuple[str, str]]) -> None:
    for price, size in changes:
        # Bybit writes the size of a deleted level as "0" (Orderbook, "process snapshot and delta").
        if size[0] == "0" and not size.strip("0."):
            side.pop(price, None)
        else:
            side[price] = size


def _is_state_due(book: BookState, at_ms: int, interval_ms: int) -> bool:
    return not book.next_state_ms - interval_ms <= at_ms < book.next_state_ms


def _next_state_ms(feed: str, now_ms: int, interval_ms: int) -> int:
    """Return when the next full snapshot is due; each book has its own phase, so that not all are due at once."""
    phase_ms = crc32(feed.encode()) % interval_ms
    return now_ms - (now_ms - phase_ms) % interval_ms + interval_ms


def _raw(levels: list[tuple[str, str]]) -> msgspec.Raw:
    return msgspec.Raw(_encode(levels))
