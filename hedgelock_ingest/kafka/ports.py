"""The Kafka cluster port of publishing, and its timing; `AiokafkaCluster` and the simulation implement it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiokafka import TopicPartition

from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.topic_reports import TopicReport

type EndOffsets = dict[TopicPartition, int]

type ProduceAnswer = tuple[int, int]
"""A leader's answer for one batch: Kafka's error code, 0 for none, and the offset of its first record or -1."""


@dataclass(frozen=True)
class KafkaTiming:
    """
    Timeouts and pauses of publishing, in seconds.

    Args:
        delivery_timeout_s: How long records may stay unacknowledged, with retries, before the producer is replaced.
        open_timeout_s: How long a producer may take to connect.
        stop_timeout_s: How long a producer may take to stop before its connections are aborted.
        retry_s: The pause before a request is retried.
        patience_s: How long a batch whose refusal may pass delays the other partitions.
        blocked_retry_s: The shortest and the longest pause before a blocked topic is tried again.
        request_timeout_s: How long each step of reading back the tails may take.
        read_timeout_s: How long one fetch waits for records.
        quiet_s: How long the ends of the topics must not move, where bytes of a killed producer may arrive late.
        max_settling_rounds: The most waits of `quiet_s` for the ends.
    """

    delivery_timeout_s: float = 60.0
    open_timeout_s: float = 20.0
    stop_timeout_s: float = 2.0
    retry_s: float = 0.3
    patience_s: float = 2.0
    blocked_retry_s: tuple[float, float] = (0.5, 30.0)
    request_timeout_s: float = 15.0
    read_timeout_s: float = 1.0
    quiet_s: float = 0.3
    max_settling_rounds: int = 7

    @property
    def answer_timeout_ms(self) -> int:
        """How long a broker may take to answer for batches, milliseconds; longer than `delivery_timeout_s`."""
        return int(2 * self.delivery_timeout_s * 1000)

    @property
    def retry_ms(self) -> int:
        """`retry_s` in milliseconds, as aiokafka takes it."""
        return int(self.retry_s * 1000)


class ProducerSession(Protocol):
    """An idempotent producer: its id, and its connections to the brokers."""

    async def open(self, topics: Collection[str]) -> None:
        """
        Connect, get a producer id, and fetch the leaders of these topics.

        After a failure or a cancellation, the caller must call `close`.

        Raises:
            KafkaUnavailable, aiokafka.errors.KafkaError, OSError: No usable answer; nothing else.
            KafkaDenied: The user lacks a permission.
        """
        ...

    @property
    def producer_id(self) -> int:
        """The producer id that the cluster assigned; unique in the cluster."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch of the producer id."""
        ...

    def leader_of(self, partition: TopicPartition, /) -> int | None:
        """Return the broker that leads a partition by the last metadata; None or `NO_LEADER` where there is none."""
        ...

    async def produce(
        self, leader: int, batches: Mapping[TopicPartition, bytes], *, answer_timeout_ms: int
    ) -> Mapping[TopicPartition, ProduceAnswer]:
        """
        Send one record batch per partition to the broker that leads it, and wait for its answer.

        After a cancellation the batches may still arrive.

        Raises:
            aiokafka.errors.KafkaError: No answer; the batches may have arrived, or may still arrive.
        """
        ...

    def renew_leaders(self) -> None:
        """Request fresh metadata on partition leaders, unless a request is under way; does not wait."""
        ...

    async def leaders_renewed(self) -> None:
        """Wait for the metadata request that is under way, if there is one."""
        ...

    async def close(self) -> None:
        """Close the producer in bounded time, whatever state it is in; batches already sent may still arrive."""
        ...


class TailReader(Protocol):
    """
    Reads the tails of partitions.

    All methods raise `KafkaUnavailable`, `KafkaDenied`, aiokafka's `KafkaError` or `OSError`, and nothing else. Only
    `close` is bounded in time; the others retry when a connection breaks.
    """

    async def open(self, partitions: Collection[TopicPartition]) -> None:
        """Connect for these partitions only. After a failure or a cancellation, the caller must call `close`."""
        ...

    async def begins(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset of the first record that each partition still holds."""
        ...

    async def ends(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset after the last record of each partition, as its leader reports it now."""
        ...

    def read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Mapping[TopicPartition, Sequence[Headers]]]:
        """
        Yield the headers of the records from `starts` to `ends`, in order within a partition; never an empty mapping.

        The iterator ends when all are read, and may yield a few records after the ends.
        """
        ...

    async def close(self) -> None:
        """Close the reader; raises `KafkaUnavailable` or `TimeoutError` if that takes too long."""
        ...


class Cluster(Protocol):
    """A Kafka cluster as one shard uses it."""

    async def topics(self, *, create: bool | None = None) -> list[TopicReport]:
        """
        Create missing topics, if enabled, and report every topic.

        Args:
            create: Overrides `KAFKA_CREATE_TOPICS`.

        Raises:
            KafkaUnavailable: No usable answer in time.
            KafkaDenied: The user may not create a topic.
            TopicMismatch: Kafka refuses to create a topic.
        """
        ...

    def producer(self) -> ProducerSession:
        """Create an idempotent producer, not yet connected."""
        ...

    def reader(self) -> TailReader:
        """Create a reader, not yet connected."""
        ...
