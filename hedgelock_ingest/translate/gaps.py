"""Holes of channels: when one opens and ends, and the `Gap` that is recorded once nothing more can be done."""

from typing import Literal

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.state import ChannelState, GapSpan

type Filled = Literal["yes", "partly", "no"]

STATES_BETWEEN = "the states in between"
"""What a new snapshot cannot bring back."""


def open_gap(channel: ChannelState, reason: str) -> None:
    """Remember that frames are missing after the last one; a hole that is open already keeps its reason."""
    if channel.gap_reason is None:
        channel.gap_reason = reason


def close_by_snapshot(
    builder: RecordBuilder, feed: str, channel: ChannelState, *, to_ms: int, to_sequence: int | None
) -> None:
    """Record the hole that a new snapshot ends, if there is one."""
    hole = _end(channel, to_ms, to_sequence)
    if hole is not None:
        record_gap(builder, feed, hole, healed="partly", healed_by="snapshot", missing=STATES_BETWEEN)


def close_gap(
    builder: RecordBuilder, feed: str, channel: ChannelState, *, to_ms: int, to_sequence: int | None, heals: bool
) -> None:
    """End the hole, if there is one: recorded at once, or kept until REST was asked to fill it."""
    hole = _end(channel, to_ms, to_sequence)
    if hole is None:
        return
    if heals:
        channel.unfilled.append(hole)
    else:
        record_gap(builder, feed, hole, healed="no", healed_by=None, missing="everything")


def record_gap(
    builder: RecordBuilder, feed: str, hole: GapSpan, *, healed: Filled, healed_by: str | None, missing: str | None
) -> None:
    """Add the `Gap` of a hole."""
    to = iso(hole.to_ms)
    value = {
        "schema_version": 1,
        "source": "collector",
        "trace_id": builder.trace_id,
        "timestamp": to,
        "feed": feed,
        "from": iso(hole.from_ms),
        "to": to,
        "from_sequence": hole.from_sequence,
        "to_sequence": hole.to_sequence,
        "healed": healed,
        "healed_by": healed_by,
        "missing": missing,
        "reason": hole.reason,
    }
    builder.add(Topic.INGEST_GAPS, feed.encode(), value, hole.to_ms)


def _end(channel: ChannelState, to_ms: int, to_sequence: int | None) -> GapSpan | None:
    if channel.gap_reason is None:
        return None
    to_ms = max(to_ms, channel.last_ms)
    hole = GapSpan(channel.last_ms, channel.last_sequence, to_ms, to_sequence, channel.gap_reason)
    channel.gap_reason = None
    return hole
