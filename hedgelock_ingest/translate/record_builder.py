"""Builder that collects and numbers the records of frames."""

from collections.abc import Mapping

import msgspec

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.formatting import uuid_text
from hedgelock_ingest.translate.record import Record

type Value = Mapping[str, object] | msgspec.Struct
"""The fields of a topic's model, in JSON's types."""

_encode = msgspec.json.Encoder().encode


class RecordBuilder:
    """
    Collects records frame by frame; the records of a frame are numbered within each topic, in their order.

    They are numbered within each topic because a frame may be translated again from an older state after the journal
    was damaged: a gap that is found only then must not renumber the frame's records that Kafka holds already.
    """

    __slots__ = ("_first", "frame", "position", "records", "trace_id")

    frame: Frame
    position: int
    trace_id: str

    def __init__(self) -> None:
        """Start without a frame."""
        self.records: list[Record] = []
        self._first = 0

    def begin(self, position: int, frame: Frame, trace_id: str | None = None) -> None:
        """Start the records of one frame; `trace_id` is its trace as text, if the caller has it already."""
        self.position = position
        self.frame = frame
        self.trace_id = trace_id or uuid_text(frame.trace)
        self._first = len(self.records)

    def add(self, topic: Topic, key: bytes, value: Value, exchange_ms: int) -> None:
        """Add one record of the frame."""
        records = self.records
        number = 0 if len(records) == self._first else self._number(topic)
        body, received_ns = _encode(value), self.frame.received_ns
        records.append(Record(topic, key, body, self.position, number, self.trace_id, exchange_ms, received_ns))

    def leave_out(self, topic: Topic | None = None) -> None:
        """Remove the frame's records, or those of one topic."""
        kept = [record for record in self.records[self._first :] if topic not in (None, record.topic)]
        self.records[self._first :] = kept

    def _number(self, topic: Topic) -> int:
        last = self.records[-1]
        if last.topic is topic:
            return last.number + 1
        return sum([record.topic is topic for record in self.records[self._first :]])
