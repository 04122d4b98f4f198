"""The simulation's implementation of the Kafka cluster port: every call goes over a simulated connection."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.ports import EndOffsets, ProduceAnswer
from hedgelock_ingest.kafka.routes import contract_of, written_topics
from hedgelock_ingest.kafka.topic_admin import REQUEST_TIMEOUT_S
from hedgelock_ingest.kafka.topic_metadata import NO_LEADER
from hedgelock_ingest.kafka.topic_reports import TopicReport
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.simulation.broker_network import Network
from hedgelock_ingest_tests.simulation.broker_storage import BrokerStorage
from hedgelock_ingest_tests.simulation.lifetime import Lifetime

_BROKER = 1
_RETRY_S = 0.3
_EPOCH = 0


class MemoryCluster:
    """The cluster of one process."""

    def __init__(
        self, storage: BrokerStorage, network: Network, clock: Clock, settings: Settings, lifetime: Lifetime
    ) -> None:
        """Prepare; nothing is connected."""
        self._storage = storage
        self._network = network
        self._clock = clock
        self._settings = settings
        self._lifetime = lifetime

    async def topics(self, *, create: bool | None = None) -> list[TopicReport]:
        """Report every topic, after creating what is missing, if enabled."""
        create = self._settings.kafka_create_topics if create is None else create
        connection = self._network.connect(self._lifetime)
        try:
            async with self._clock.timeout(REQUEST_TIMEOUT_S):
                reports: list[TopicReport] = await connection.ask(partial(self._report, create=create))
        except (TimeoutError, AiokafkaError) as error:
            raise KafkaUnavailable(f"no usable answer from Kafka ({type(error).__name__})") from error
        finally:
            connection.close()
        return reports

    def producer(self) -> "MemoryProducerSession":
        """Return a new idempotent producer, not yet connected."""
        return MemoryProducerSession(self._storage, self._network, self._lifetime)

    def reader(self) -> "MemoryTailReader":
        """Return a reader, not yet connected."""
        return MemoryTailReader(self._storage, self._network, self._clock, self._lifetime)

    def _report(self, *, create: bool) -> list[TopicReport]:
        settings, stored = self._settings, self._storage.topics
        names = written_topics(settings)
        missing = {name for name in names if name not in stored}
        if create:
            for name in sorted(missing):
                self._storage.create(name, settings.kafka_topic_partitions)
        return [self._report_of(topic, name, is_new=name in missing) for name, topic in names.items()]

    def _report_of(self, topic: Topic | None, name: str, *, is_new: bool) -> TopicReport:
        found = self._storage.topics.get(name)
        if found is None:
            return TopicReport(topic, name, exists=False, differences=("missing",))
        wanted, contract = self._settings.kafka_topic_partitions, contract_of(self._settings, name)
        return TopicReport(
            topic,
            name,
            exists=True,
            created=is_new,
            partitions=found.partitions,
            leaderless=sum(partition.topic == name for partition in self._storage.leaderless),
            replication=1,
            min_insync_replicas=1,
            cleanup=contract.cleanup,
            retention_ms=contract.retention_ms,
            max_message_bytes=found.reported_bytes,
            denied=("Read", "Write") if self._storage.is_denied(name) else (),
            differences=() if found.partitions == wanted else (f"{found.partitions} partitions, expected {wanted}",),
        )


class MemoryProducerSession:
    """One idempotent producer."""

    def __init__(self, storage: BrokerStorage, network: Network, lifetime: Lifetime) -> None:
        """Prepare; nothing is connected."""
        self._storage = storage
        self._connection = network.connect(lifetime)
        self._leaderless: frozenset[TopicPartition] = frozenset()
        self._renewal: asyncio.Future[frozenset[TopicPartition]] | None = None
        self.producer_id = -1
        self.epoch = _EPOCH

    async def open(self, topics: Collection[str]) -> None:
        """Request a producer id and the leaders."""
        self.producer_id = await self._connection.ask(self._storage.new_producer_id)
        self._leaderless = await self._connection.ask(self._storage.leaderless_now)

    def leader_of(self, partition: TopicPartition, /) -> int | None:
        """Return the broker, or None if the partition had no leader at the last request."""
        return NO_LEADER if partition in self._leaderless else _BROKER

    async def produce(
        self, leader: int, batches: Mapping[TopicPartition, bytes], *, answer_timeout_ms: int
    ) -> Mapping[TopicPartition, ProduceAnswer]:
        """Send batches, and wait without a timeout: the caller's is shorter than `answer_timeout_ms`."""
        serve = partial(self._storage.produce, dict(batches))
        answers: Mapping[TopicPartition, ProduceAnswer] = await self._connection.ask(serve, may_be_lost=True)
        return answers

    def renew_leaders(self) -> None:
        """Start to request the leaders again."""
        if self._renewal is None or self._renewal.done():
            self._renewal = self._connection.ask(self._storage.leaderless_now)
            self._renewal.add_done_callback(self._learn)

    async def leaders_renewed(self) -> None:
        """Wait for the renewal that is under way."""
        if self._renewal is not None and not self._renewal.done():
            await asyncio.wait({self._renewal})

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _learn(self, renewal: asyncio.Future[frozenset[TopicPartition]]) -> None:
        # As in aiokafka: when the request fails, the known leaders stay.
        if not renewal.cancelled() and renewal.exception() is None:
            self._leaderless = renewal.result()


class MemoryTailReader:
    """One consumer without a group, which repeats requests that the broker does not answer."""

    def __init__(self, storage: BrokerStorage, network: Network, clock: Clock, lifetime: Lifetime) -> None:
        """Prepare; nothing is connected."""
        self._storage = storage
        self._clock = clock
        self._connection = network.connect(lifetime)

    async def open(self, partitions: Collection[TopicPartition]) -> None:
        """Connect; fails at once when the broker is down."""
        await self._connection.ask(self._storage.leaderless_now)

    async def begins(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset of the first record of each partition."""
        offsets: EndOffsets = await self._answer(partial(self._storage.begins, partitions))
        return offsets

    async def ends(self, partitions: Collection[TopicPartition]) -> EndOffsets:
        """Return the offset after the last record of each partition."""
        offsets: EndOffsets = await self._answer(partial(self._storage.ends, partitions))
        return offsets

    async def read(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[Mapping[TopicPartition, Sequence[Headers]]]:
        """Yield the headers of the records between two offsets."""
        positions = {partition: start for partition, start in starts.items() if start < ends[partition]}
        while positions:
            fetched = await self._answer(partial(self._storage.fetch, dict(positions)))
            found: dict[TopicPartition, list[Headers]] = {}
            for partition, batches in fetched.items():
                records = [record for batch in batches for record in batch.records(*partition)]
                found[partition] = [
                    each.headers
                    for each in records
                    if each.offset >= positions[partition] and not self._storage.is_compacted(partition, each.offset)
                ]
                positions[partition] = records[-1].offset + 1
            positions = {each: position for each, position in positions.items() if position < ends[each]}
            if found:
                yield found
            else:
                await self._clock.sleep(_RETRY_S)

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    async def _answer(self, serve: Callable[[], Any]) -> Any:
        while True:
            try:
                return await self._connection.ask(serve)
            except AiokafkaError as error:
                if not error.retriable:
                    raise
            await self._clock.sleep(_RETRY_S)
