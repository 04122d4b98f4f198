"""Trades of a REST list in their order, each with its time, or with bounds of it where Bybit gives a wrong one."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hedgelock_ingest.protocol.rest_messages import RestTradeRow

_AHEAD_MS: Final = 1_000
"""By how much a trade may be later than the answer that lists it: they are dated by different servers."""


class DatedTrade(NamedTuple):
    """A trade, and between which times it was matched; both are its own time unless that is wrong."""

    row: RestTradeRow
    begin_ms: int
    end_ms: int


def dated_trades(rows: Iterable[RestTradeRow], answer_ms: int) -> list[DatedTrade]:
    """
    Sort trades by their sequence, or by their time if one lacks it, since the order of REST is not stated.

    A time later than the answer is wrong, and so is one outside the order of the sequence. The trades beside it bound
    the true one.

    Source: Bybit V5, Market, Get Public Recent Trading History.
    """
    listed = list(rows)
    has_sequence = all(row.seq for row in listed)
    listed.sort(key=lambda row: (int(row.seq or 0), int(row.time)) if has_sequence else (int(row.time), 0))
    latest_ms = answer_ms + _AHEAD_MS
    times = [int(row.time) for row in listed]
    in_order = _in_order(times, latest_ms)
    kept = [at_ms if place in in_order else None for place, at_ms in enumerate(times)]
    begins, ends = _filled(kept, 0), _filled(kept[::-1], latest_ms)[::-1]
    return [DatedTrade(*dated) for dated in zip(listed, begins, ends, strict=True)]


def _filled(times: Iterable[int | None], first_ms: int) -> list[int]:
    """Replace each None by the time before it."""
    filled: list[int] = []
    for at_ms in times:
        filled.append(at_ms if at_ms is not None else filled[-1] if filled else first_ms)
    return filled


def _in_order(times: list[int], latest_ms: int) -> set[int]:
    """Return the places of the times that are not later than `latest_ms`, and certainly in order."""
    places = [place for place, at_ms in enumerate(times) if at_ms <= latest_ms]
    if len(places) == len(times) and times == sorted(times):
        return set(places)
    # Of two times in the wrong order either may be wrong: certain is what stays, whichever of them is preferred.
    lowest = _longest_rise([times[place] for place in places])
    highest = _longest_rise([-times[place] for place in reversed(places)])
    last = len(places) - 1
    return {place for number, place in enumerate(places) if number in lowest and last - number in highest}


def _longest_rise(times: Sequence[int]) -> set[int]:
    """Return the places of the longest sequence of times that never falls; of equally long ones the lowest."""
    ends: list[int] = []
    places: list[int] = []
    previous: list[int] = []
    for place, at_ms in enumerate(times):
        length = bisect_right(ends, at_ms)
        previous.append(places[length - 1] if length else -1)
        ends[length : length + 1] = [at_ms]
        places[length : length + 1] = [place]
    found: set[int] = set()
    place = places[-1] if places else -1
    while place >= 0:
        found.add(place)
        place = previous[place]
    return found
