"""
One partition of the simulated broker: its record batches, and the rules for batches of idempotent producers.

Source of the rules: Apache Kafka 4, `UnifiedLog.append`, `ProducerStateEntry` and `ProducerAppendInfo`.
"""

import struct
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from operator import attrgetter
from typing import Final, NamedTuple

from aiokafka.errors import (
    CorruptRecordException,
    InvalidProducerEpoch,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    NoError,
    OutOfOrderSequenceNumber,
)
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.ports import ProduceAnswer

_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
_CHECKED_FROM: Final = 21
_BYTES_NOT_COUNTED: Final = 12
_MAGIC: Final = 2
_NO_PRODUCER: Final = -1
_REMEMBERED_BATCHES: Final = 5
_LAST_IN_SEQUENCE: Final = 2**31 - 1
_MAX_AHEAD_MS: Final = 3_600_000
_FORGOTTEN_AFTER_MS: Final = 86_400_000
_FORGETS_EVERY_MS: Final = 600_000
_NONE: Final[int] = NoError.errno


class StoredRecord(NamedTuple):
    """A record as a partition holds it, with the names that aiokafka's `ConsumerRecord` has."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class StoredBatch(NamedTuple):
    """The bytes of a batch as sent, the offset of its first record, and the offset after its last."""

    base_offset: int
    end_offset: int
    content: bytes

    def records(self, topic: str, partition: int) -> Iterator[StoredRecord]:
        """Decode its records."""
        batch = MemoryRecords(self.content).next_batch()
        assert batch is not None
        for one in batch:
            # aiokafka counts from the base offset in the bytes, which a producer leaves at 0.
            offset = self.base_offset + one.offset
            yield StoredRecord(topic, partition, offset, one.timestamp, one.key, one.value, one.headers)


class _Producer:
    """
    A partition's state of one producer.

    It has the epoch, (first number, last number, offset) of the last batches, and the time of the last record.
    """

    __slots__ = ("epoch", "last_ms", "recent")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.last_ms = 0
        self.recent: deque[tuple[int, int, int]] = deque(maxlen=_REMEMBERED_BATCHES)


class PartitionLog:
    """Batches in the order of their offsets."""

    def __init__(self, counts: Counter[str], now_ms: int) -> None:
        """Begin with an empty log, which counts the results of batches in `counts`."""
        self.batches: list[StoredBatch] = []
        self.end = 0
        self.compacted: set[int] = set()
        self._producers: dict[int, _Producer] = {}
        self._forgot_ms = now_ms
        self._counts = counts

    def append(self, content: bytes, *, limit_bytes: int, now_ms: int) -> ProduceAnswer:
        """Append a batch, or return the error for which it is refused."""
        if len(content) < _HEAD.size:
            return self._refused(CorruptRecordException.errno)
        head = _HEAD.unpack_from(content)
        _, length, _, magic, checksum, _, last_delta, _, last_ms, producer_id, epoch, first, count = head
        if len(content) > limit_bytes:
            return self._refused(MessageSizeTooLargeError.errno)
        is_complete = magic == _MAGIC and length + _BYTES_NOT_COUNTED == len(content) and last_delta == count - 1
        if not is_complete or calc_crc32c(memoryview(content)[_CHECKED_FROM:]) != checksum:
            return self._refused(CorruptRecordException.errno)
        if last_ms > now_ms + _MAX_AHEAD_MS:
            return self._refused(InvalidTimestampError.errno)
        if now_ms >= self._forgot_ms + _FORGETS_EVERY_MS:
            self.forget_old_producers(now_ms)
        offset = self.end
        if producer_id != _NO_PRODUCER:
            producer = self._producers.get(producer_id)
            if producer is None:
                producer = self._producers[producer_id] = _Producer(epoch)
            last = first + count - 1 & _LAST_IN_SEQUENCE
            if producer.epoch == epoch:
                for known in producer.recent:
                    if known[0] == first and known[1] == last:
                        self._counts["repeated"] += 1
                        return _NONE, known[2]
            code = _sequence_error(producer, epoch, first)
            if code != _NONE:
                return self._refused(code)
            if producer.epoch != epoch:
                producer.epoch = epoch
                producer.recent.clear()
            producer.recent.append((first, last, offset))
            producer.last_ms = last_ms
        self.end = offset + count
        self.batches.append(StoredBatch(offset, self.end, content))
        self._counts["appended"] += 1
        return _NONE, offset

    def forget_old_producers(self, now_ms: int) -> None:
        """
        Forget the producers whose last record has a timestamp more than a day old.

        Kafka does this every ten minutes and at its start.

        Source: Apache Kafka, `producer.id.expiration.ms`, `ProducerStateManager.isProducerExpired`.
        """
        self._forgot_ms = now_ms
        for producer_id, producer in list(self._producers.items()):
            if now_ms - producer.last_ms >= _FORGOTTEN_AFTER_MS:
                del self._producers[producer_id]
                self._counts["producers_forgotten"] += 1

    def compact(self, topic: str, partition: int) -> None:
        """Note which records a compacted topic would have deleted by now: all but the last of each key."""
        last = {record.key: record.offset for batch in self.batches for record in batch.records(topic, partition)}
        self.compacted = set(range(self.end)) - set(last.values())

    def batches_from(self, start: int, limit: int) -> list[StoredBatch]:
        """Return up to `limit` batches, starting with the one that holds offset `start`."""
        first = bisect_right(self.batches, start, key=attrgetter("end_offset"))
        return self.batches[first : first + limit]

    def _refused(self, code: int) -> ProduceAnswer:
        self._counts[f"refused_{code}"] += 1
        return code, -1


def _sequence_error(producer: _Producer, epoch: int, first: int) -> int:
    """Return the error's number if a batch that begins with `first` may not come next, else 0."""
    if epoch < producer.epoch:
        return int(InvalidProducerEpoch.errno)
    if not producer.recent:  # an unknown producer may begin with any number
        return _NONE
    expected = 0 if epoch > producer.epoch else producer.recent[-1][1] + 1 & _LAST_IN_SEQUENCE
    return _NONE if first == expected else int(OutOfOrderSequenceNumber.errno)
