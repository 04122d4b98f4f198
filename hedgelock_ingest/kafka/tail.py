"""The last records of a topic, and those that follow, for the command `tail`."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from hedgelock_ingest.errors import TopicMismatch
from hedgelock_ingest.kafka.client import denied, kafka_errors, new_admin
from hedgelock_ingest.kafka.consumer import CONNECT_TIMEOUT_S, ConsumedRecord, follow_on, open_consumer, read_between
from hedgelock_ingest.kafka.routes import written_topics
from hedgelock_ingest.kafka.topic_admin import missing_topic
from hedgelock_ingest.kafka.topic_metadata import find_topics
from hedgelock_ingest.settings import Settings

# Bounds the search for a rare or absent key, which would otherwise read the complete topic.
MAX_RECORDS_SEARCHED = 100_000


class ReadRecord(NamedTuple):
    """A record of one topic, as read from Kafka."""

    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: bytes | None
    message_type: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Selection of a topic's records; without any field set, all."""

    partition: int | None = None
    key: str | None = None
    message_type: str | None = None

    def takes(self, record: ReadRecord) -> bool:
        """Return whether a record of a selected partition matches."""
        has_key = self.key is None or record.key == self.key
        # Records of other programs state no type.
        return has_key and (self.message_type is None or record.message_type in (None, self.message_type))


async def tail(
    settings: Settings,
    topic: str,
    *,
    count: int = 10,
    follow: bool = False,
    only: Filter = Filter(),
    on_none: Callable[[], None] = lambda: None,
    on_caught_up: Callable[[], None] = lambda: None,
) -> AsyncGenerator[ReadRecord]:
    """
    Yield the last records of a topic, oldest first, then each new one if `follow`.

    Args:
        settings: Connection options of Kafka, and topic names.
        topic: The logical name, such as `market-data`, or the name in Kafka.
        count: Number of last records over all partitions; with a key or type, among at least the last
            100,000 of each.
        follow: Continue until cancelled; order then holds within a partition.
        only: The selection of records.
        on_none: Called when last records are requested and there are none, before new ones are awaited.
        on_caught_up: Called after the last records, before new ones are awaited.

    Raises:
        KafkaUnavailable: No broker answers, or not in time.
        KafkaDenied: The user may not read the topic.
        TopicMismatch: No such topic or partition; the message lists the existing ones.
    """
    topic = settings.topic(topic)
    # Before a consumer is open: aiokafka cancels the caller that stops a consumer without assigned partitions.
    partitions = await _partitions(settings, topic, only.partition)
    async with open_consumer(settings) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        last = await _last_records(consumer, ends, count, only)
        if count > 0 and not last:
            on_none()
        for record in last:
            yield record
        on_caught_up()
        if follow:
            async with aclosing(follow_on(consumer, ends)) as groups:
                async for group in groups:
                    for found in map(_record, group):
                        if only.takes(found):
                            yield found


async def _partitions(settings: Settings, topic: str, wanted: int | None) -> list[TopicPartition]:
    admin = new_admin(settings)
    try:
        with kafka_errors(settings, admin):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await admin.start()
                found = (await find_topics(admin, [topic]))[topic]
                if found.error_code == TopicAuthorizationFailedError.errno:
                    raise denied(settings, ["Read"], [topic])
                if found.error_code and topic in written_topics(settings):
                    raise missing_topic(settings, topic)
                if found.error_code:
                    topics = await admin.list_topics()
                    existing = ", ".join(sorted(name for name in topics if not name.startswith("__"))) or "none"
                    raise TopicMismatch(f'no topic "{topic}" in Kafka; existing topics: {existing}')
    finally:
        await admin.close()
    numbers = range(found.partitions)
    if wanted is not None and wanted not in numbers:
        raise TopicMismatch(f"topic {topic} has no partition {wanted}; it has 0 to {numbers[-1]}")
    return [TopicPartition(topic, number) for number in numbers if wanted in (None, number)]


class _Search:
    """
    A search back from the end of a partition, further with each step.

    Offsets are no number of records: compaction and markers of transactions leave any number of them empty.
    """

    def __init__(self, begin: int, end: int) -> None:
        self.found: list[ReadRecord] = []
        self.begin, self.end, self.first = begin, end, end
        self._depth = 0
        self._records_read = 0
        self._oldest_ms: int | None = None

    def is_done(self, count: int, newest: Sequence[ReadRecord]) -> bool:
        """Return whether none of the last `count` records is further back; `newest` are those found anywhere."""
        if self.first == self.begin or len(self.found) >= count or self._records_read >= MAX_RECORDS_SEARCHED:
            return True
        return self._oldest_ms is not None and len(newest) == count and self._oldest_ms < newest[0].timestamp_ms

    def next_start(self, count: int) -> int:
        """Return the offset from which to read next, up to `first`: ten times as far back, less near the bound."""
        factor = 10 if not self._records_read else max(2, min(10, MAX_RECORDS_SEARCHED // self._records_read))
        self._depth = self._depth * factor or count
        return max(self.begin, self.end - self._depth)

    def add(self, start: int, records: Sequence[ReadRecord], only: Filter) -> None:
        """Note all records from `start` up to `first`."""
        self.found = [record for record in records if only.takes(record)] + self.found
        self.first = start
        self._records_read += len(records)
        if records:
            self._oldest_ms = records[0].timestamp_ms


async def _last_records(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], count: int, only: Filter
) -> list[ReadRecord]:
    """Read back in each partition until no further record can be among the last `count` ones of all."""
    if count <= 0:
        return []
    begins = await consumer.beginning_offsets(list(ends))
    searches = {partition: _Search(begins[partition], end) for partition, end in ends.items()}
    newest: list[ReadRecord] = []
    while left := {each: search for each, search in searches.items() if not search.is_done(count, newest)}:
        starts = {each: search.next_start(count) for each, search in left.items()}
        read: dict[int, list[ReadRecord]] = {each.partition: [] for each in left}
        async for group in read_between(consumer, starts, {each: search.first for each, search in left.items()}):
            for record in map(_record, group):
                read[record.partition].append(record)
        for each, search in left.items():
            search.add(starts[each], read[each.partition], only)
        found = [record for search in searches.values() for record in search.found]
        newest = sorted(found, key=lambda record: (record.timestamp_ms, record.partition, record.offset))[-count:]
    return newest


def _record(found: ConsumedRecord) -> ReadRecord:
    key = None if found.key is None else found.key.decode(errors="replace")
    return ReadRecord(found.partition, found.offset, found.timestamp_ms, key, found.value, found.message_type)
