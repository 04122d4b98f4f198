"""Read a topic for people: its last records, and those that follow. Joins no consumer group and commits nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as AioKafkaError

from hedgelock_ingest.errors import KafkaUnavailable, TopicMismatch
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.settings import Settings

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
# A key that is rare, or not there at all, must not make us read a whole topic.
DEEPEST_SEARCH = 100_000


class ReadRecord(NamedTuple):
    """A record as it stands in Kafka."""

    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records of a topic are wanted; without anything set, all."""

    partition: int | None = None
    key: str | None = None

    def takes(self, record: ReadRecord) -> bool:
        """Whether a record of a wanted partition is wanted."""
        return self.key is None or record.key == self.key


@dataclass(slots=True)
class _Window:
    """The part of each partition that is read: from a first offset up to, not including, an end."""

    first: dict[TopicPartition, int]
    end: dict[TopicPartition, int]
    left: set[TopicPartition] = field(init=False)

    def __post_init__(self) -> None:
        self.left = {partition for partition, first in self.first.items() if first < self.end[partition]}


async def tail(
    settings: Settings,
    topic: str,
    *,
    count: int = 10,
    follow: bool = False,
    only: Filter = Filter(),
    on_none: Callable[[], None] = lambda: None,
) -> AsyncGenerator[ReadRecord]:
    """
    Yield the last records of a topic, oldest first, then each new one if `follow`.

    Args:
        settings: How Kafka is reached and what topics are called there.
        topic: Our name of it, such as `market-data`, or its name in Kafka.
        count: How many of the last records over all partitions; with a key, among the last 100,000 of each.
        follow: Go on until cancelled; order then holds within a partition.
        only: Which records are wanted.
        on_none: Called when last records are wanted and there are none, before any new one is waited for.

    Raises:
        KafkaUnavailable: No broker answers, or not in time.
        TopicMismatch: No such topic or partition; the message lists those there are.
    """
    with _unavailable(settings):
        records = _tail(settings, settings.topic(topic), count=count, follow=follow, only=only, on_none=on_none)
        async with aclosing(records):
            async for record in records:
                yield record


async def _tail(
    settings: Settings, topic: str, *, count: int, follow: bool, only: Filter, on_none: Callable[[], None]
) -> AsyncGenerator[ReadRecord]:
    partitions = await _partitions(settings, topic, only.partition)
    async with _consumer(settings) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        last = await _last_records(consumer, ends, count, only)
        if count > 0 and not last:
            on_none()
        for record in last:
            yield record
        if follow:
            for partition, offset in ends.items():
                consumer.seek(partition, offset)
            async for found in consumer:
                record = _record(found)
                if only.takes(record):
                    yield record


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, group_id=None)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


@contextmanager
def _unavailable(settings: Settings) -> Iterator[None]:
    """Turn what goes wrong with Kafka into our own error."""
    try:
        yield
    except (AioKafkaError, OSError) as error:
        raise KafkaUnavailable(
            f"no usable answer from Kafka at {settings.kafka_bootstrap_servers} ({type(error).__name__}); "
            "start it, or correct KAFKA_BOOTSTRAP_SERVERS"
        ) from error


async def _partitions(settings: Settings, topic: str, wanted: int | None) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await admin.start()
            # All topics are asked for, since asking for a missing one by name may make Kafka create it.
            topics = await admin.list_topics()
            if topic not in topics:
                there = ", ".join(sorted(name for name in topics if not name.startswith("__"))) or "none"
                raise TopicMismatch(f'no topic "{topic}" in Kafka; there are: {there}')
            (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    numbers = sorted(each["partition"] for each in described["partitions"])
    if wanted is not None and wanted not in numbers:
        raise TopicMismatch(f"topic {topic} has no partition {wanted}; it has 0 to {numbers[-1]}")
    return [TopicPartition(topic, number) for number in numbers if wanted in (None, number)]


async def _last_records(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], count: int, only: Filter
) -> list[ReadRecord]:
    """Read back as far as it takes to find `count` records, further at each try where a key is asked for."""
    if count <= 0:
        return []
    beginnings = await consumer.beginning_offsets(list(ends))
    depth = count
    while True:
        first = {partition: max(beginnings[partition], end - depth) for partition, end in ends.items()}
        records = [record for record in await _read(consumer, _Window(first, ends)) if only.takes(record)]
        is_all = first == beginnings or depth >= DEEPEST_SEARCH or only.key is None
        if len(records) >= count or is_all:
            records.sort(key=lambda record: (record.timestamp_ms, record.partition, record.offset))
            return records[-count:]
        depth = min(depth * 10, DEEPEST_SEARCH)


async def _read(consumer: AIOKafkaConsumer, window: _Window) -> list[ReadRecord]:
    for partition, offset in window.first.items():
        consumer.seek(partition, offset)
    records: list[ReadRecord] = []
    async with asyncio.timeout(READ_TIMEOUT_S):
        while window.left:
            batches = await consumer.getmany(*window.left, timeout_ms=200)
            for partition, found in batches.items():
                records += _before(found, window.end[partition])
            # Compaction leaves holes in the numbers, so the place reached counts, not the records seen.
            for partition in list(window.left):
                if await consumer.position(partition) >= window.end[partition]:
                    window.left.discard(partition)
    return records


def _before(found: Iterable[ConsumerRecord], end: int) -> list[ReadRecord]:
    return [_record(each) for each in found if each.offset < end]


def _record(found: ConsumerRecord) -> ReadRecord:
    key = None if found.key is None else found.key.decode(errors="replace")
    return ReadRecord(found.partition, found.offset, found.timestamp, key, found.value)
