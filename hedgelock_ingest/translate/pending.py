"""Backlog of a stream, computed from its saved state: a backfill leaves it out, since the stream will publish it."""

from dataclasses import dataclass

from hedgelock_ingest.translate.state import State


@dataclass(frozen=True, slots=True)
class Pending:
    """
    Backlog of one feed: all events from `from_ms` on, and those in gaps that wait for REST.

    Times are Bybit's, in milliseconds; `from_ms` is None where nothing is pending. `gaps` are (begin, end), inclusive.
    """

    from_ms: int | None = None
    gaps: tuple[tuple[int, int], ...] = ()

    def holds(self, at_ms: int) -> bool:
        """Return whether the stream itself will publish the events of this time."""
        if self.from_ms is not None and at_ms >= self.from_ms:
            return True
        return any(begin <= at_ms <= end for begin, end in self.gaps)


NOTHING = Pending()


def pending_of(feed: str, state: State, *, next_frame_ms: int | None, overlap_ms: int) -> Pending:
    """
    Compute the backlog of a feed.

    Events after the channel's last frame either are in frames that are not published yet, or in a gap that the stream
    fills as soon as it can.

    Args:
        feed: Such as `linear:publicTrade.BTCUSDT`.
        state: Saved; Kafka has acknowledged everything that it covers.
        next_frame_ms: When the first frame after the state was read; None if there is none.
        overlap_ms: How far before the last known event the stream asks REST.
    """
    channel = state.channels.get(feed)
    if channel is None:  # no frame of it yet in the state, but later frames may be journalled or lost
        since_ms = [at_ms for at_ms in (next_frame_ms, state.lost_ms) if at_ms is not None]
        return Pending(min(since_ms) - overlap_ms) if since_ms else NOTHING
    gaps = tuple((gap.from_ms - overlap_ms, gap.to_ms) for gap in channel.unfilled)
    return Pending(channel.last_ms - overlap_ms, gaps)
