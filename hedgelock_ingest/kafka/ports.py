"""What publishing needs of a Kafka cluster; `AiokafkaCluster` is the real one, the simulation has one in memory."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from aiokafka import TopicPartition

from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.topics import TopicReport

type EndOffsets = dict[TopicPartition, int]


class ProduceAnswer(NamedTuple):
    """What a leader says of one batch: Kafka's error code, 0 for none, and the offset of its first record or -1."""

    code: int
    offset: int


class TailRecord(NamedTuple):
    """A record as the tail of a partition holds it; of its content only the headers matter."""

    offset: int
    headers: Headers


class ProducerSession(Protocol):
    """One idempotent producer: its id, and its connections to the brokers."""

    producer_id: int
    epoch: int

    def leader_of(self, partition: TopicPartition) -> int | None:
        """Name the broker that leads a partition, as far as is known; None where nobody does."""
        ...

    async def produce(
        self, leader: int, batches: Mapping[TopicPartition, bytes], *, ask_ms: int
    ) -> Mapping[TopicPartition, ProduceAnswer]:
        """
        Send record batches to a broker and wait for its answer, up to `ask_ms` milliseconds.

        Raises:
            aiokafka.errors.KafkaError: No answer; the batches may have arrived all the same.
        """
        ...

    async def learn_leaders(self, *, are_wrong: bool) -> None:
        """Wait for newer knowledge of the leaders where some is under way; ask for it where what is known is wrong."""
        ...

    async def close(self) -> None:
        """End the producer in bounded time, whatever state it is in."""
        ...


class TailReader(Protocol):
    """Reads the ends of partitions; its methods raise aiokafka's `KafkaError`, or `OSError`."""

    async def begins(self, partitions: Iterable[TopicPartition]) -> EndOffsets:
        """Give the offset of the first record that each partition still has."""
        ...

    async def ends(self, partitions: Iterable[TopicPartition]) -> EndOffsets:
        """Give the offset behind the last record of each partition."""
        ...

    def read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Mapping[TopicPartition, Sequence[TailRecord]]]:
        """Yield what lies between, in order within a partition; at the end when all of it was given."""
        ...


class Cluster(Protocol):
    """A Kafka cluster as one shard uses it."""

    async def topics(self) -> list[TopicReport]:
        """
        Report every topic of ours, after creating what is missing if the settings allow it.

        Raises:
            KafkaUnavailable: No usable answer in time.
            TopicMismatch: Kafka refuses to create a topic.
        """
        ...

    async def producer(self) -> ProducerSession:
        """
        Connect a new idempotent producer that knows the leaders of all topics of ours.

        Raises:
            KafkaUnavailable: No usable answer in time.
        """
        ...

    def reader(self) -> AbstractAsyncContextManager[TailReader]:
        """Connect a reader for the length of a block; raises as the reader does."""
        ...
