"""What a stream will publish yet, read off the state that it has saved, so that nobody else publishes it as well."""

from dataclasses import dataclass

from hedgelock_ingest.translate.state import State


@dataclass(frozen=True, slots=True)
class Pending:
    """
    What is still to come of one feed: all that happens from a time on, and what lies in holes that wait for REST.

    Times are Bybit's, in milliseconds; `from_ms` is None where nothing is to come.
    """

    from_ms: int | None = None
    holes: tuple[tuple[int, int], ...] = ()

    def holds(self, at_ms: int) -> bool:
        """Say whether the stream itself will bring what happened at this time."""
        if self.from_ms is not None and at_ms >= self.from_ms:
            return True
        return any(begin <= at_ms <= end for begin, end in self.holes)


NOTHING = Pending()


def pending_of(feed: str, state: State, *, next_frame_ms: int | None, overlap_ms: int) -> Pending:
    """
    Say what is pending of a feed.

    What came after the channel's last frame either stands in frames that are not published yet, or is a hole that the
    stream fills as soon as it can.

    Args:
        feed: Such as `linear:publicTrade.BTCUSDT`.
        state: Saved; all that it knows of is acknowledged by Kafka.
        next_frame_ms: When the first frame was read that the state does not know of; None if there is none.
        overlap_ms: How far the stream asks back over what it knows.
    """
    channel = state.channels.get(feed)
    if channel is None:  # not seen yet, but frames of it may stand behind the state, or be lost
        since_ms = [at_ms for at_ms in (next_frame_ms, state.lost_ms) if at_ms is not None]
        return Pending(min(since_ms) - overlap_ms) if since_ms else NOTHING
    holes = tuple((hole.from_ms - overlap_ms, hole.to_ms) for hole in channel.unfilled)
    return Pending(channel.last_ms - overlap_ms, holes)
