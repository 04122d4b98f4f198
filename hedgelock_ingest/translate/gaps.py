"""Holes of channels: when one opens and ends, and the `Gap` that is recorded once nothing more can be done."""

from typing import Literal

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.record_builder import Making
from hedgelock_ingest.translate.state import ChannelState, Hole

type Healed = Literal["yes", "partly", "no"]

STATES_BETWEEN = "the states in between"
"""What a new snapshot cannot bring back."""


def open_hole(channel: ChannelState, reason: str) -> None:
    """Remember that frames are missing after the last one; a hole that is open already keeps its reason."""
    if channel.hole is None:
        channel.hole = reason


def close_by_snapshot(making: Making, feed: str, channel: ChannelState, *, to_ms: int, to_sequence: int | None) -> None:
    """Record the hole that a new snapshot ends, if there is one."""
    hole = _end(channel, to_ms, to_sequence)
    if hole is not None:
        record_gap(making, feed, hole, healed="partly", healed_by="snapshot", missing=STATES_BETWEEN)


def end_hole(
    making: Making, feed: str, channel: ChannelState, *, to_ms: int, to_sequence: int | None, heals: bool
) -> None:
    """End the hole, if there is one: recorded at once, or kept until REST was asked to fill it."""
    hole = _end(channel, to_ms, to_sequence)
    if hole is None:
        return
    if heals:
        channel.healing.append(hole)
    else:
        record_gap(making, feed, hole, healed="no", healed_by=None, missing="everything")


def record_gap(
    making: Making, feed: str, hole: Hole, *, healed: Healed, healed_by: str | None, missing: str | None
) -> None:
    """Add the `Gap` of a hole."""
    to = iso(hole.to_ms)
    value = {
        "schema_version": 1,
        "source": "collector",
        "trace_id": making.trace_id,
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
    making.add(Topic.INGEST_GAPS, feed.encode(), value, hole.to_ms)


def _end(channel: ChannelState, to_ms: int, to_sequence: int | None) -> Hole | None:
    if channel.hole is None:
        return None
    to_ms = max(to_ms, channel.last_ms)
    hole = Hole(channel.last_ms, channel.last_sequence, to_ms, to_sequence, channel.hole)
    channel.hole = None
    return hole
