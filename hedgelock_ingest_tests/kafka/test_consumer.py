"""Reading a time span of topics, and what is written from now on."""

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from hedgelock_ingest.kafka.consumer import follow_new, read_span
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.topics import create_topic


async def test_topic_that_does_not_exist_yields_nothing(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """Gaps are listed, and audits run, before the first stream has created the topics."""
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic_ingest_gaps=topic_prefix + "gaps")
    assert [group async for group in read_span(settings, [Topic.INGEST_GAPS])] == []
    assert [group async for group in read_span(settings, [Topic.INGEST_GAPS], from_ms=1, to_ms=2)] == []


async def test_new_records_are_read_once_also_from_partitions_that_are_added(
    kafka: EmbeddedKafka, topic_prefix: str
) -> None:
    """A topic may grow while it is read: nothing is missed, and nothing that was read before comes again."""
    topic, servers = topic_prefix + "grows", kafka.bootstrap_servers
    await create_topic(servers, topic, partitions=1)
    settings = Settings(kafka_bootstrap_servers=servers)
    values: list[bytes | None] = []
    async with AIOKafkaProducer(bootstrap_servers=servers, metadata_max_age_ms=200) as producer, asyncio.timeout(60):
        await producer.send_and_wait(topic, b"old", partition=0)

        async def write() -> None:
            await producer.send_and_wait(topic, b"first", partition=0)
            await _grow(servers, topic, partitions=2)
            await _send_to_added(producer, topic)

        writing: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            async for group in follow_new(settings, topic, 1, metadata_max_age_ms=200):
                values += [record.value for record in group]
                writing = writing or tasks.create_task(write())  # the first group comes from the end on
                if values[-1:] == [b"added"]:
                    await producer.send_and_wait(topic, b"last", partition=0)
                elif values[-1:] == [b"last"]:
                    break
    assert values == [b"first", b"added", b"last"]


async def _grow(servers: str, topic: str, *, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(total_count=partitions)})
    finally:
        await admin.close()


async def _send_to_added(producer: AIOKafkaProducer, topic: str) -> None:
    while len(await producer.partitions_for(topic)) < 2:  # noqa: ASYNC110  # the client gives no event
        await asyncio.sleep(0.05)
    await producer.send_and_wait(topic, b"added", partition=1)
