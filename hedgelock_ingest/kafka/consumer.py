"""The one way in which topics are read: no consumer group, no commit, headers and all."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.kafka.headers import JOURNAL_ID, RecordName, name_in
from hedgelock_ingest.settings import Settings

CONNECT_TIMEOUT_S = 15.0
_FETCH_TIMEOUT_S = 15.0
_WAIT_MS = 200
_FETCH_RECORDS = 5_000


class ConsumedRecord(NamedTuple):
    """A record as it stands in Kafka; `journal_id` and `name` are None on a record that is not ours."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    journal_id: bytes | None
    name: RecordName | None
    timestamp_ms: int = 0


@asynccontextmanager
async def open_consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """
    Start a consumer, and stop it at the end.

    Raises:
        KafkaUnavailable: No answer, or not in time; also for what is done with the consumer.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest", retry_backoff_ms=300
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await consumer.start()
        yield consumer
    except (AiokafkaError, OSError) as error:  # a timeout is an OSError, too
        raise KafkaUnavailable(
            f"no usable answer from Kafka at {settings.kafka_bootstrap_servers} ({type(error).__name__}); "
            "start it, or correct KAFKA_BOOTSTRAP_SERVERS"
        ) from error
    finally:
        await consumer.stop()


async def read_between(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records, in order within a partition, from each start up to, not including, its end.

    The partitions are assigned to the consumer already.

    Raises:
        TimeoutError: A fetch took too long.
    """
    left = {partition for partition, start in starts.items() if start < ends[partition]}
    for partition in left:
        consumer.seek(partition, starts[partition])
    while left:
        async with asyncio.timeout(_FETCH_TIMEOUT_S):
            fetched = await consumer.getmany(*left, timeout_ms=_WAIT_MS, max_records=_FETCH_RECORDS)
            # Compaction leaves gaps in the offsets: the place reached counts, not the records seen.
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
    """Yield groups of records of assigned partitions from each start on, for ever; empty ones while nothing comes."""
    for partition, start in starts.items():
        consumer.seek(partition, start)
    while True:
        fetched = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_FETCH_RECORDS)
        yield [_consumed(message) for messages in fetched.values() for message in messages]


async def follow(
    settings: Settings, partitions: Mapping[str, int], *, from_end: bool = False
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records, in order within a partition, for ever; an empty group when nothing comes for a while.

    Args:
        settings: How Kafka is reached.
        partitions: How many each topic has, by Kafka's name.
        from_end: Only what comes from now on.

    Raises:
        KafkaUnavailable: No broker answers at the start, or none any more.
    """
    wanted = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    async with open_consumer(settings) as consumer:
        consumer.assign(wanted)
        starts = await (consumer.end_offsets(wanted) if from_end else consumer.beginning_offsets(wanted))
        async for group in follow_on(consumer, starts):
            yield group


def _consumed(message: ConsumerRecord[bytes, bytes]) -> ConsumedRecord:
    journal_id = dict(message.headers).get(JOURNAL_ID)
    name = None if journal_id is None else name_in(message.headers, journal_id)
    place = message.topic, message.partition, message.offset
    return ConsumedRecord(*place, message.key, message.value, journal_id, name, message.timestamp)
