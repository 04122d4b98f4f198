"""Scheduled polls own their slots: each slot is polled once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.defs.polls.slots import WINDOW_MS, PollWindow, is_missed, slots, window_of

TICKS = st.integers(min_value=28_000_000, max_value=30_000_000).map(lambda minute: minute * WINDOW_MS)
INTERVALS = st.integers(min_value=200, max_value=60_000)


@given(first=TICKS, count=st.integers(min_value=1, max_value=8), interval_ms=INTERVALS)
def test_consecutive_ticks_cover_time_without_overlap(first: int, count: int, interval_ms: int) -> None:
    """Consecutive runs poll each slot once, also if the interval does not divide a minute."""
    windows = [window_of(first + number * WINDOW_MS) for number in range(count)]
    asked = [slot for window in windows for slot in slots(window, interval_ms)]
    assert asked == slots(PollWindow(windows[0].begin_ms, windows[-1].end_ms), interval_ms)
    assert all(later - earlier == interval_ms for earlier, later in pairwise(asked))


@given(tick=TICKS, interval_ms=INTERVALS)
def test_window_begins_after_a_run_has_started(tick: int, interval_ms: int) -> None:
    """A run takes seconds from its tick to its first line of code; no slot may be due before that."""
    assert all(tick + 25_000 <= slot < tick + 2 * WINDOW_MS for slot in slots(window_of(tick), interval_ms))


@given(slot_ms=st.integers(min_value=0), interval_ms=INTERVALS, late_ms=st.integers(min_value=0, max_value=200_000))
def test_slot_is_missed_once_the_next_is_nearer(slot_ms: int, interval_ms: int, late_ms: int) -> None:
    """A slightly late poll counts; an answer nearer to the next slot would look like a duplicate."""
    assert is_missed(slot_ms, interval_ms, slot_ms + late_ms) == (late_ms >= interval_ms / 2)
