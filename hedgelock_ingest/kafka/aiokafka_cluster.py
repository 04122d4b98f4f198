"""The Kafka cluster port, implemented on aiokafka's connections, metadata and producer ids."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock, SystemClock
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.ports import EndOffsets, ProduceAnswer
from hedgelock_ingest.kafka.produce import Produce
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.kafka.timing import KafkaTiming
from hedgelock_ingest.kafka.topics import TopicReport, ensure_topics
from hedgelock_ingest.settings import Settings

log = structlog.get_logger(__name__)

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

    async def topics(self) -> list[TopicReport]:
        """Create missing topics if the settings allow it, and report every topic; raises as `ensure_topics`."""
        return await ensure_topics(self._settings)

    def producer(self) -> "AiokafkaProducerSession":
        """Create an idempotent producer, not yet connected."""
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=self._timing.ask_ms,
            retry_backoff_ms=self._timing.retry_ms,
        )
        return AiokafkaProducerSession(producer, self._clock, self._timing)

    def reader(self) -> "AiokafkaTailReader":
        """Create a reader, not yet connected."""
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=int(self._timing.request_timeout_s * 1000),
            fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
            retry_backoff_ms=self._timing.retry_ms,
        )
        return AiokafkaTailReader(consumer, self._clock, self._timing)


class AiokafkaProducerSession:
    """
    An aiokafka producer whose queue and sender are not used.

    Only its connections, metadata and id are used, so nothing may be sent through the producer itself.
    """

    def __init__(self, producer: AIOKafkaProducer, clock: Clock, timing: KafkaTiming) -> None:
        """Wrap an idempotent producer."""
        self._producer = producer
        self._client = producer.client
        self._clock = clock
        self._timing = timing
        # Called for every batch, so it is bound directly, without a method in between.
        self.leader_of = producer.client.cluster.leader_for_partition

    async def open(self, topics: Collection[str]) -> None:
        """Connect, get a producer id, and fetch the leaders of these topics."""
        await self._producer.start()
        for topic in topics:  # else the first send to a topic waits for this
            await self._producer.partitions_for(topic)

    @property
    def producer_id(self) -> int:
        """The producer id that the cluster assigned."""
        return int(self._producer._txn_manager.producer_id)

    @property
    def epoch(self) -> int:
        """The epoch of the producer id."""
        return int(self._producer._txn_manager.producer_epoch)

    async def produce(
        self, leader: int, batches: Mapping[TopicPartition, bytes], *, ask_ms: int
    ) -> Mapping[TopicPartition, ProduceAnswer]:
        """Send batches to a broker, and wait for its response."""
        try:
            response = await self._client.send(leader, Produce(batches, ask_ms=ask_ms))
        except AiokafkaError:
            raise
        except Exception as error:  # aiokafka raises assertion errors while it reopens a connection
            raise AiokafkaError(f"{type(error).__name__} during a produce request") from error
        answers: Mapping[TopicPartition, ProduceAnswer] = response.answers
        return answers

    def renew_leaders(self) -> None:
        """Request fresh metadata on partition leaders; does not wait."""
        self._client.force_metadata_update()

    async def leaders_renewed(self) -> None:
        """Wait for the metadata request that is under way, if there is one."""
        await self._client._maybe_wait_metadata()

    async def close(self) -> None:
        """Close the producer in bounded time, whatever state it is in."""
        transports = [each._writer.transport for each in self._client._conns.values() if each._writer is not None]
        try:
            # aiokafka's stop() waits for the write buffers and the TLS shutdown: without end if the peer does not read.
            async with self._clock.timeout(self._timing.stop_timeout_s):
                await self._producer.stop()
        except (TimeoutError, AiokafkaError, OSError) as error:
            log.warning("producer_abandoned", cause=type(error).__name__)
            await self._abandon(transports)

    async def _abandon(self, transports: Iterable[asyncio.Transport]) -> None:
        """Abort the connections of a producer whose `stop` hangs, and end its tasks."""
        for transport in transports:
            transport.abort()
        task = self._producer._sender.sender_task
        if task is not None and not task.done():
            task.cancel()
        # It may await a future that `stop` has cancelled; its own cancellation must not reach this task.
        closing = asyncio.ensure_future(self._client.close())
        await asyncio.wait({closing}, timeout=self._timing.stop_timeout_s)
        closing.cancel()


class AiokafkaTailReader:
    """An aiokafka consumer outside any consumer group."""

    def __init__(self, consumer: AIOKafkaConsumer, clock: Clock, timing: KafkaTiming) -> None:
        """Wrap a consumer that is not started."""
        self._consumer = consumer
        self._clock = clock
        self._timing = timing

    async def open(self, partitions: Collection[TopicPartition]) -> None:
        """Connect; only these partitions can be read."""
        await self._consumer.start()
        self._consumer.assign(partitions)

    async def begins(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset of the first record that each partition still holds."""
        offsets: EndOffsets = await self._consumer.beginning_offsets(partitions)
        return offsets

    async def ends(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset after the last record of each partition."""
        offsets: EndOffsets = await self._consumer.end_offsets(partitions)
        return offsets

    async def read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Mapping[TopicPartition, Sequence[Headers]]]:
        """Yield the headers of the records from `starts` to `ends`, as they arrive."""
        consumer, timeout_ms = self._consumer, int(self._timing.read_timeout_s * 1000)
        left = {partition for partition, start in starts.items() if start < ends[partition]}
        for partition in left:
            consumer.seek(partition, starts[partition])
        while left:
            fetched = await consumer.getmany(*left, timeout_ms=timeout_ms, max_records=_MAX_RECORDS_PER_FETCH)
            # The position also passes offsets that hold no record, such as markers of transactions.
            left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
            if fetched:
                yield {partition: [m.headers for m in messages] for partition, messages in fetched.items()}

    async def close(self) -> None:
        """Stop the consumer."""
        async with self._clock.timeout(self._timing.request_timeout_s):
            await self._consumer.stop()


def kafka_publisher(settings: Settings, journal_id: str, *, clock: Clock | None = None) -> Publisher:
    """Create a publisher for the records of a journal, not yet connected; `clock` defaults to the system clock."""
    patience_s = settings.kafka_delivery_timeout
    timing = KafkaTiming(patience_s=patience_s, open_timeout_s=min(KafkaTiming.open_timeout_s, patience_s))
    clock = clock or SystemClock()
    cluster = AiokafkaCluster(settings, clock, timing)
    return Publisher(settings, journal_id, cluster=cluster, clock=clock, timing=timing)
