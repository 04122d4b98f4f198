"""Reading the records of a time span from topics."""

from collections.abc import AsyncGenerator, Iterable, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from hedgelock_ingest.kafka.consumer import ConsumedRecord, open_consumer, read_between
from hedgelock_ingest.kafka.topics import check_topics, kafka_name
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.settings import Settings


async def read_span(
    settings: Settings, topics: Iterable[Topic], *, from_ms: int | None = None, to_ms: int | None = None
) -> AsyncGenerator[Sequence[ConsumedRecord]]:
    """
    Yield groups of records of a time span, in order within a partition, up to the present ends.

    Args:
        settings: Connection options of Kafka, and topic names.
        topics: The topics to read; one that does not exist yields nothing.
        from_ms: Start of the span in Kafka's record time, which is when the frame was read; None for the beginning.
        to_ms: End of the span, not included; None for the present end.

    Raises:
        KafkaUnavailable: No answer, or not in time.
    """
    counts = {report.name: report.partitions for report in await check_topics(settings) if report.exists}
    names = {kafka_name(settings, topic) for topic in topics} & counts.keys()
    partitions = [TopicPartition(name, number) for name in sorted(names) for number in range(counts[name])]
    if not partitions:  # aiokafka cancels the caller that stops a consumer without assigned partitions
        return
    async with open_consumer(settings) as consumer:
        consumer.assign(partitions)
        ends = await _offsets(consumer, partitions, to_ms, is_end=True)
        starts = await _offsets(consumer, partitions, from_ms, is_end=False)
        async for group in read_between(consumer, starts, ends):
            yield group


async def _offsets(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], at_ms: int | None, *, is_end: bool
) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    if at_ms is None:
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        return ends if is_end else begins
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, at_ms))
    return {each: ends[each] if found[each] is None else found[each].offset for each in partitions}
