"""Records as translation makes them, independent of any Kafka client."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from hedgelock_ingest.models.topics import Topic


class Record(msgspec.Struct, frozen=True, gc=False):
    """
    One record; `value` is JSON.

    (`position`, `number`) identify it: the position of its frame in the journal, and its index among the records of
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


class Refusal(msgspec.Struct, frozen=True):
    """A record that Kafka refuses permanently, and the reason."""

    record: Record
    reason: str


type Keep = Callable[[Sequence[Refusal]], Awaitable[None]]
"""Stores durably the records that Kafka refuses permanently."""


class RefusedRecord(msgspec.Struct, frozen=True):
    """
    A record that no topic accepts, such as one above the maximum message size.

    (`position`, `record_index`, `topic`) identify the record: adding it again increments `attempts`.
    """

    position: int
    record_index: int
    topic: str
    reason: str
    body: bytes
    at_ns: int
    attempts: int = 1
