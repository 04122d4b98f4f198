"""Storage of the simulated broker: topics with their partitions and leaders; it survives a restart of the broker."""

import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTimestampError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.kafka.ports import EndOffsets, ProduceAnswer
from hedgelock_ingest_tests.simulation.partition_log import PartitionLog, StoredBatch

DEFAULT_LIMIT_BYTES = 1_048_588
"""Kafka's own default of `max.message.bytes`."""
_FIRST_PRODUCER_ID = 1_000
_BATCHES_AT_ONCE = 200
_INVALID_RECORD = 87
_DENIED: Final[int] = TopicAuthorizationFailedError.errno


@dataclass(frozen=True, slots=True)
class StoredTopic:
    """A topic's settings; `reported_bytes` is the limit that clients are shown."""

    partitions: int
    limit_bytes: int = DEFAULT_LIMIT_BYTES
    reported_bytes: int = DEFAULT_LIMIT_BYTES


class BrokerStorage:
    """All topics; each method serves one kind of request, and returns at once."""

    def __init__(self, clock: Clock) -> None:
        """Begin with no topics."""
        self.topics: dict[str, StoredTopic] = {}
        self.logs: dict[TopicPartition, PartitionLog] = {}
        self.leaderless: frozenset[TopicPartition] = frozenset()
        self.counts: Counter[str] = Counter()
        self.refusals: dict[str, int] = {}
        self.largest_age_ms: dict[str, int] = {}
        self.refused_values: dict[str, bytes] = {}
        self._clock = clock
        self._producer_ids = itertools.count(_FIRST_PRODUCER_ID)

    def create(self, name: str, partitions: int, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Create an empty topic, which replaces one of the same name."""
        self.topics[name] = StoredTopic(partitions, limit_bytes, limit_bytes)
        for number in range(partitions):
            self.logs[TopicPartition(name, number)] = PartitionLog(self.counts, wall_ms(self._clock))

    def delete(self, name: str) -> None:
        """Delete a topic."""
        for number in range(self.topics.pop(name).partitions):
            del self.logs[TopicPartition(name, number)]

    def start(self) -> None:
        """Load the data, as a broker does at its start."""
        for log in self.logs.values():
            log.forget_old_producers(wall_ms(self._clock))

    def limit(self, name: str, limit_bytes: int, *, is_reported: bool = True) -> None:
        """Set a topic's `max.message.bytes`, or the actual limit without reporting it."""
        before = self.topics[name]
        reported_bytes = limit_bytes if is_reported else before.reported_bytes
        self.topics[name] = replace(before, limit_bytes=limit_bytes, reported_bytes=reported_bytes)

    def new_producer_id(self) -> int:
        """Return an id that no other producer has."""
        return next(self._producer_ids)

    def leaderless_now(self) -> frozenset[TopicPartition]:
        """Return the partitions without a leader."""
        return self.leaderless

    def produce(self, batches: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, ProduceAnswer]:
        """Append batches, one a partition."""
        now_ms = wall_ms(self._clock)
        answers = {}
        for partition, content in batches.items():
            log = self.logs.get(partition)
            if log is None:
                answers[partition] = UnknownTopicOrPartitionError.errno, -1
            elif partition in self.leaderless:
                answers[partition] = NotLeaderForPartitionError.errno, -1
            elif (code := self._refusal(partition, content, now_ms)) is not None:
                self.counts[f"refused_{code}"] += 1
                answers[partition] = code, -1
            else:
                limit_bytes = self.topics[partition.topic].limit_bytes
                answers[partition] = log.append(content, limit_bytes=limit_bytes, now_ms=now_ms)
        return answers

    def _refusal(self, partition: TopicPartition, content: bytes, now_ms: int) -> int | None:
        """Return the code for which a topic refuses a batch whatever its numbers, if it does."""
        topic = partition.topic
        if topic in self.refusals:
            return self.refusals[topic]
        if topic not in self.largest_age_ms and topic not in self.refused_values:
            return None
        records = list(StoredBatch(0, 0, content).records(*partition))
        oldest_ms = now_ms - self.largest_age_ms.get(topic, now_ms)
        if any(record.timestamp < oldest_ms for record in records):
            return int(InvalidTimestampError.errno)
        value = self.refused_values.get(topic)
        return _INVALID_RECORD if value is not None and any(value in (each.value or b"") for each in records) else None

    def is_denied(self, topic: str) -> bool:
        """Return whether the user may neither read nor write a topic."""
        return self.refusals.get(topic) == _DENIED

    def compact(self, topic: str) -> None:
        """Hide from readers all but the last record of each key, as a compacted topic deletes them."""
        for number in range(self.topics[topic].partitions):
            self.logs[TopicPartition(topic, number)].compact(topic, number)

    def begins(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the first offsets; raises aiokafka's error for a partition without a leader."""
        return dict.fromkeys(self.ends(partitions), 0)

    def ends(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offsets after the last records; raises aiokafka's error for a partition without a leader."""
        for partition in partitions:
            if self.is_denied(partition.topic):
                raise TopicAuthorizationFailedError(partition.topic)
            if partition not in self.logs:
                raise UnknownTopicOrPartitionError(partition)
            if partition in self.leaderless:
                raise NotLeaderForPartitionError(partition)
        return {partition: self.logs[partition].end for partition in partitions}

    def is_compacted(self, partition: TopicPartition, offset: int) -> bool:
        """Return whether a record is hidden."""
        return offset in self.logs[partition].compacted

    def fetch(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, list[StoredBatch]]:
        """Return the next batches of each partition, from the one that holds a position; none without a leader."""
        return {
            partition: found
            for partition, position in positions.items()
            if partition in self.logs and partition not in self.leaderless
            if (found := self.logs[partition].batches_from(position, _BATCHES_AT_ONCE))
        }
