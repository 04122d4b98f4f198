"""Gaps of channels: open them, close them, and record each as a `Gap` once it is filled or cannot be."""

from typing import Literal

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.state import ChannelState, Coverage, GapSpan

type Filled = Literal["yes", "partly", "no"]

STATES_BETWEEN = "the states in between"
"""Value of `missing` for a gap closed by a snapshot."""


def open_gap(channel: ChannelState, reason: str) -> None:
    """Note that frames are missing after the last one; a gap that is open already keeps its reason."""
    if channel.gap_reason is None:
        channel.gap_reason = reason


def close_by_snapshot(
    builder: RecordBuilder, feed: str, channel: ChannelState, *, to_ms: int, to_sequence: int | None
) -> None:
    """Close the open gap, if any, by a new snapshot, and record it."""
    gap = _close(channel, to_ms, to_sequence)
    if gap is not None:
        record_gap(builder, feed, gap, healed="partly", healed_by="snapshot", missing=STATES_BETWEEN)


def close_gap(
    builder: RecordBuilder,
    feed: str,
    channel: ChannelState,
    *,
    to_ms: int,
    to_sequence: int | None,
    waits_for_rest: bool,
) -> None:
    """Close the open gap, if any; record it at once, or keep it until REST has been asked to fill it."""
    gap = _close(channel, to_ms, to_sequence)
    if gap is None:
        return
    if waits_for_rest:
        channel.unfilled.append(gap)
    else:
        record_gap(builder, feed, gap, healed="no", healed_by=None, missing="everything")


def record_gap(
    builder: RecordBuilder, feed: str, gap: GapSpan, *, healed: Filled, healed_by: str | None, missing: str | None
) -> None:
    """Add the `Gap` record of a closed gap."""
    to = iso(gap.to_ms)
    value = {
        "schema_version": 1,
        "source": "collector",
        "trace_id": builder.trace_id,
        "timestamp": to,
        "feed": feed,
        "from": iso(gap.from_ms),
        "to": to,
        "from_sequence": gap.from_sequence,
        "to_sequence": gap.to_sequence,
        "healed": healed,
        "healed_by": healed_by,
        "missing": missing,
        "reason": gap.reason,
    }
    builder.add(Topic.INGEST_GAPS, feed.encode(), value, gap.to_ms)


def _close(channel: ChannelState, to_ms: int, to_sequence: int | None) -> GapSpan | None:
    if channel.gap_reason is None:
        return None
    to_ms = max(to_ms, channel.last_ms)
    gap = GapSpan(channel.last_ms, channel.last_sequence, to_ms, to_sequence, channel.gap_reason, channel.coverage)
    channel.gap_reason, channel.coverage = None, Coverage()
    return gap
