"""Trades and liquidations: one record a row, each once."""

from collections import Counter, OrderedDict

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.first_copy import liquidation_identities
from hedgelock_ingest.protocol.wire import LiquidationsMessage, TradesMessage
from hedgelock_ingest.translate.making import Making, Value
from hedgelock_ingest.translate.state import TRADES_REMEMBERED
from hedgelock_ingest.translate.text import iso

type Remembered = OrderedDict[str, None]
"""What was published, oldest first."""


def take_trades(
    making: Making, category: str, remembered: Remembered, message: TradesMessage, counts: Counter[str]
) -> None:
    """Add the trades of one frame that were not published before."""
    for row in message.data:
        if row.i in remembered:
            counts["trades_known"] += 1
            continue
        remember(remembered, row.i)
        value: Value = {
            "schema_version": 1,
            "source": "websocket",
            "trace_id": making.trace_id,
            "timestamp": iso(row.T),
            "symbol": row.s,
            "category": category,
            "trade_id": row.i,
            "price": row.p,
            "size": row.v,
            "side": row.S,
            "tick_direction": row.L,
            "is_block_trade": row.BT,
            "is_rpi_trade": row.RPI,
            "sequence": row.seq,
            "healed": False,
        }
        making.add(Topic.MARKET_TRADES, f"{category}:{row.s}".encode(), value, message.ts)


def take_liquidations(
    making: Making,
    category: str,
    remembered: Remembered,
    message: LiquidationsMessage,
    counts: Counter[str],
) -> None:
    """Add the liquidations of one frame that were not published before."""
    for row, name in zip(message.data, liquidation_identities(message), strict=True):
        identity = repr(name)
        if identity in remembered:
            counts["liquidations_known"] += 1
            continue
        remember(remembered, identity)
        value: Value = {
            "schema_version": 1,
            "source": "websocket",
            "trace_id": making.trace_id,
            "timestamp": iso(row.T),
            "symbol": row.s,
            "category": category,
            "side": row.S,
            "price": row.p,
            "size": row.v,
        }
        making.add(Topic.MARKET_LIQUIDATIONS, f"{category}:{row.s}".encode(), value, message.ts)


def remember(remembered: Remembered, identity: str) -> None:
    """Note that something is published; the oldest note is forgotten."""
    remembered[identity] = None
    if len(remembered) > TRADES_REMEMBERED:
        remembered.popitem(last=False)
