"""Backlog: what a stream will still publish, according to its saved state."""

import pytest

from hedgelock_ingest.translate.pending import Pending, pending_of
from hedgelock_ingest.translate.state import ChannelState, GapSpan, State
from hedgelock_ingest_tests.builders import AT_MS

FEED = "linear:publicTrade.BTCUSDT"
OVERLAP_MS = 10_000
LAST_MS = AT_MS


def pending(channel: ChannelState | None, *, next_frame_ms: int | None = None, lost_ms: int | None = None) -> Pending:
    state = State(channels={} if channel is None else {FEED: channel}, lost_ms=lost_ms)
    return pending_of(FEED, state, next_frame_ms=next_frame_ms, overlap_ms=OVERLAP_MS)


@pytest.mark.parametrize("gap_reason", [None, "no live line: reset"])
def test_everything_after_the_last_frame_is_pending(gap_reason: str | None) -> None:
    """It is on its way, or in a gap that is filled, with an overlap, once the feed is up again."""
    found = pending(ChannelState(LAST_MS, gap_reason=gap_reason))
    assert found.holds(LAST_MS)
    assert found.holds(LAST_MS - OVERLAP_MS)
    assert not found.holds(LAST_MS - OVERLAP_MS - 1)


def test_gap_that_waits_for_rest_is_pending() -> None:
    """The feed continues after the gap while the answer is under way."""
    gap = GapSpan(LAST_MS - 90_000, None, LAST_MS - 60_000, None, "no live line: reset")
    found = pending(ChannelState(LAST_MS, unfilled=[gap]))
    assert found.holds(gap.from_ms - OVERLAP_MS)
    assert found.holds(gap.to_ms)
    assert not found.holds(gap.to_ms + 1)


def test_feed_that_was_never_seen_has_nothing_pending() -> None:
    """The stream's first start has no gap, so a backfill may publish everything before it."""
    assert not pending(None).holds(LAST_MS)


@pytest.mark.parametrize(
    ("next_frame_ms", "lost_ms"),
    [(LAST_MS, None), (None, LAST_MS), (LAST_MS + 60_000, LAST_MS), (LAST_MS, LAST_MS + 60_000)],
)
def test_later_or_lost_frames_may_belong_to_an_unseen_feed(next_frame_ms: int | None, lost_ms: int | None) -> None:
    """Journalled frames that wait for Kafka, and frames that the journal has lost, count from the earliest."""
    found = pending(None, next_frame_ms=next_frame_ms, lost_ms=lost_ms)
    assert found.holds(LAST_MS - OVERLAP_MS)
    assert not found.holds(LAST_MS - OVERLAP_MS - 1)
