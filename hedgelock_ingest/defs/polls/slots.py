"""Slots of scheduled polls: consecutive runs cover time without a missing or duplicate slot."""

from typing import NamedTuple

from hedgelock_ingest.models.times import utc_text

LEAD_MS = 30_000
"""Time from a tick to the begin of its window; the run starts some seconds after the tick, 17 on two busy cores."""
WINDOW_MS = 60_000


class PollWindow(NamedTuple):
    """From `begin_ms` up to, not including, `end_ms`; milliseconds since 1970."""

    begin_ms: int
    end_ms: int

    def __str__(self) -> str:
        begin, end = utc_text(self.begin_ms), utc_text(self.end_ms)
        return f"{begin} to {end if end[:10] != begin[:10] else end[11:]} UTC"


def window_of(tick_ms: int) -> PollWindow:
    """Return the window of a schedule's tick; ticks come every `WINDOW_MS`."""
    return PollWindow(tick_ms + LEAD_MS, tick_ms + LEAD_MS + WINDOW_MS)


def slots(window: PollWindow, interval_ms: int) -> list[int]:
    """
    List the slots of a window: multiples of the interval since 1970.

    Adjacent windows share no slot and omit none, whatever the interval.
    """
    first, end = -(-window.begin_ms // interval_ms), -(-window.end_ms // interval_ms)
    return list(range(first * interval_ms, end * interval_ms, interval_ms))


def is_missed(slot_ms: int, interval_ms: int, now_ms: int) -> bool:
    """Return whether a slot is too late: an answer nearer to the next slot would look like a duplicate of it."""
    return 2 * (now_ms - slot_ms) >= interval_ms
