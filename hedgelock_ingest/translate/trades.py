"""Trades and liquidations: one record a row, each published once."""

from collections import Counter

import msgspec

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.arbitration import liquidation_identities
from hedgelock_ingest.protocol.messages import LiquidationsMessage, TradesMessage
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.record_builder import RecordBuilder, Value
from hedgelock_ingest.translate.seen_ids import SeenIds
from hedgelock_ingest.translate.state import Feed


class _Trade(msgspec.Struct, gc=False):
    """The fields of `Trade`, in their order."""

    schema_version: int
    source: str
    trace_id: str
    timestamp: str
    symbol: str
    category: str
    trade_id: str
    price: str
    size: str
    side: str
    tick_direction: str | None
    is_block_trade: bool | None
    is_rpi_trade: bool | None
    sequence: int | None
    healed: bool


def take_trades(
    builder: RecordBuilder, feed: Feed, seen_ids: SeenIds, message: TradesMessage, counts: Counter[str]
) -> None:
    """Add the trades of one frame that were not published before."""
    for row in message.data:
        if row.i in seen_ids.known:
            counts["trades_known"] += 1
            continue
        seen_ids.add(row.i)
        value = _Trade(
            1,
            "websocket",
            builder.trace_id,
            iso(row.T),
            row.s,
            feed.category,
            row.i,
            row.p,
            row.v,
            row.S,
            row.L,
            row.BT,
            row.RPI,
            row.seq,
            False,
        )
        builder.add(Topic.MARKET_TRADES, feed.key, value, message.ts)


def take_liquidations(
    builder: RecordBuilder,
    feed: Feed,
    seen_ids: SeenIds,
    message: LiquidationsMessage,
    counts: Counter[str],
) -> None:
    """Add the liquidations of one frame that were not published before."""
    for row, values in zip(message.data, liquidation_identities(message), strict=True):
        identity = repr(values)
        if identity in seen_ids.known:
            counts["liquidations_known"] += 1
            continue
        seen_ids.add(identity)
        value: Value = {
            "schema_version": 1,
            "source": "websocket",
            "trace_id": builder.trace_id,
            "timestamp": iso(row.T),
            "symbol": row.s,
            "category": feed.category,
            "side": row.S,
            "price": row.p,
            "size": row.v,
        }
        builder.add(Topic.MARKET_LIQUIDATIONS, feed.key, value, message.ts)
