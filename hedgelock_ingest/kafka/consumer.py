"""Reading topics, with headers, without a consumer group and without commits."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from hedgelock_ingest.kafka.client import kafka_errors, new_consumer
from hedgelock_ingest.kafka.headers import JOURNAL_ID, MESSAGE_TYPE, RecordName, name_in
from hedgelock_ingest.kafka.routes import types_in
from hedgelock_ingest.kafka.topic_admin import partitions_to_read
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings

CONNECT_TIMEOUT_S = 15.0
_FETCH_TIMEOUT_S = 15.0
_FETCH_WAIT_MS = 200
_MAX_RECORDS_PER_GROUP = 5_000


class ConsumedRecord(NamedTuple):
    """
    A record read from Kafka.

    `journal_id`, `name` and `message_type` are None on a record that another program wrote.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    journal_id: bytes | None
    name: RecordName | None
    timestamp_ms: int = 0
    message_type: str | None = None

    def is_of(self, types: Collection[str]) -> bool:
        """Return whether the value is of one of these message types; a topic may also hold copies of other types."""
        return self.message_type is None or self.message_type in types


@asynccontextmanager
async def open_consumer(
    settings: Settings, *, metadata_max_age_ms: int = 300_000, offset_reset: Literal["earliest", "latest"] = "earliest"
) -> AsyncIterator[AIOKafkaConsumer]:
    """
    Start a consumer, and stop it when the block ends.

    Args:
        settings: Connection options of Kafka.
        metadata_max_age_ms: How long an added partition may go unnoticed.
        offset_reset: Where to continue when a position is not in the log any more, or lies beyond its end.

    Raises:
        KafkaUnavailable: No answer, or not in time; also raised for errors of calls inside the block.
        KafkaDenied: The user may not read.
    """
    consumer = new_consumer(
        settings,
        auto_offset_reset=offset_reset,
        request_timeout_ms=int(CONNECT_TIMEOUT_S * 1000),
        retry_backoff_ms=300,
        metadata_max_age_ms=metadata_max_age_ms,
    )
    try:
        with kafka_errors(settings, consumer):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await consumer.start()
            yield consumer
    finally:
        with kafka_errors(settings, consumer):
            await consumer.stop()


async def read_between(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records, in order within a partition, from each start up to, not including, its end.

    The caller has assigned the partitions to the consumer.

    Raises:
        TimeoutError: A fetch took too long.
    """
    left = {partition for partition, start in starts.items() if start < ends[partition]}
    for partition in left:
        consumer.seek(partition, starts[partition])
    while left:
        async with asyncio.timeout(_FETCH_TIMEOUT_S):
            fetched = await consumer.getmany(*left, timeout_ms=_FETCH_WAIT_MS, max_records=_MAX_RECORDS_PER_GROUP)
            # Compaction skips offsets: compare the position reached, not the records seen.
            left = {each for each in left if await consumer.position(each) < ends[each]}
        yield [
            _consumed(message)
            for partition, messages in fetched.items()
            for message in messages
            if message.offset < ends[partition]
        ]


async def follow_on(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int]
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """Yield groups of records of assigned partitions from each start on, without end; empty while nothing arrives."""
    for partition, start in starts.items():
        consumer.seek(partition, start)
    while True:
        fetched = await consumer.getmany(timeout_ms=_FETCH_WAIT_MS, max_records=_MAX_RECORDS_PER_GROUP)
        yield [_consumed(message) for messages in fetched.values() for message in messages]


async def follow(settings: Settings, partitions: Mapping[str, int]) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records, in order within a partition, without end; an empty group while nothing arrives.

    Args:
        settings: Connection options of Kafka.
        partitions: Number of partitions by Kafka topic name.

    Raises:
        KafkaUnavailable: No broker answers, at the start or later.
    """
    assigned = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    async with open_consumer(settings) as consumer:
        consumer.assign(assigned)
        async for group in follow_on(consumer, await consumer.beginning_offsets(assigned)):
            yield group


async def follow_new(
    settings: Settings, topic: str, partitions: int, *, metadata_max_age_ms: int = 300_000
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records that are written to a topic from now on, without end; an empty group while none arrives.

    Partitions that are added to the topic meanwhile are read from their beginning.

    Args:
        settings: Connection options of Kafka.
        topic: Kafka's name of an existing topic.
        partitions: Its number of partitions.
        metadata_max_age_ms: How long an added partition may go unnoticed.

    Raises:
        KafkaUnavailable: No broker answers, at the start or later.
    """
    assigned = {TopicPartition(topic, number) for number in range(partitions)}
    async with open_consumer(settings, metadata_max_age_ms=metadata_max_age_ms, offset_reset="latest") as consumer:
        consumer.assign(assigned)
        starts = await consumer.end_offsets(assigned)
        while True:
            added: set[TopicPartition] = set()
            async with aclosing(follow_on(consumer, starts)) as groups:
                async for group in groups:
                    yield group
                    numbers = consumer.partitions_for_topic(topic) or ()
                    if added := {TopicPartition(topic, number) for number in numbers} - assigned:
                        break
            starts = {each: await consumer.position(each) for each in assigned}
            assigned |= added
            consumer.assign(assigned)
            starts |= await consumer.beginning_offsets(added)


async def read_span(
    settings: Settings,
    topics: Collection[Topic],
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    with_further: bool = False,
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records of a time span, in order within a partition, up to the present ends.

    Copies of other types that are sent to these topics are left out.

    Args:
        settings: Connection options of Kafka, and topic names.
        topics: The topics to read; one that does not exist yields nothing.
        from_ms: Start of the span in Kafka's record time, which is when the frame was read; None for the beginning.
        to_ms: End of the span, not included; None for the present end.
        with_further: Whether to read the further topics of `KAFKA_ROUTES`, too, for the copies of these records.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    types = types_in(settings, topics, with_further=with_further)
    counts = await partitions_to_read(settings, types)
    partitions = [TopicPartition(name, number) for name in sorted(counts) for number in range(counts[name])]
    if not partitions:  # aiokafka cancels the caller that stops a consumer without assigned partitions
        return
    async with open_consumer(settings) as consumer:
        consumer.assign(partitions)
        ends = await _offsets(consumer, partitions, to_ms, is_end=True)
        starts = await _offsets(consumer, partitions, from_ms, is_end=False)
        async for group in read_between(consumer, starts, ends):
            yield [record for record in group if record.is_of(types[record.topic])]


async def _offsets(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], at_ms: int | None, *, is_end: bool
) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    if at_ms is None:
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        return ends if is_end else begins
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, at_ms))
    return {each: ends[each] if found[each] is None else found[each].offset for each in partitions}


def _consumed(message: ConsumerRecord[bytes, bytes]) -> ConsumedRecord:
    headers = dict(message.headers)
    journal_id, message_type = headers.get(JOURNAL_ID), headers.get(MESSAGE_TYPE)
    name = None if journal_id is None else name_in(message.headers, journal_id)
    location = message.topic, message.partition, message.offset
    return ConsumedRecord(
        *location,
        message.key,
        message.value,
        journal_id,
        name,
        message.timestamp,
        None if message_type is None else message_type.decode(errors="replace"),
    )
