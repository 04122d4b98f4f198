"""Positions as they are published, and what counts as a change of one."""

from decimal import Decimal
from typing import Final

from hedgelock_ingest.protocol.decimals import exact
from hedgelock_ingest.protocol.private_messages import PositionRow
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.state import PositionFields

FLAT_SIDES: Final = ("", "None")

_TIMES = ("updated_at", "sequence")
_OF_THE_MARKET = ("mark_price", "unrealised_pnl")
_NULL_WHEN_FLAT = (
    "side",
    "entry_price",
    "mark_price",
    "position_value",
    "liquidation_price",
    "break_even_price",
    "take_profit",
    "stop_loss",
    "unrealised_pnl",
    "current_realised_pnl",
    "cumulative_realised_pnl",
)
_AMOUNTS = frozenset({"size", "leverage", *_NULL_WHEN_FLAT} - {"side"})


def published_position(category: str, row: PositionRow) -> PositionFields:
    """Return a position under the published names."""
    return {
        "category": category,
        "symbol": row.symbol,
        "position_index": row.positionIdx,
        "side": None if row.side in FLAT_SIDES else row.side,
        "size": row.size,
        # The field is entryPrice in the stream, avgPrice in REST (Position, Get Position Info).
        "entry_price": row.entryPrice or row.avgPrice or None,
        "mark_price": row.markPrice or None,
        "leverage": row.leverage or None,
        "position_value": row.positionValue or None,
        "liquidation_price": row.liqPrice or None,
        "break_even_price": row.breakEvenPrice or None,
        "take_profit": row.takeProfit or None,
        "stop_loss": row.stopLoss or None,
        "unrealised_pnl": row.unrealisedPnl or None,
        "current_realised_pnl": row.curRealisedPnl or None,
        "cumulative_realised_pnl": row.cumRealisedPnl or None,
        "status": row.positionStatus or None,
        "updated_at": iso(int(row.updatedTime)),
        "sequence": row.seq,
    }


def flattened(position: PositionFields, at_ms: int) -> PositionFields:
    """Return the flat form of a position that lists do not hold any more; its PnL is unknown."""
    return {**position, **dict.fromkeys(_NULL_WHEN_FLAT), "size": "0", "updated_at": iso(at_ms)}


def is_open(position: PositionFields) -> bool:
    """Return whether the position has a size."""
    return Decimal(str(position["size"])) != 0


def differs(before: PositionFields, after: PositionFields, *, is_newer: bool) -> bool:
    """
    Return whether a position has changed, whatever its time is.

    Amounts are compared as numbers, and zero equals null: for unset prices the stream has `0`, REST has `0.00` or
    nothing. Bybit repeats a position at every change of an order, under its old time and sequence, with the mark price
    of the moment; a repetition that differs only in that is no change, unless it `is_newer` by its time or sequence.
    """
    ignored = _TIMES if is_newer else (*_TIMES, *_OF_THE_MARKET)
    return any(_content(name, before[name]) != _content(name, after[name]) for name in after if name not in ignored)


def pnl_change(before: PositionFields, after: PositionFields) -> str | None:
    """Return the change of realised and unrealised PnL together; None if any of them is unknown."""
    values = [position[name] for position in (after, before) for name in ("cumulative_realised_pnl", "unrealised_pnl")]
    if any(value is None for value in values):
        return None
    realised, unrealised, realised_before, unrealised_before = (Decimal(str(value)) for value in values)
    with exact():
        return format(realised + unrealised - realised_before - unrealised_before, "f")


def _content(name: str, value: str | int | None) -> object:
    if name not in _AMOUNTS or value is None:
        return value
    return Decimal(str(value)) or None
