"""Scheduled polls own their moments: none is left out, none is asked for twice."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.defs.polls.slots import WINDOW_MS, Lost, Window, is_missed, slots, told_through, untold, window_of

TICKS = st.integers(min_value=28_000_000, max_value=30_000_000).map(lambda minute: minute * WINDOW_MS)
MINUTES = st.integers(min_value=0, max_value=99)
SPANS = st.lists(st.tuples(MINUTES, MINUTES).map(lambda two: Window(min(two), max(two))), max_size=8)
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


@given(told=SPANS, until=st.none() | MINUTES)
def test_what_was_told_and_what_was_not_tile_time(told: list[Window], until: int | None) -> None:
    """Whoever comes after an outage tells each moment that nobody told of, and no other."""
    window = Window(100, 101)
    begin = min((span.begin_ms for span in told), default=100) if until is None else until
    holes = untold(until, told, window)
    missed = [minute for hole in holes for minute in range(hole.begin_ms, hole.end_ms)]
    known = {minute for span in told for minute in range(span.begin_ms, span.end_ms)}
    assert missed == [minute for minute in range(begin, 100) if minute not in known]
    assert told_through(until, [*told, *holes, window]) == 101


@given(told=SPANS, until=MINUTES)
def test_all_is_told_up_to_the_first_hole(told: list[Window], until: int) -> None:
    """What is kept when events are forgotten never passes over what nobody told of."""
    through = told_through(until, told)
    holes = untold(until, told, Window(100, 101))
    assert through == (holes[0].begin_ms if holes else 100)


@given(tick=TICKS, count=st.integers(min_value=1, max_value=90), interval_ms=INTERVALS, data=st.data())
def test_lost_slots_are_those_of_the_hole_that_nobody_polled(
    tick: int, count: int, interval_ms: int, data: st.DataObject
) -> None:
    """Some may stand in Kafka: they were polled by a run that could not tell."""
    hole = Window(tick, tick + count * 10_000)
    whole = slots(hole, interval_ms)
    polled = data.draw(st.frozensets(st.sampled_from(whole), max_size=9) if whole else st.just(frozenset()))
    lost = Lost(hole, interval_ms, polled)
    assert list(lost.missed()) == [slot for slot in whole if slot not in polled]
    assert lost.count == len(whole) - len(polled)


@given(slot_ms=st.integers(min_value=0), interval_ms=INTERVALS, late_ms=st.integers(min_value=0, max_value=200_000))
def test_slot_is_missed_once_the_next_is_nearer(slot_ms: int, interval_ms: int, late_ms: int) -> None:
    """A little late is still that slot; an answer that is nearer to the next slot would look like a double."""
    assert is_missed(slot_ms, interval_ms, slot_ms + late_ms) == (late_ms >= interval_ms / 2)
