"""Which moments a scheduled poll owns, so that consecutive runs tile time with no hole and no double."""

from datetime import UTC, datetime
from typing import NamedTuple

LEAD_MS = 30_000
"""
A run starts some seconds after its tick, 17 on two busy cores; its window begins this much later, when it is surely
there.
"""
WINDOW_MS = 60_000


class Window(NamedTuple):
    """From `begin_ms` up to, not including, `end_ms`; milliseconds since 1970."""

    begin_ms: int
    end_ms: int

    def __str__(self) -> str:
        begin, end = _clock(self.begin_ms), _clock(self.end_ms)
        return f"{begin} to {end if end[:10] != begin[:10] else end[11:]} UTC"


def window_of(tick_ms: int) -> Window:
    """Give the window of a schedule's tick, which comes every `WINDOW_MS`."""
    return Window(tick_ms + LEAD_MS, tick_ms + LEAD_MS + WINDOW_MS)


def slots(window: Window, interval_ms: int) -> list[int]:
    """
    List the moments of a window: multiples of the interval since 1970, whoever asks.

    Windows that meet share no slot and leave none out, whatever the interval.
    """
    return list(_slots(window, interval_ms))


def is_missed(slot_ms: int, interval_ms: int, now_ms: int) -> bool:
    """Say whether it is too late for a slot: nearer to the next one, its answer would look like a double of that."""
    return 2 * (now_ms - slot_ms) >= interval_ms


def _slots(window: Window, interval_ms: int) -> range:
    first, end = -(-window.begin_ms // interval_ms), -(-window.end_ms // interval_ms)
    return range(first * interval_ms, end * interval_ms, interval_ms)


def _clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
