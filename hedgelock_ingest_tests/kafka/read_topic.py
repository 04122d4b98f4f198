"""Reading all records of a topic with a plain consumer."""

import asyncio

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

type Record = ConsumerRecord[bytes | None, bytes | None]


async def read_topic(bootstrap_servers: str, topic: str, *, timeout_s: float = 30.0) -> list[Record]:
    """
    Return every record from the beginning to the present end, partition by partition in offset order.

    Aborted and open transactions are left out, tombstones and duplicates are not.

    Raises:
        AssertionError: There is no such topic.
        TimeoutError: The broker did not deliver all records in time.
    """
    async with asyncio.timeout(timeout_s):
        partitions = await _partitions_of(bootstrap_servers, topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=8_388_608,
        )
        await consumer.start()
        try:
            return await _read_all(consumer, partitions)
        finally:
            await consumer.stop()


async def _partitions_of(bootstrap_servers: str, topic: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    numbers = sorted(partition["partition"] for partition in described["partitions"])
    assert numbers, f"there is no topic {topic}"
    return [TopicPartition(topic, number) for number in numbers]


async def _read_all(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> list[Record]:
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    end_by_partition = await consumer.end_offsets(partitions)
    records: list[Record] = []
    # The position also passes offsets that hold no record, such as compacted ones and transaction markers.
    while unread := [each for each in partitions if await consumer.position(each) < end_by_partition[each]]:
        for fetched in (await consumer.getmany(*unread, timeout_ms=100)).values():
            records.extend(fetched)
    within_end = (r for r in records if r.offset < end_by_partition[TopicPartition(r.topic, r.partition)])
    return sorted(within_end, key=lambda record: (record.partition, record.offset))
