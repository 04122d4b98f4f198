"""Holes of channels: when one opens, and the `Gap` that is recorded when it ends."""

from typing import Literal

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.making import Making
from hedgelock_ingest.translate.state import ChannelState
from hedgelock_ingest.translate.text import iso

type Healed = Literal["yes", "partly", "no"]

SNAPSHOT = "snapshot"


def open_hole(channel: ChannelState, reason: str) -> None:
    """Remember that frames are missing after the last one; a hole that is open already keeps its reason."""
    if channel.hole is None:
        channel.hole = reason


def close_hole(
    making: Making,
    feed: str,
    channel: ChannelState,
    *,
    to_ms: int,
    to_sequence: int | None,
    healed: Healed,
) -> None:
    """Record the hole that ends here, if there is one; `partly` is the work of a new snapshot."""
    if channel.hole is None:
        return
    to = iso(max(to_ms, channel.last_ms))
    making.add(
        Topic.INGEST_GAPS,
        feed.encode(),
        {
            "schema_version": 1,
            "source": "collector",
            "trace_id": making.trace_id,
            "timestamp": to,
            "feed": feed,
            "from": iso(channel.last_ms),
            "to": to,
            "from_sequence": channel.last_sequence,
            "to_sequence": to_sequence,
            "healed": healed,
            "healed_by": SNAPSHOT if healed == "partly" else None,
            "reason": channel.hole,
        },
        to_ms,
    )
    channel.hole = None
