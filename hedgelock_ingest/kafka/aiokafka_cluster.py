"""The Kafka cluster port, implemented on aiokafka."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager

from aiokafka import AIOKafkaConsumer, TopicPartition

from hedgelock_ingest.clock import Clock, SystemClock
from hedgelock_ingest.kafka.client import kafka_errors, new_consumer, new_producer
from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.ports import EndOffsets, KafkaTiming
from hedgelock_ingest.kafka.producer_session import AiokafkaProducerSession
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.kafka.topic_admin import ensure_topics
from hedgelock_ingest.kafka.topic_reports import TopicReport
from hedgelock_ingest.settings import Settings

_FETCH_MAX_WAIT_MS = 50
_FETCH_BYTES = 4 * 1024 * 1024
_MAX_RECORDS_PER_FETCH = 20_000


class AiokafkaCluster:
    """The Kafka cluster at the addresses in the settings."""

    def __init__(self, settings: Settings, clock: Clock, timing: KafkaTiming) -> None:
        """Prepare; nothing is connected."""
        self._settings = settings
        self._clock = clock
        self._timing = timing

    async def topics(self, *, create: bool | None = None) -> list[TopicReport]:
        """Report every topic, after creating those that are missing; see `ensure_topics`."""
        return await ensure_topics(self._settings, create=create)

    def producer(self) -> AiokafkaProducerSession:
        """Create an idempotent producer, not yet connected."""
        producer = new_producer(
            self._settings,
            request_timeout_ms=self._timing.answer_timeout_ms,
            retry_backoff_ms=self._timing.retry_ms,
        )
        return AiokafkaProducerSession(producer, self._settings, self._clock, self._timing)

    def reader(self) -> "AiokafkaTailReader":
        """Create a reader, not yet connected."""
        consumer = new_consumer(
            self._settings,
            auto_offset_reset="earliest",
            request_timeout_ms=int(self._timing.request_timeout_s * 1000),
            fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
            retry_backoff_ms=self._timing.retry_ms,
        )
        return AiokafkaTailReader(consumer, self._settings, self._clock, self._timing)


class AiokafkaTailReader:
    """An aiokafka consumer outside any consumer group."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: Settings, clock: Clock, timing: KafkaTiming) -> None:
        """Wrap a consumer that is not started."""
        self._consumer = consumer
        self._settings = settings
        self._clock = clock
        self._timing = timing

    async def open(self, partitions: Collection[TopicPartition]) -> None:
        """Connect; only these partitions can be read."""
        with self._errors():
            await self._consumer.start()
            self._consumer.assign(partitions)

    async def begins(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset of the first record that each partition still holds."""
        with self._errors():
            async with self._clock.timeout(self._step_timeout_s):
                offsets: EndOffsets = await self._consumer.beginning_offsets(partitions)
        return offsets

    async def ends(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset after the last record of each partition."""
        with self._errors():
            async with self._clock.timeout(self._step_timeout_s):
                offsets: EndOffsets = await self._consumer.end_offsets(partitions)
        return offsets

    async def read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Mapping[TopicPartition, Sequence[Headers]]]:
        """Yield the headers of the records from `starts` to `ends`, as they arrive."""
        consumer, timeout_ms = self._consumer, int(self._timing.read_timeout_s * 1000)
        left = {partition for partition, start in starts.items() if start < ends[partition]}
        with self._errors():
            for partition in left:
                consumer.seek(partition, starts[partition])
        while left:
            with self._errors():
                fetched = await consumer.getmany(*left, timeout_ms=timeout_ms, max_records=_MAX_RECORDS_PER_FETCH)
                # The position also passes offsets that hold no record, such as markers of transactions.
                left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
            if fetched:
                yield {partition: [m.headers for m in messages] for partition, messages in fetched.items()}

    async def close(self) -> None:
        """Stop the consumer."""
        with self._errors():
            async with self._clock.timeout(self._timing.request_timeout_s):
                await self._consumer.stop()

    @property
    def _step_timeout_s(self) -> float:
        # Less than the caller's, whose error does not explain which broker was not reached.
        return self._timing.request_timeout_s * 2 / 3

    def _errors(self) -> AbstractContextManager[None]:
        return kafka_errors(self._settings, self._consumer, operation="Read")


def kafka_publisher(settings: Settings, journal_id: str, *, clock: Clock | None = None) -> Publisher:
    """Create a publisher for the records of a journal, not yet connected; `clock` defaults to the system clock."""
    delivery_timeout_s = settings.kafka_delivery_timeout
    timing = KafkaTiming(
        delivery_timeout_s=delivery_timeout_s, open_timeout_s=min(KafkaTiming.open_timeout_s, delivery_timeout_s)
    )
    clock = clock or SystemClock()
    cluster = AiokafkaCluster(settings, clock, timing)
    return Publisher(settings, journal_id, cluster=cluster, clock=clock, timing=timing)
