"""What a stream will publish yet, by the state that it has saved."""

import pytest

from hedgelock_ingest.translate.backlog import Pending, pending_of
from hedgelock_ingest.translate.state import ChannelState, GapSpan, State
from hedgelock_ingest_tests.builders import AT_MS

FEED = "linear:publicTrade.BTCUSDT"
OVERLAP_MS = 10_000
LAST_MS = AT_MS


def pending(channel: ChannelState | None, *, next_frame_ms: int | None = None, lost_ms: int | None = None) -> Pending:
    state = State(channels={} if channel is None else {FEED: channel}, lost_ms=lost_ms)
    return pending_of(FEED, state, next_frame_ms=next_frame_ms, overlap_ms=OVERLAP_MS)


@pytest.mark.parametrize("hole", [None, "no live line: reset"])
def test_all_after_the_last_frame_is_the_stream_s(hole: str | None) -> None:
    """It is on its way, or a hole that is filled when the feed is up again, with an overlap."""
    found = pending(ChannelState(LAST_MS, gap_reason=hole))
    assert found.holds(LAST_MS)
    assert found.holds(LAST_MS - OVERLAP_MS)
    assert not found.holds(LAST_MS - OVERLAP_MS - 1)


def test_hole_that_waits_for_rest_is_the_stream_s() -> None:
    """The feed goes on behind it while the answer is under way."""
    hole = GapSpan(LAST_MS - 90_000, None, LAST_MS - 60_000, None, "no live line: reset")
    found = pending(ChannelState(LAST_MS, unfilled=[hole]))
    assert found.holds(hole.from_ms - OVERLAP_MS)
    assert found.holds(hole.to_ms)
    assert not found.holds(hole.to_ms + 1)


def test_feed_that_was_never_seen_has_nothing_pending() -> None:
    """The stream's first start has no hole, so what was before it is anybody's."""
    assert not pending(None).holds(LAST_MS)


@pytest.mark.parametrize(
    ("next_frame_ms", "lost_ms"),
    [(LAST_MS, None), (None, LAST_MS), (LAST_MS + 60_000, LAST_MS), (LAST_MS, LAST_MS + 60_000)],
)
def test_feed_may_be_among_frames_that_the_state_does_not_know(next_frame_ms: int | None, lost_ms: int | None) -> None:
    """Frames that wait for Kafka since their first one came, and frames that the journal has lost."""
    found = pending(None, next_frame_ms=next_frame_ms, lost_ms=lost_ms)
    assert found.holds(LAST_MS - OVERLAP_MS)
    assert not found.holds(LAST_MS - OVERLAP_MS - 1)
