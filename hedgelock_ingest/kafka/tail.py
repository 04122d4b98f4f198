"""Read a topic for people: its last records, and those that follow."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from hedgelock_ingest.errors import TopicMismatch
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.kafka.consumer import CONNECT_TIMEOUT_S, ConsumedRecord, follow_on, open_consumer, read_between
from hedgelock_ingest.settings import Settings

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
    topic = settings.topic(topic)
    async with open_consumer(settings) as consumer:
        partitions = await _partitions(settings, topic, only.partition)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        last = await _last_records(consumer, ends, count, only)
        if count > 0 and not last:
            on_none()
        for record in last:
            yield record
        if follow:
            async with aclosing(follow_on(consumer, ends)) as groups:
                async for group in groups:
                    for found in map(_record, group):
                        if only.takes(found):
                            yield found


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
        records = [
            record
            async for group in read_between(consumer, first, ends)
            for record in map(_record, group)
            if only.takes(record)
        ]
        is_all = first == beginnings or depth >= DEEPEST_SEARCH or only.key is None
        if len(records) >= count or is_all:
            records.sort(key=lambda record: (record.timestamp_ms, record.partition, record.offset))
            return records[-count:]
        depth = min(depth * 10, DEEPEST_SEARCH)


def _record(found: ConsumedRecord) -> ReadRecord:
    key = None if found.key is None else found.key.decode(errors="replace")
    return ReadRecord(found.partition, found.offset, found.timestamp_ms, key, found.value)
