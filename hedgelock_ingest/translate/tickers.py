"""Merge ticker frames into the full ticker, under the published names."""

from typing import Final

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.arbitration import is_older_ticker
from hedgelock_ingest.protocol.channels import category_and_symbol
from hedgelock_ingest.protocol.messages import TickerMessage
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.protocol.rest_rows import UndecodableRow, rows_in
from hedgelock_ingest.protocol.ticker_fields import TIMES
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


def published_fields(data: dict[str, object]) -> dict[str, str | int | None]:
    """Return a decoded ticker frame's fields under published names; `""` becomes None, unknown fields are skipped."""
    names = PUBLISHED_NAMES
    fields = {names[name]: value for name, value in data.items() if name in names}
    if "" in fields.values():
        fields = {name: value or None for name, value in fields.items()}
    for name in TIMES:
        if value := fields.get(names[name]):
            assert isinstance(value, str)  # decode() refuses every other type
            fields[names[name]] = iso(int(value))
    return fields  # type: ignore[return-value]


def is_known_ticker(ticker: TickerState, message: TickerMessage) -> bool:
    """Return whether our ticker is as new as this frame, or newer."""
    if ticker.last is None:
        return False
    last_ms, last_sequence = ticker.last
    if message.ts == last_ms:
        return (message.cs or 0) <= (last_sequence or 0)
    return is_older_ticker(message, last_ms, last_sequence)


def take_ticker(
    builder: RecordBuilder,
    feed: Feed,
    channel: ChannelState,
    ticker: TickerState,
    book: BookState | None,
    message: TickerMessage,
    *,
    at_ms: int,
) -> None:
    """
    Merge one frame that is not a copy; add a record once price, volume, bid and ask are all known.

    Args:
        book: Source of bid and ask when the ticker has none, as on spot; None keeps the last ones.
        at_ms: The frame's time, or an estimate if that is wrong: a gap that it closes ends there.

    Raises:
        FrameError: A delta without the snapshot that it changes.
    """
    timestamp, changes = iso(message.ts), published_fields(message.data)
    if message.type == "snapshot":
        is_spot = feed.category == "spot"
        quote = {name: ticker.fields.get(name) for name in QUOTE} if is_spot else {}
        # Without a quote no record is published, so the gap stays open.
        if not is_spot or book is not None or quote["bid"] is not None:
            close_by_snapshot(builder, feed.name, channel, to_ms=at_ms, to_sequence=message.cs)
        ticker.fields = {**_EMPTY_TICKER, "symbol": feed.symbol, "category": feed.category, **quote}
        ticker.has_snapshot = True
    elif channel.gap_reason is not None or not ticker.has_snapshot:
        raise FrameError("a delta without the snapshot that it changes")
    fields = ticker.fields
    fields.update(changes)
    fields["timestamp"], fields["trace_id"], fields["sequence"] = timestamp, builder.trace_id, message.cs
    if channel.gap_reason is None:
        ticker.last = (message.ts, message.cs)
    if book is not None:
        _add_best(fields, book)
    if _is_publishable(fields):
        builder.add(Topic.MARKET_DATA, feed.key, fields, message.ts)


def take_ticker_answer(
    builder: RecordBuilder, answer: RestAnswer, channels: dict[str, ChannelState]
) -> list[UndecodableRow]:
    """
    Add a record for the ticker that REST reports while no line carries its feed; the merged ticker stays as it is.

    Returns:
        Rows that cannot be decoded.

    Raises:
        FrameError: The answer is malformed, or not about the ticker of a feed.
    """
    category, symbol = category_and_symbol(answer.feed)
    if category not in answer.results:
        raise FrameError("a ticker of an unknown feed")
    channel = channels.get(answer.feed)
    if channel is not None and channel.gap_reason is None:
        return []
    found = rows_in(answer)
    for _, row in found.decoded:
        # Where a contract has no such time, REST reports 0, the stream nothing (Market, Get Tickers).
        row |= {name: "" for name in ("nextFundingTime", "deliveryTime") if row.get(name) == "0"}
        fields = _EMPTY_TICKER | published_fields(row) | {"source": "rest", "symbol": symbol, "category": category}
        fields |= {"timestamp": iso(answer.time_ms), "trace_id": builder.trace_id}
        if row.get("symbol") == symbol and _is_publishable(fields):
            builder.add(Topic.MARKET_DATA, f"{category}:{symbol}".encode(), fields, answer.time_ms)
    return found.undecodable


def _is_publishable(fields: dict[str, str | int | None]) -> bool:
    return None not in (fields["price"], fields["volume_24h"], fields["bid"], fields["ask"])


def _add_best(fields: dict[str, str | int | None], book: BookState) -> None:
    bid, ask = best_level(book.bids, highest=True), best_level(book.asks, highest=False)
    fields["bid"], fields["bid_size"] = bid or (None, None)
    fields["ask"], fields["ask_size"] = ask or (None, None)
    fields["quote_timestamp"] = iso(book.at_ms)
