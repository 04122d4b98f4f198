"""The records of one frame while they are being made."""

from collections.abc import Mapping

import msgspec

from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.text import uuid_text

type Value = Mapping[str, object] | msgspec.Struct
"""The fields of a topic's model, in JSON's types."""

_encode = msgspec.json.Encoder().encode
_MESSAGE_TYPE = {topic: contract.message.__name__.encode() for topic, contract in CONTRACTS.items()}


class Making:
    """
    Collects the records of one frame, numbered within each topic in the order they are added.

    Within each topic, since after a damage of the journal a frame may be translated again from an older state: a gap
    that is found only then must not change the names that the frame's other records have in Kafka already.
    """

    __slots__ = ("frame", "position", "records", "trace_id")

    def __init__(self, position: int, frame: Frame) -> None:
        self.position = position
        self.frame = frame
        self.trace_id = uuid_text(frame.trace)
        self.records: list[Record] = []

    def add(self, topic: Topic, key: bytes, value: Value, exchange_ms: int) -> None:
        """Add one record."""
        records = self.records
        number = sum([record.topic is topic for record in records]) if records else 0
        body, kind, received_ns = _encode(value), _MESSAGE_TYPE[topic], self.frame.received_ns
        records.append(Record(topic, key, body, kind, self.position, number, self.trace_id, exchange_ms, received_ns))
