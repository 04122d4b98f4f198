"""Addresses: the topic, the partition and the encoded key of each record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from hedgelock_ingest.kafka.batch_format import with_length
from hedgelock_ingest.kafka.topic_reports import TopicReport
from hedgelock_ingest.models.topics import Topic

_BATCH_BYTES = 256 * 1024
_OVERHEAD_BYTES = 1_024  # upper bound for a batch header and the headers of a record
_MAX_DEAD_LETTER_BYTES = 700_000 * 4 // 3 + 4_096


@dataclass(frozen=True, eq=False, slots=True)
class Partition:
    """A partition, hashed by identity, which is faster than hashing its name."""

    topic_partition: TopicPartition


@dataclass(frozen=True, slots=True)
class Target:
    """The topic of a type of records, its own or a further one; the targets of one topic share its partitions."""

    name: str
    largest_bytes: int
    partitions: Sequence[Partition]
    routes: dict[bytes, tuple[Partition, bytes]] = field(default_factory=dict)

    def route(self, key: bytes) -> tuple[Partition, bytes]:
        """Return the partition of a key, and the key as encoded in records."""
        partition = self.partitions[partition_for(key, len(self.partitions))]
        found = self.routes[key] = (partition, with_length(key))
        return found


class Addresses:
    """
    The targets of records, by the record's topic: `home` is its own topic, `further` those of its copies.

    `topic_of` are our topics by Kafka's name; `batch_bytes` bounds a batch of each topic before compression.
    """

    def __init__(
        self, reports: Sequence[TopicReport], partitions: Mapping[str, int], further: Mapping[Topic, Sequence[str]]
    ) -> None:
        """
        Address records to topics.

        Args:
            reports: All topics that are written; one that is missing takes records of the default size.
            partitions: The number of partitions of each.
            further: The names of the further topics, by the records' own topic.
        """
        by_topic: dict[str, list[Partition]] = {}
        limits: dict[str, int] = {}
        for report in reports:
            numbers = range(partitions[report.name])
            by_topic[report.name] = [Partition(TopicPartition(report.name, number)) for number in numbers]
            limits[report.name] = report.assumed_max_message_bytes - _OVERHEAD_BYTES if report.exists else _BATCH_BYTES
        self.batch_bytes = {name: min(_BATCH_BYTES, limit) for name, limit in limits.items()}

        def target(topic: Topic, name: str) -> Target:
            is_letter = topic is Topic.INGEST_DEAD_LETTERS
            largest_bytes = min(limits[name], _MAX_DEAD_LETTER_BYTES) if is_letter else limits[name]
            return Target(name, largest_bytes, by_topic[name])

        own_names = {report.topic: report.name for report in reports if report.topic is not None}
        self.topic_of = {name: topic.value for topic, name in own_names.items()}
        self.home = {topic: target(topic, name) for topic, name in own_names.items()}
        self.further = {topic: [target(topic, name) for name in names] for topic, names in further.items()}


def partition_for(key: bytes, partitions: int) -> int:
    """
    Return the partition of a key, 0 to `partitions` - 1, as Kafka's default partitioner does.

    Source: Apache Kafka, `BuiltInPartitioner.partitionForKey`.
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
