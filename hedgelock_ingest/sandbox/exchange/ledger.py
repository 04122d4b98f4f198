"""Ledger of what the exchange sent: the identities of each channel's events, and the frames written to each line."""

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hedgelock_ingest.sandbox.exchange.market.channel_stream import Identity, trade_id

_SLACK = 1_000


class ChannelLedger:
    """
    The events of one channel in order; event n of a channel is the same frame for all its subscribers.

    Only identities are kept, and only the newest.
    """

    def __init__(self, category: str, channel: str) -> None:
        self.category = category
        self.channel = channel
        self.first_number = 0
        self._sent_ms: deque[int] = deque()
        self._identities: deque[Identity] = deque()

    @property
    def next_number(self) -> int:
        """The number that the next event gets."""
        return self.first_number + len(self._identities)

    def __len__(self) -> int:
        return len(self._identities)

    def add(self, sent_ms: int, identity: Identity) -> None:
        """Record an event."""
        self._sent_ms.append(sent_ms)
        self._identities.append(identity)

    def forget(self, count: int) -> None:
        """Drop the oldest events."""
        for _ in range(min(count, len(self._identities))):
            self._sent_ms.popleft()
            self._identities.popleft()
            self.first_number += 1

    def events(self, since_ms: int = 0, until_ms: int | None = None) -> Iterator[tuple[int, int, list[Any]]]:
        """
        Yield (number, `ts` of the frame, identities), oldest first.

        Identities are trade ids on `publicTrade`, `u` on books, `cs` on tickers, [T, side, size, price] on
        liquidations, execution ids on `execution`, and message ids on the other private channels.
        """
        events = zip(self._sent_ms, self._identities, strict=True)
        for number, (sent_ms, identity) in enumerate(events, self.first_number):
            if sent_ms >= since_ms and (until_ms is None or sent_ms <= until_ms):
                yield number, sent_ms, self._written(identity)

    def _written(self, identity: Identity) -> list[Any]:
        if isinstance(identity, int):
            return [identity]
        if self.channel.startswith("publicTrade."):
            return [trade_id(self.category, number) for number in identity if isinstance(number, int)]
        if self.category == "private":
            return list(identity)
        return [list(identity)]


@dataclass(slots=True)
class LineDelivery:
    """
    The events of a channel that were written to one line while it was open, as runs of numbers.

    `next_number` is the end of the current run; an event that is not the next one begins another run.
    """

    channel: str
    runs: array[int] = field(default_factory=lambda: array("q"))
    next_number: int = -1

    def add(self, number: int) -> None:
        """Record one event as written."""
        if number != self.next_number:
            if self.runs:
                self.runs[-1] = self.next_number
            self.runs.extend((number, number))
        self.next_number = number + 1

    def all_runs(self) -> list[tuple[int, int]]:
        """Return (first, one past the last) of each run."""
        if self.runs:
            self.runs[-1] = self.next_number
        return list(zip(self.runs[::2], self.runs[1::2], strict=True))


class Ledger:
    """The ledgers of all channels with one common bound; what exceeds it is removed evenly from all of them."""

    def __init__(self, size: int) -> None:
        self.channels: dict[tuple[str, str], ChannelLedger] = {}
        self._size = size

    def open(self, category: str, channel: str) -> ChannelLedger:
        """Return the ledger of a channel, a new one the first time."""
        key = (category, channel)
        if key not in self.channels:
            self.channels[key] = ChannelLedger(category, channel)
        return self.channels[key]

    def keep_bound(self) -> None:
        """Drop what exceeds the bound, in small steps; called at each tick."""
        count = sum(map(len, self.channels.values()))
        if count > self._size + _SLACK:
            share = 1.0 - self._size / count
            for ledger in self.channels.values():
                ledger.forget(int(len(ledger) * share) + 1)


class Runs:
    """A set of event numbers, kept as runs; built from the runs of several lines, which may overlap."""

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for begin, end in sorted(runs):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._begins, number) - 1
        return place >= 0 and number < self._ends[place]
