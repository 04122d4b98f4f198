"""What is handed to Kafka, before Kafka's own words for it."""

import msgspec

from hedgelock_ingest.models.topics import Topic


class Record(msgspec.Struct, frozen=True, gc=False):
    """
    One record; `value` is JSON.

    (`position`, `number`) names it: the position of its frame in the journal, and its place among the records of
    that frame in the same topic. `trace_id` is the frame's UUID as text. `exchange_ms` is Bybit's time of the message.
    """

    topic: Topic
    key: bytes
    value: bytes
    position: int
    number: int
    trace_id: str
    exchange_ms: int
    received_ns: int


class RefusedRecord(msgspec.Struct, frozen=True):
    """
    A dead letter that no topic can take, such as a record above the largest message.

    (`position`, `record_index`, `topic`) names the record: adding it again counts an attempt more.
    """

    position: int
    record_index: int
    topic: str
    reason: str
    body: bytes
    at_ns: int
    attempts: int = 1
