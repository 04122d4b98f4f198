"""Merge ticker frames into the full ticker, under the published names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.arbitration import is_older_by_time, is_older_ticker
from hedgelock_ingest.protocol.channels import category_and_symbol
from hedgelock_ingest.protocol.messages import TickerMessage
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.protocol.rest_rows import UndecodableRow, rows_in
from hedgelock_ingest.protocol.ticker_fields import REQUIRED, TIMES
from hedgelock_ingest.translate.books import best_level
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.gaps import close_by_snapshot
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.state import BookState, ChannelState, Feed, TickerState

PUBLISHED_NAMES: Final[dict[str, str]] = {
    "lastPrice": "price",
    "volume24h": "volume_24h",
    "bid1Price": "bid",
    "ask1Price": "ask",
    "bid1Size": "bid_size",
    "ask1Size": "ask_size",
    "markPrice": "mark_price",
    "indexPrice": "index_price",
    "fundingRate": "funding_rate",
    "nextFundingTime": "next_funding_time",
    "fundingIntervalHour": "funding_interval_hour",
    "fundingCap": "funding_cap",
    "openInterest": "open_interest",
    "openInterestValue": "open_interest_value",
    "singleOpenInterest": "single_open_interest",
    "singleOpenInterestValue": "single_open_interest_value",
    "turnover24h": "turnover_24h",
    "highPrice24h": "high_price_24h",
    "lowPrice24h": "low_price_24h",
    "prevPrice24h": "previous_price_24h",
    "prevPrice1h": "previous_price_1h",
    "price24hPcnt": "price_change_24h_ratio",
    "tickDirection": "tick_direction",
    "usdIndexPrice": "usd_index_price",
    "preOpenPrice": "pre_open_price",
    "preQty": "pre_open_quantity",
    "curPreListingPhase": "pre_listing_phase",
    "deliveryTime": "delivery_time",
    "deliveryFeeRate": "delivery_fee_rate",
    "predictedDeliveryPrice": "predicted_delivery_price",
    "basis": "basis",
    "basisRate": "basis_rate",
    "basisRateYear": "basis_rate_year",
}
_EMPTY_TICKER: Final[dict[str, str | int | None]] = {
    "schema_version": 1,
    "source": "websocket",
    **dict.fromkeys(("trace_id", "timestamp", "symbol", "category")),
    **dict.fromkeys(PUBLISHED_NAMES.values()),
    **dict.fromkeys(("quote_timestamp", "sequence")),
}
QUOTE = ("bid", "bid_size", "ask", "ask_size", "quote_timestamp")
_REQUIRED_OF_SPOT: Final = ("lastPrice", "volume24h")


def published_fields(data: dict[str, object]) -> dict[str, str | int | None]:
    """Return a decoded ticker frame's fields under published names; `""` becomes None, unknown fields are skipped."""
    names = PUBLISHED_NAMES
    fields = {names[name]: value for name, value in data.items() if name in names}
    if "" in fields.values():
        fields = {name: value or None for name, value in fields.items()}
    for name in TIMES:
        if value := fields.get(names[name]):
            assert isinstance(value, str)  # decode() refuses every other type
            # Where a contract has no such time, REST reports 0 (Market, Get Tickers).
            fields[names[name]] = iso(int(value)) if value != "0" else None
    return fields  # type: ignore[return-value]


def is_known_ticker(ticker: TickerState, message: TickerMessage, received_ms: int) -> bool:
    """Return whether our ticker is as new as this frame, or newer; `received_ms` is when it was read."""
    if ticker.last is None:
        return False
    last_ms, last_sequence = ticker.last
    if message.ts == last_ms:
        return (message.cs or 0) <= (last_sequence or 0)
    is_older = is_older_ticker(message, last_ms, last_sequence)
    return is_older_by_time(message.ts, last_ms, received_ms - ticker.received_ms) if is_older is None else is_older


def take_ticker(
    builder: RecordBuilder,
    feed: Feed,
    channel: ChannelState,
    ticker: TickerState,
    books: Sequence[BookState],
    message: TickerMessage,
    counts: Counter[str],
    *,
    at_ms: int,
) -> None:
    """
    Merge one frame that is not a copy, and add a record once price, volume, bid and ask are all known.

    A value that Bybit leaves empty is known: there is none. A value that no frame has named is not.

    Args:
        builder: Receives the record.
        feed: The ticker's feed.
        channel: The state of its channel.
        ticker: Its state, which is changed in place.
        books: On spot, the order books of the symbol, the preferred one first; they are the source of bid and ask,
            which spot tickers do not have. While none of them is continuous, the last quote stays, or is null.
        message: The frame.
        counts: Counts a frame without a record.
        at_ms: The frame's time, or an estimate if that is wrong: a gap that it closes ends there.

    Raises:
        FrameError: A delta without the snapshot that it changes.
    """
    timestamp, changes = iso(message.ts), published_fields(message.data)
    is_spot = feed.category == "spot"
    if message.type == "snapshot":
        quote = {name: ticker.fields.get(name) for name in QUOTE} if is_spot else {}
        # Without a quote no record is published, so the gap stays open.
        if not is_spot or books or quote["quote_timestamp"] is not None:
            close_by_snapshot(builder, feed.name, channel, to_ms=at_ms, to_sequence=message.cs)
        ticker.fields = {**_EMPTY_TICKER, "symbol": feed.symbol, "category": feed.category, **quote}
        ticker.has_snapshot = True
        ticker.unknown = _unnamed(_REQUIRED_OF_SPOT if is_spot else REQUIRED, message.data)
    elif channel.gap_reason is not None or not ticker.has_snapshot:
        raise FrameError("a delta without the snapshot that it changes")
    elif ticker.unknown:
        ticker.unknown = _unnamed(ticker.unknown, message.data)
    fields = ticker.fields
    fields.update(changes)
    fields["timestamp"], fields["trace_id"], fields["sequence"] = timestamp, builder.trace_id, message.cs
    if channel.gap_reason is None:
        ticker.last, ticker.received_ms = (message.ts, message.cs), builder.frame.received_ns // 1_000_000
    book = next((book for book in books if book.continuous), None) if books else None
    if book is not None:
        _add_best(fields, book)
    if ticker.unknown or (is_spot and not books and fields["quote_timestamp"] is None):
        counts["tickers_incomplete"] += 1
    else:
        builder.add(Topic.MARKET_DATA, feed.key, fields, message.ts)


def take_ticker_answer(
    builder: RecordBuilder, answer: RestAnswer, channels: dict[str, ChannelState], counts: Counter[str]
) -> list[UndecodableRow]:
    """
    Add a record for the ticker that REST reports while no line carries its feed; the merged ticker stays as it is.

    An answer that is too late, or has no ticker, is counted.

    Returns:
        Rows that cannot be decoded, or are about another symbol.

    Raises:
        FrameError: The answer is malformed, or not about the ticker of a feed.
    """
    category, symbol = category_and_symbol(answer.feed)
    if category not in answer.results:
        raise FrameError("a ticker of an unknown feed")
    channel = channels.get(answer.feed)
    if channel is not None and channel.gap_reason is None:
        counts["ticker_answers_late"] += 1
        return []
    found = rows_in(answer)
    if not found.decoded and not found.undecodable:
        counts["ticker_answers_empty"] += 1
    for name, row in found.decoded:
        if row.get("symbol") != symbol:
            reason = "expected the symbol of the feed - at `$.symbol`"
            found.undecodable.append(UndecodableRow(name, msgspec.json.encode(row), reason))
            continue
        if row.get("deliveryTime") == "0":  # as above; the stream has no such field then
            row["deliveryTime"] = ""
        fields = _EMPTY_TICKER | published_fields(row) | {"source": "rest", "symbol": symbol, "category": category}
        fields |= {"timestamp": iso(answer.time_ms), "trace_id": builder.trace_id}
        builder.add(Topic.MARKET_DATA, f"{category}:{symbol}".encode(), fields, answer.time_ms)
    return found.undecodable


def _unnamed(names: Sequence[str], data: Mapping[str, object]) -> list[str]:
    return [name for name in names if name not in data]


def _add_best(fields: dict[str, str | int | None], book: BookState) -> None:
    bid, ask = best_level(book.bids, highest=True), best_level(book.asks, highest=False)
    fields["bid"], fields["bid_size"] = bid or (None, None)
    fields["ask"], fields["ask_size"] = ask or (None, None)
    fields["quote_timestamp"] = iso(book.at_ms)
