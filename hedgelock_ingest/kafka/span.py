"""Read what topics hold of a span of time, and stop at its end."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.kafka.follower import Followed, followed
from hedgelock_ingest.kafka.topics import check_topics, kafka_name
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings

_TIMEOUT_S = 15.0
_WAIT_MS = 1_000
_RECORDS_AT_ONCE = 5_000


async def read_span(
    settings: Settings, topics: Iterable[Topic], *, from_ms: int | None = None, to_ms: int | None = None
) -> AsyncGenerator[Sequence[Followed]]:
    """
    Yield groups of records, in order within a partition, up to what is there now.

    Args:
        settings: How Kafka is reached, and what topics are called there.
        topics: Those that are read; a topic that does not exist holds nothing.
        from_ms: Kafka's time of the first record, which is when its frame was read; None for all.
        to_ms: The first time that is not wanted; None for all there is.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    counts = {report.name: report.partitions for report in await check_topics(settings) if report.exists}
    names = {kafka_name(settings, topic) for topic in topics} & counts.keys()
    partitions = [TopicPartition(name, number) for name in sorted(names) for number in range(counts[name])]
    if not partitions:  # aiokafka cancels its caller when a consumer is stopped that was given nothing
        return
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest", retry_backoff_ms=300
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await consumer.start()
            consumer.assign(partitions)
            ends = await _offsets(consumer, partitions, to_ms, is_end=True)
            starts = await _offsets(consumer, partitions, from_ms, is_end=False)
        left = {partition for partition in partitions if starts[partition] < ends[partition]}
        for partition in left:
            consumer.seek(partition, starts[partition])
        while left:
            async with asyncio.timeout(_TIMEOUT_S):
                fetched = await consumer.getmany(*left, timeout_ms=_WAIT_MS, max_records=_RECORDS_AT_ONCE)
                left = {each for each in left if await consumer.position(each) < ends[each]}
            yield [
                followed(message)
                for partition, messages in fetched.items()
                for message in messages
                if message.offset < ends[partition]
            ]
    except TimeoutError as error:
        raise KafkaUnavailable(f"no answer within {_TIMEOUT_S:g} s while reading") from error
    except (AiokafkaError, OSError) as error:
        raise KafkaUnavailable(f"{type(error).__name__} while reading") from error
    finally:
        await consumer.stop()


async def _offsets(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], at_ms: int | None, *, is_end: bool
) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    if at_ms is None:
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        return ends if is_end else begins
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, at_ms))
    return {each: ends[each] if found[each] is None else found[each].offset for each in partitions}
