"""Scheduled polls own their moments: none is left out, none is asked for twice."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.defs.polls.slots import WINDOW_MS, Window, is_missed, slots, window_of

TICKS = st.integers(min_value=28_000_000, max_value=30_000_000).map(lambda minute: minute * WINDOW_MS)
INTERVALS = st.integers(min_value=200, max_value=60_000)


@given(first=TICKS, count=st.integers(min_value=1, max_value=8), interval_ms=INTERVALS)
def test_consecutive_ticks_tile_time(first: int, count: int, interval_ms: int) -> None:
    """Runs that follow each other ask at each slot once, also where the interval does not divide a minute."""
    windows = [window_of(first + number * WINDOW_MS) for number in range(count)]
    asked = [slot for window in windows for slot in slots(window, interval_ms)]
    assert asked == slots(Window(windows[0].begin_ms, windows[-1].end_ms), interval_ms)
    assert all(later - earlier == interval_ms for earlier, later in pairwise(asked))


@given(tick=TICKS, interval_ms=INTERVALS)
def test_window_begins_when_a_run_surely_started(tick: int, interval_ms: int) -> None:
    """A run takes seconds from its tick to its first line of code; no slot may be due before that."""
    assert all(tick + 25_000 <= slot < tick + 2 * WINDOW_MS for slot in slots(window_of(tick), interval_ms))


@given(slot_ms=st.integers(min_value=0), interval_ms=INTERVALS, late_ms=st.integers(min_value=0, max_value=200_000))
def test_slot_is_missed_once_the_next_is_nearer(slot_ms: int, interval_ms: int, late_ms: int) -> None:
    """A little late is still that slot; an answer that is nearer to the next slot would look like a double."""
    assert is_missed(slot_ms, interval_ms, slot_ms + late_ms) == (late_ms >= interval_ms / 2)
