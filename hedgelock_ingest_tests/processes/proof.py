"""
Proof of delivery: each event that reached us is in Kafka once and in order, and each other one in a recorded gap.

Trades that REST recovered later are outside that order, inside a recorded gap. An event counts as having reached us
when the exchange wrote it to a connection that stayed open. Of a connection that was cut, only events written shortly
before may be missing, since they may have been unread in the socket.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.processes.books import check_book
from hedgelock_ingest_tests.processes.evidence import Evidence, Outage, PublishedRecord, RecordedGap, Sent, in_ms
from hedgelock_ingest_tests.processes.headers import check_headers
from hedgelock_ingest_tests.processes.reference_client import Channel
from hedgelock_ingest_tests.processes.values import check_liquidations, check_tickers, check_trades

_SHOWN = 20
_LINE_LAG_MS = 1_000
"""By how much the frame that ends a gap may be older than the moment at which it was read."""
_REST_LAG_MS = 4_000
"""By how much an answer of REST may be older than the gap in which it was requested."""
_NUMBERS = re.compile(r"[0-9]+[0-9a-f-]*")

type Identity = Hashable


@dataclass(slots=True)
class Proved:
    """The counts of a proof."""

    events: int = 0
    in_kafka: int = 0
    healed: int = 0
    lost_unread: int = 0
    never_written: int = 0
    before_the_first: int = 0
    gaps: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, int]:
        """Return the figures that the table of proofs adds up."""
        gaps = sum(self.gaps.values())
        return {"events": self.events, "in_kafka": self.in_kafka, "healed": self.healed, "gaps": gaps}

    def __str__(self) -> str:
        return (
            f"{self.events} events sent, {self.in_kafka} in Kafka once and in order, {self.healed} healed, "
            f"{self.lost_unread} lost unread and {self.never_written} never written, "
            f"all in {sum(self.gaps.values())} recorded gaps"
        )


proofs: list[Proved] = []
"""The results of the current test."""


def prove(evidence: Evidence) -> Proved:
    """
    Compare all records in Kafka with all events that the exchange sent.

    Raises:
        AssertionError: A guarantee is broken; the message names the first findings.
    """
    proved = judge(evidence)
    if evidence.findings:
        raise AssertionError(f"{len(evidence.findings)} broken guarantees; {proved}\n  {_shown(evidence)}")
    proofs.append(proved)
    return proved


def judge(evidence: Evidence) -> Proved:
    """Do the same, and leave what breaks a guarantee in the evidence's findings."""
    proved = Proved()
    check_headers(evidence)
    for channel, sent in evidence.sent.items():
        _check_channel(evidence, channel, sent, proved)
    _check_gaps(evidence, proved)
    found = len(evidence.records[Topic.INGEST_DEAD_LETTERS])
    if not 0 <= found - evidence.dead_letters <= evidence.uncertain_dead_letters:
        reasons = Counter(record.value["reason"] for record in evidence.records[Topic.INGEST_DEAD_LETTERS])
        evidence.find(f"{found} dead letters, expected {evidence.dead_letters}: {reasons.most_common(3)}")
    return proved


def _shown(evidence: Evidence) -> str:
    """Return the first finding of each kind with the count of its kind."""
    by_kind: dict[str, list[str]] = {}
    for finding in evidence.findings:
        by_kind.setdefault(_NUMBERS.sub("#", finding), []).append(finding)
    return "\n  ".join(f"{len(found)} x {found[0]}" for found in list(by_kind.values())[:_SHOWN])


def _check_channel(evidence: Evidence, channel: Channel, sent: Sequence[Sent], proved: Proved) -> None:
    category, name = channel
    kind, _, symbol = name.rpartition(".")
    healed: dict[Identity, int] = {}
    shown: Set[Identity] = set()
    key, frames = f"{category}:{symbol}", evidence.frames.get(channel, [])
    match kind.partition(".")[0]:
        case "publicTrade":
            records = evidence.of(Topic.MARKET_TRADES, key)
            check_trades(evidence, frames, records)
            identities: list[Identity] = [record.value["trade_id"] for record in records]
            healed = {one.value["trade_id"]: in_ms(one.value["timestamp"]) for one in records if one.value["healed"]}
        case "allLiquidation":
            records = evidence.of(Topic.MARKET_LIQUIDATIONS, key)
            identities = check_liquidations(evidence, frames, records)
        case "tickers":
            tickers = evidence.of(Topic.MARKET_DATA, key)
            records = [one for one in tickers if one.value["source"] == "websocket"]
            identities = check_tickers(evidence, frames, records, category)
            _check_rest_tickers(evidence, ":".join(channel), tickers)
        case _:
            records = evidence.of(Topic.MARKET_ORDER_BOOKS, key)
            depth = int(kind.partition(".")[2])
            records = [one for one in records if one.value["depth"] == depth]
            identities = check_book(evidence, frames, records)
            shown = {one.value["update_id"] for one in records if one.value["type"] == "snapshot"}
    _check_delivery(evidence, channel, sent, identities, healed, shown, proved)


def _check_delivery(
    evidence: Evidence,
    channel: Channel,
    sent: Sequence[Sent],
    identities: Sequence[Identity],
    healed: Mapping[Identity, int],
    shown: Set[Identity],
    proved: Proved,
) -> None:
    # `healed` has the times of trades that REST recovered; Bybit sends their frames some milliseconds later. `shown`
    # are updates that were not read themselves, but whose resulting book was.
    feed = ":".join(channel)
    events = list(_events(channel, sent))
    place = {identity: number for number, (identity, _) in enumerate(events)}
    if len(place) < len(events):
        evidence.find(f"{feed}: the exchange repeated an identity, the test is at fault")
    counts = Counter(identities)
    for identity, count in counts.items():
        if count > 1:
            evidence.find(f"{feed}: {identity} is {count} times in Kafka")
        if identity not in place:
            evidence.find(f"{feed}: {identity} is in Kafka, but the exchange never sent it")
    _check_order(evidence, feed, [place[one] for one in counts if one in place and one not in healed])
    written = [number for number, (_, event) in enumerate(events) if event.connections]
    if not written:
        return
    # Events sent before our first frame or after our last one are not lost.
    ours = events[written[0] : written[-1] + 1]
    proved.events += len(ours)
    gaps, sequences = evidence.gaps_of(feed), _sequences(evidence, channel)
    begins_ms = _first_ms(evidence, channel, ours[0][1], [event for identity, event in ours if identity in counts])
    known_ms = first_known_ms(gaps, [event for identity, event in ours if identity in counts])
    for identity, event in ours:
        if identity in healed:
            proved.healed += 1
            if not evidence.misdated and not _is_in_a_gap(healed[identity], sequences.get(identity), gaps):
                evidence.find(f"{feed}: {identity} was healed, but lies in no recorded gap")
        elif identity in counts:
            proved.in_kafka += 1
        if identity in counts or identity in shown:
            continue
        is_unknown = event.sent_ms < known_ms and was_cut_unread(event, evidence.outages, evidence.unread_ms)
        if event.sent_ms <= begins_ms or is_unknown:
            proved.before_the_first += 1
            continue
        _check_missing(evidence, feed, identity, event, sequences.get(identity), gaps, proved)


def _check_rest_tickers(evidence: Evidence, feed: str, records: Sequence[PublishedRecord]) -> None:
    """Check that tickers of REST are of times in which no line carried the feed, or of before its first frame."""
    gaps, has_begun = evidence.gaps_of(feed), False
    for record in records:
        if record.value["source"] == "websocket":
            has_begun = True
            continue
        at_ms = in_ms(record.value["timestamp"])
        if has_begun and not any(gap.from_ms - _REST_LAG_MS <= at_ms <= gap.to_ms + _LINE_LAG_MS for gap in gaps):
            evidence.find(f"{feed}: {record} is of REST, and lies in no recorded gap")


def first_known_ms(gaps: Sequence[RecordedGap], in_kafka: Sequence[Sent]) -> int:
    """Return the time of a feed's first record or gap in Kafka; before it the feed has left no trace."""
    return min([*(gap.from_ms for gap in gaps), *(event.sent_ms for event in in_kafka)], default=2**62)


def was_cut_unread(event: Sent, outages: Sequence[Outage], unread_ms: int) -> bool:
    """Return whether all connections that an event was written to were cut in an outage, possibly before a read."""
    return all(
        one.closed_ms is not None
        and any(
            _is_in(one.closed_ms, outage) and event.sent_ms >= _unread_from_ms(one.closed_ms, outage, unread_ms)
            for outage in outages
        )
        for one in event.connections
    )


def _unread_from_ms(closed_ms: int, outage: Outage, unread_ms: int) -> int:
    """Return from when on the frames of a connection that was cut in an outage may not have been read."""
    return (min(closed_ms, outage.begin_ms) if outage.is_frozen else closed_ms) - unread_ms


def _check_missing(
    evidence: Evidence,
    feed: str,
    identity: Identity,
    event: Sent,
    sequence: int | None,
    gaps: Sequence[RecordedGap],
    proved: Proved,
) -> None:
    if not _is_in_a_gap(event.sent_ms, sequence, gaps):
        evidence.find(f"{feed}: {identity} sent at {event.sent_ms} is neither in Kafka nor in a recorded gap")
    if not event.connections:
        proved.never_written += 1
        return
    proved.lost_unread += 1
    if any(gap.holds(event.sent_ms, sequence) and gap.to_ms - event.sent_ms < evidence.beginning_ms for gap in gaps):
        return  # the other line began with it
    for connection in event.connections:
        closed_ms = connection.closed_ms
        outages = [outage for outage in evidence.outages if closed_ms is not None and _is_in(closed_ms, outage)]
        if closed_ms is None or not outages:
            evidence.find(f"{feed}: {identity} was written to a connection that was not cut, and is not in Kafka")
        elif event.sent_ms < min(_unread_from_ms(closed_ms, outage, evidence.unread_ms) for outage in outages):
            early_ms = closed_ms - event.sent_ms
            evidence.find(f"{feed}: {identity}, written {early_ms} ms before its connection was cut, is not in Kafka")


def _is_in_a_gap(at_ms: int, sequence: int | None, gaps: Sequence[RecordedGap]) -> bool:
    return any(gap.holds(at_ms, sequence) for gap in gaps)


def _check_order(evidence: Evidence, feed: str, places: Sequence[int]) -> None:
    for earlier, later in pairwise(places):
        if later <= earlier:
            evidence.find(f"{feed}: event {later} is in Kafka after event {earlier}")
            return


def _check_gaps(evidence: Evidence, proved: Proved) -> None:
    feeds = {record.key for record in evidence.records[Topic.INGEST_GAPS]}
    for feed in sorted(feeds):
        gaps = evidence.gaps_of(feed)
        proved.gaps[feed] += len(gaps)
        is_steady = "allLiquidation" not in feed and not feed.startswith("private:")
        by_outage: Counter[Outage] = Counter()
        for gap in gaps:
            outage = max(evidence.outages, key=lambda one: _overlap_ms(gap, one), default=None)
            if outage is None or _overlap_ms(gap, outage) < -evidence.late_ms:
                evidence.find(f"{feed}: a gap from {gap.from_ms} to {gap.to_ms} without an outage: {gap.record}")
                continue
            by_outage[outage] += 1
            if is_steady and gap.from_ms < outage.begin_ms - evidence.early_ms:
                evidence.find(f"{feed}: a gap begins {outage.begin_ms - gap.from_ms} ms before its outage")
            if is_steady and gap.to_ms > outage.end_ms + evidence.late_ms:
                evidence.find(f"{feed}: a gap ends {gap.to_ms - outage.end_ms} ms after its outage")
        for outage, count in by_outage.items():
            if count > evidence.gaps_an_outage:
                evidence.find(f"{feed}: {count} gaps recorded for the one outage at {outage.begin_ms}")
        # On a quiet feed a gap ends when the line is live by our clock, and the first frame may be a little older.
        for earlier, later in pairwise(gaps):
            if is_steady and later.from_ms < earlier.to_ms - evidence.overlap_ms:
                evidence.find(f"{feed}: gaps overlap at {later.from_ms}")


def _events(channel: Channel, sent: Iterable[Sent]) -> Iterator[tuple[Identity, Sent]]:
    """Yield each event by the identities that its records have; equal liquidations are numbered."""
    seen: Counter[Identity] = Counter()
    for event in sent:
        for identity in event.identities:
            if not isinstance(identity, list):
                yield identity, event
                continue
            content = tuple(identity)
            seen[content] += 1
            yield (*content, seen[content]), event


def _sequences(evidence: Evidence, channel: Channel) -> dict[Identity, int]:
    """Return the sequence that a gap would name for each event; that of a trade is not its identity."""
    frames = evidence.frames.get(channel, [])
    name = channel[1]
    if name.startswith("publicTrade."):
        return {row["i"]: row["seq"] for frame in frames for row in frame["data"]}
    if name.startswith("tickers."):
        return {frame["cs"]: frame["cs"] for frame in frames}
    if name.startswith("orderbook."):
        return {frame["data"]["u"]: frame["data"]["u"] for frame in frames}
    return {}


def _first_ms(evidence: Evidence, channel: Channel, written: Sent, published: Sequence[Sent]) -> int:
    """
    Return until when events may be missing because the channel has just begun.

    Of two lines that open together the one that subscribed first may be read last: then the channel begins with the
    other one's frames. A spot ticker takes bid and ask from the book, and cannot begin before the book is complete.
    """
    category, name = channel
    if category != "spot" or not name.startswith("tickers."):
        first = published[0] if published else written
        is_soon = len(first.connections) > 1 and first.sent_ms - written.sent_ms < evidence.beginning_ms
        return first.sent_ms if is_soon else 0
    symbol = name.partition(".")[2]
    books = evidence.of(Topic.MARKET_ORDER_BOOKS, f"spot:{symbol}")
    begins_ms = min((in_ms(record.value["timestamp"]) for record in books), default=2**62)
    if published:
        gaps = [gap for feed in _spot_books(evidence, symbol) for gap in evidence.gaps_of(feed)]
        ends_ms = [gap.to_ms for gap in gaps if gap.to_ms < published[0].sent_ms]
        begins_ms = max([begins_ms, *ends_ms])
    return begins_ms


def _spot_books(evidence: Evidence, symbol: str) -> list[str]:
    return [
        f"{category}:{name}"
        for category, name in evidence.frames
        if category == "spot" and "orderbook." in name and name.endswith(f".{symbol}")
    ]


def _is_in(at_ms: int, outage: Outage) -> bool:
    return outage.begin_ms - 50 <= at_ms <= outage.end_ms


def _overlap_ms(gap: RecordedGap, outage: Outage) -> int:
    return min(gap.to_ms, outage.end_ms) - max(gap.from_ms, outage.begin_ms)
