"""Which moments a scheduled poll owns, so that consecutive runs tile time with no hole and no double."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


def untold(told_until_ms: int | None, told: Iterable[Window], window: Window) -> list[Window]:
    """
    Give the holes before a window, in order: the time that nobody told of.

    Args:
        told_until_ms: Everything before it was told; None if that is not known.
        told: Spans that were told, in any order, with or without overlap.
        window: What comes now.
    """
    spans = sorted(span for span in told if span.begin_ms < window.begin_ms)
    if told_until_ms is None:
        told_until_ms = spans[0].begin_ms if spans else window.begin_ms
    holes = []
    for span in [*spans, window]:
        if span.begin_ms > told_until_ms:
            holes.append(Window(told_until_ms, span.begin_ms))
        told_until_ms = max(told_until_ms, span.end_ms)
    return holes


def told_through(told_until_ms: int | None, told: Iterable[Window]) -> int | None:
    """Say up to where all was told without a hole; `told_until_ms` as in `untold`."""
    for span in sorted(told):
        if told_until_ms is None or span.begin_ms <= told_until_ms:
            told_until_ms = max(span.end_ms, told_until_ms or 0)
    return told_until_ms


@dataclass(frozen=True, slots=True)
class Lost:
    """The slots of a hole; `polled` are those whose answers stand in Kafka although no run told of them."""

    hole: Window
    interval_ms: int
    polled: frozenset[int] = frozenset()

    @property
    def count(self) -> int:
        """How many slots were missed."""
        return len(_slots(self.hole, self.interval_ms)) - len(self.polled)

    def missed(self) -> Iterator[int]:
        """Name them, which may be many."""
        return (slot_ms for slot_ms in _slots(self.hole, self.interval_ms) if slot_ms not in self.polled)


def _slots(window: Window, interval_ms: int) -> range:
    first, end = -(-window.begin_ms // interval_ms), -(-window.end_ms // interval_ms)
    return range(first * interval_ms, end * interval_ms, interval_ms)


def _clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
