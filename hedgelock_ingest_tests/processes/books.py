"""Check of order books: the book built from Kafka equals the exchange's book after every record."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hedgelock_ingest_tests.processes.evidence import Evidence, PublishedRecord

type Levels = Sequence[tuple[str, str]]


@dataclass(slots=True)
class RebuiltBook:
    """An order book, built as Bybit's documentation says."""

    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)

    def replace(self, bids: Levels, asks: Levels) -> None:
        """Replace the book by a snapshot."""
        self.bids = dict(bids)
        self.asks = dict(asks)

    def change(self, bids: Levels, asks: Levels) -> None:
        """Apply a delta."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size in levels:
                if Decimal(size) == 0:
                    side.pop(price, None)
                else:
                    side[price] = size

    def top(self, levels: int) -> tuple[list[list[str]], list[list[str]]]:
        """Return the best levels of both sides, best first."""
        bids = sorted(self.bids.items(), key=lambda level: -Decimal(level[0]))[:levels]
        asks = sorted(self.asks.items(), key=lambda level: Decimal(level[0]))[:levels]
        return [list(level) for level in bids], [list(level) for level in asks]


class ExchangeBook:
    """The exchange's book, from the reference client's frames; it can be advanced to any update."""

    def __init__(self, frames: Sequence[dict[str, Any]]) -> None:
        self.book = RebuiltBook()
        self.frame_by_update = {frame["data"]["u"]: frame for frame in frames}
        self._frames = frames
        self._next = 0

    def is_event(self, update_id: int) -> bool:
        """Return whether the exchange sent a snapshot with this number to all lines."""
        frame = self.frame_by_update[update_id]
        return bool(frame["type"] == "snapshot") and frame is not self._frames[0]

    def forward_to(self, update_id: int) -> bool:
        """Apply updates up to and including one; return False if the frames have no such update from here on."""
        frames = self._frames
        if self._next and frames[self._next - 1]["data"]["u"] == update_id:
            return True
        if update_id not in self.frame_by_update:
            return False
        while self._next < len(frames):
            frame = frames[self._next]
            self._next += 1
            change = self.book.replace if frame["type"] == "snapshot" else self.book.change
            change(frame["data"]["b"], frame["data"]["a"])
            if frame["data"]["u"] == update_id:
                return True
        return False


def check_book(
    evidence: Evidence, frames: Sequence[dict[str, Any]], records: Sequence[PublishedRecord], *, state_depth: int = 50
) -> list[Hashable]:
    """
    Build one book from Kafka next to the exchange's, and compare them after each record.

    Returns:
        The update ids of the exchange's events that were published, in order; snapshots that only a subscription
        caused are left out.
    """
    theirs, ours = ExchangeBook(frames), RebuiltBook()
    updates: list[Hashable] = []
    last_update, is_unbroken = 0, False
    for record in records:
        value = record.value
        update_id, bids, asks = value["update_id"], value["bids"], value["asks"]
        if not theirs.forward_to(update_id):
            evidence.find(f"{record}: {value['type']} {update_id} after {last_update}, the exchange has no such update")
            continue
        if value["type"] == "state":
            if update_id != last_update or (bids, asks) != ours.top(state_depth):
                evidence.find(f"{record}: our own view of {update_id} is not the book of {last_update}")
            continue
        if value["type"] == "snapshot":
            ours.replace(bids, asks)
            is_unbroken = True
            if theirs.is_event(update_id):
                updates.append(update_id)
        else:
            updates.append(update_id)
            ours.change(bids, asks)
            is_unbroken = is_unbroken and update_id == last_update + 1
            _check_delta(evidence, record, theirs.frame_by_update[update_id], is_unbroken=is_unbroken)
        last_update = update_id
        if value["continuous"] and (ours.bids, ours.asks) != (theirs.book.bids, theirs.book.asks):
            evidence.find(f"{record}: the book built from Kafka is not the exchange's at update {update_id}")
    return updates


def _check_delta(evidence: Evidence, record: PublishedRecord, frame: dict[str, Any], *, is_unbroken: bool) -> None:
    value, data = record.value, frame["data"]
    if frame["type"] == "delta" and (value["bids"], value["asks"]) != (data["b"], data["a"]):
        evidence.find(f"{record}: not the levels that the exchange sent with update {value['update_id']}")
    if value["continuous"] and not is_unbroken:
        evidence.find(f"{record}: called continuous, and is not so since the last snapshot")
    if not value["continuous"]:
        # After damage to the journal, updates may be marked discontinuous although none is missing.
        gaps = evidence.gaps_of(f"{record.key.partition(':')[0]}:orderbook.{value['depth']}.{value['symbol']}")
        if not any(gap.holds(record.exchange_ms, value["update_id"]) for gap in gaps):
            evidence.find(f"{record}: called not continuous, and lies in no recorded gap")
