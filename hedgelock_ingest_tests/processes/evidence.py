"""Evidence of a proof: what the exchange sent on which connections, what Kafka holds, and the outages."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.kafka.read_topic import Record
from hedgelock_ingest_tests.processes.reference_client import Channel

_decode = msgspec.json.Decoder().decode


class Outage(NamedTuple):
    """
    A time declared by the test in which connections may be cut and frames may be missing.

    A stream that `is_frozen` all the time reads nothing of what is written to it.
    """

    begin_ms: int
    end_ms: int
    is_frozen: bool = False


class StreamConnection(NamedTuple):
    """One connection of the stream, as recorded by the exchange; `closed_ms` is None while it is open."""

    connection_id: str
    opened_ms: int
    closed_ms: int | None


class Sent(NamedTuple):
    """One event of a channel, and the stream's connections that it was written to."""

    number: int
    sent_ms: int
    identities: list[Any]
    connections: list[StreamConnection]


@dataclass(slots=True)
class PublishedRecord:
    """One record of Kafka, decoded."""

    topic: Topic
    partition: int
    offset: int
    key: str
    value: dict[str, Any]
    headers: dict[str, bytes]
    position: int = -1
    index: int = -1

    @property
    def exchange_ms(self) -> int:
        """Bybit's time of the frame."""
        return int(self.headers["exchange-ms"])

    def __str__(self) -> str:
        return f"{self.topic} {self.partition}/{self.offset} ({self.key}, frame {self.position}.{self.index})"


class RecordedGap(NamedTuple):
    """A recorded gap, read back from Kafka."""

    feed: str
    from_ms: int
    to_ms: int
    from_sequence: int | None
    to_sequence: int | None
    record: PublishedRecord

    def holds(self, at_ms: int, sequence: int | None) -> bool:
        """Return whether a frame of that time and sequence lies in the gap; both ends are inclusive."""
        if not self.from_ms <= at_ms <= self.to_ms:
            return False
        first, last = self.from_sequence, self.to_sequence
        was_restarted = first is not None and last is not None and first > last
        if sequence is None or was_restarted:
            return True
        return (first is None or sequence >= first) and (last is None or sequence <= last)


@dataclass(slots=True)
class Evidence:
    """
    The input of a proof; `frames` are the reference client's, by channel and in order.

    `refused` are records that Kafka refused and the journal keeps instead.
    A gap begins with the last frame and ends with the first one: `early_ms` is how long before its outage it may
    begin, `late_ms` how long after its outage it may end. `uncertain_dead_letters` may exist besides the expected ones.
    Gaps of a feed may overlap by `overlap_ms`: one ends by our clock, the next begins with a frame that was under way.
    `beginning_ms` is by how much two lines that open together may differ in their first frames.
    `wrong_times` are the times of frames that the exchange has dated wrongly, `misdated` identifies their events.
    `unread_ms` is how long before the end of a connection lost frames may have been written: far more than reading and
    journalling take, since a loaded machine may not run the process for a while.
    """

    frames: Mapping[Channel, Sequence[dict[str, Any]]]
    sent: Mapping[Channel, Sequence[Sent]]
    records: Mapping[Topic, Sequence[PublishedRecord]]
    outages: Sequence[Outage]
    dead_letters: int = 0
    journals: int = 1
    unread_ms: int = 1_000
    early_ms: int = 1_500
    late_ms: int = 1_500
    gaps_an_outage: int = 1
    uncertain_dead_letters: int = 0
    overlap_ms: int = 0
    beginning_ms: int = 250
    refused: Sequence[PublishedRecord] = ()
    wrong_times: Set[int] = frozenset()
    misdated: Set[str] = frozenset()
    findings: list[str] = field(default_factory=list)
    _gaps: dict[str, list[RecordedGap]] = field(default_factory=dict)

    def find(self, text: str) -> None:
        """Record a finding that breaks a guarantee."""
        self.findings.append(text)

    def of(self, topic: Topic, key: str) -> list[PublishedRecord]:
        """Return the records of a key in Kafka's order, with refused ones in their places."""
        found = [record for record in self.records[topic] if record.key == key]
        if refused := [record for record in self.refused if (record.topic, record.key) == (topic, key)]:
            return sorted([*found, *refused], key=lambda record: (record.position, record.index))
        return found

    def gaps_of(self, feed: str) -> list[RecordedGap]:
        """Return the recorded gaps of a feed, in Kafka's order."""
        if feed not in self._gaps:
            self._gaps[feed] = [gap_of(record) for record in self.of(Topic.INGEST_GAPS, feed)]
        return self._gaps[feed]


def gap_of(record: PublishedRecord) -> RecordedGap:
    """Read a gap from its record."""
    gap = record.value
    return RecordedGap(
        gap["feed"], in_ms(gap["from"]), in_ms(gap["to"]), gap["from_sequence"], gap["to_sequence"], record
    )


@lru_cache(maxsize=4_096)
def in_ms(text: str) -> int:
    """Convert a published time to milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def published(topic: Topic, records: Iterable[Record]) -> list[PublishedRecord]:
    """Decode the records of a topic."""
    return [
        PublishedRecord(
            topic,
            record.partition,
            record.offset,
            (record.key or b"").decode(),
            _decode(record.value or b"null"),
            dict(record.headers),
        )
        for record in records
    ]
