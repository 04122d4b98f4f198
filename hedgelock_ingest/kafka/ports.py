"""What publishing needs of a Kafka cluster; `AiokafkaCluster` is the real one, the simulation has one in memory."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

from aiokafka import TopicPartition

from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.topics import TopicReport

type EndOffsets = dict[TopicPartition, int]

type ProduceAnswer = tuple[int, int]
"""What a leader answers for one batch: Kafka's error code, 0 for none, and the offset of its first record or -1."""

NO_LEADER = -1


class ProducerSession(Protocol):
    """One idempotent producer: its id, and its connections to the brokers."""

    async def open(self, topics: Collection[str]) -> None:
        """
        Connect, get an id, and learn the leaders of these topics.

        After a failure, or when it is cancelled, `close` must follow.

        Raises:
            aiokafka.errors.KafkaError: No usable answer.
            OSError: No connection.
        """
        ...

    @property
    def producer_id(self) -> int:
        """The id that the cluster has given to this producer, and to no other."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch of the id."""
        ...

    def leader_of(self, partition: TopicPartition, /) -> int | None:
        """Give the broker that leads a partition, as far as is known; None or `NO_LEADER` where there is none."""
        ...

    async def produce(
        self, leader: int, batches: Mapping[TopicPartition, bytes], *, ask_ms: int
    ) -> Mapping[TopicPartition, ProduceAnswer]:
        """
        Send one record batch a partition to the broker that leads it, and wait for the answer, up to `ask_ms`.

        When it is cancelled the batches may arrive all the same.

        Raises:
            aiokafka.errors.KafkaError: No answer; the batches may have arrived, or may still arrive.
        """
        ...

    def renew_leaders(self) -> None:
        """Begin to ask anew who leads which partition, unless that is under way."""
        ...

    async def leaders_renewed(self) -> None:
        """Wait for the renewal that is under way, if there is one."""
        ...

    async def close(self) -> None:
        """End the producer in bounded time, whatever state it is in; what has left may still arrive."""
        ...


class TailReader(Protocol):
    """
    Reads the tails of partitions.

    All methods raise aiokafka's `KafkaError`, or `OSError`. Only `close` is bounded in time; where a connection breaks,
    the others go on asking.
    """

    async def open(self, partitions: Collection[TopicPartition]) -> None:
        """Connect; only these partitions can be read. After a failure, or when it is cancelled, `close` must follow."""
        ...

    async def begins(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Give the offset of the first record that each partition still has."""
        ...

    async def ends(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Give the offset behind the last record of each partition, as its leader answers now."""
        ...

    def read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Mapping[TopicPartition, Sequence[Headers]]]:
        """
        Yield the headers of the records between, in order within a partition, as they come; never an empty mapping.

        It ends when all was read, and may give a few records behind the ends.
        """
        ...

    async def close(self) -> None:
        """End the reader; raises `TimeoutError` where it takes too long."""
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

    def producer(self) -> ProducerSession:
        """Make a new idempotent producer, not yet connected."""
        ...

    def reader(self) -> TailReader:
        """Make a reader, not yet connected."""
        ...
