"""Market data: tickers, trades, order books, liquidations."""

from typing import Annotated, Literal

from pydantic import Field

from hedgelock_ingest.models.values import Category, Digits, Published, Side, Timestamp


class MarketData(Published):
    """
    A symbol's ticker with the current value of every field after this update: one record a ticker frame.

    A field that Bybit leaves empty or does not have for the category is null: `bid` and `ask` while their side of the
    book is empty, `price` and `volume_24h` before a contract's market opens. A `0` is published as Bybit sends it.

    Spot tickers carry no bid and ask; there they are the top of our order book at `quote_timestamp`, which is null
    where the ticker carries them itself. While the book has a gap, they are the last known ones, or null together with
    `quote_timestamp` if none are known. Until the first update of the book there is no record.

    While no line carries the ticker, there is a record a second with what REST reports, bid and ask of spot
    included: its `source` is `rest`, its `sequence` null, and its `timestamp` the time of the answer.

    Source: Bybit V5, WebSocket Stream, Public, Ticker; Market, Get Tickers.
    """

    timestamp: Timestamp
    symbol: str
    category: Category
    price: Digits | None
    volume_24h: Digits | None
    bid: Digits | None
    ask: Digits | None
    bid_size: Digits | None = None
    ask_size: Digits | None = None
    quote_timestamp: Timestamp | None = None
    mark_price: Digits | None = None
    index_price: Digits | None = None
    funding_rate: Digits | None = None
    next_funding_time: Timestamp | None = None
    funding_interval_hour: Digits | None = None
    funding_cap: Digits | None = None
    open_interest: Digits | None = None
    open_interest_value: Digits | None = None
    single_open_interest: Digits | None = None
    single_open_interest_value: Digits | None = None
    turnover_24h: Digits | None = None
    high_price_24h: Digits | None = None
    low_price_24h: Digits | None = None
    previous_price_24h: Digits | None = None
    previous_price_1h: Digits | None = None
    price_change_24h_ratio: Digits | None = None
    tick_direction: str | None = None
    usd_index_price: Digits | None = None
    pre_open_price: Digits | None = None
    pre_open_quantity: Digits | None = None
    pre_listing_phase: str | None = None
    delivery_time: str | None = None
    delivery_fee_rate: Digits | None = None
    predicted_delivery_price: Digits | None = None
    basis: Digits | None = None
    basis_rate: Digits | None = None
    basis_rate_year: Digits | None = None
    sequence: int | None = None


class Trade(Published):
    """
    One public trade; `side` is the taker's.

    Source: Bybit V5, WebSocket Stream, Public, Trade.
    """

    timestamp: Timestamp
    symbol: str
    category: Category
    trade_id: str
    price: Digits
    size: Digits
    side: Side
    tick_direction: str | None = None
    is_block_trade: bool | None = None
    is_rpi_trade: bool | None = None
    sequence: int | None = None
    healed: bool = False


Level = tuple[Digits, Digits]


class OrderBookUpdate(Published):
    """
    An order book's snapshot or delta as Bybit sent it, or our own full snapshot of it (`state`).

    In a delta a size of 0 deletes the level; any other size replaces it. `continuous` is false when an update is
    missing before this one: the book is unusable until the next snapshot. `matched_at` is the matching
    engine's time.

    Source: Bybit V5, WebSocket Stream, Public, Orderbook.
    """

    timestamp: Timestamp
    symbol: str
    category: Category
    type: Literal["snapshot", "delta", "state"]
    depth: int
    update_id: int
    sequence: int
    continuous: bool
    matched_at: Timestamp | None = None
    bids: list[Level]
    asks: list[Level]


class Liquidation(Published):
    """
    One liquidation; `side` is the side of the position (Buy: a long was liquidated), `price` its bankruptcy price.

    Source: Bybit V5, WebSocket Stream, Public, All Liquidation.
    """

    timestamp: Timestamp
    symbol: str
    category: Category
    side: Side
    price: Digits
    size: Annotated[Digits, Field(description="Executed size.")]
