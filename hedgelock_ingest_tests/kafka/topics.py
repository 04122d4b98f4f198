"""Creating and changing topics with an admin client, as an operator would."""

import os
from collections.abc import Mapping

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError

from hedgelock_ingest_tests.processes.stage import eventually


async def create_topic(
    bootstrap_servers: str,
    name: str,
    *,
    partitions: int = 1,
    limit_bytes: int | None = None,
    configs: Mapping[str, str] | None = None,
) -> None:
    """Create a topic with one replica."""
    configs = dict(configs or {}) | ({} if limit_bytes is None else {"max.message.bytes": str(limit_bytes)})
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
    await admin.close()


async def delete_records(bootstrap_servers: str, topic: str, before: Mapping[int, int]) -> None:
    """Delete the records of a topic before an offset of each partition, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(before_offset=offset) for number, offset in before.items()}
        )
    finally:
        await admin.close()


async def alter_largest_message(bootstrap_servers: str, topic: str, largest_bytes: int) -> None:
    """Change a topic's `max.message.bytes`, and wait until the broker applies it; sends records without headers."""
    await _alter(bootstrap_servers, topic, "max.message.bytes", largest_bytes)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, max_request_size=2**20) as producer:

        async def is_refused() -> bool:
            try:
                await producer.send_and_wait(topic, os.urandom(largest_bytes + 1), partition=0)
            except MessageSizeTooLargeError:
                return True
            return False

        await eventually(f"{topic} takes no more than {largest_bytes} bytes", is_refused)


async def alter_largest_age(bootstrap_servers: str, topic: str, age_ms: int) -> None:
    """Change a topic's `message.timestamp.before.max.ms`, and wait until the broker applies it."""
    await _alter(bootstrap_servers, topic, "message.timestamp.before.max.ms", age_ms)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:

        async def is_refused() -> bool:
            try:
                await producer.send_and_wait(topic, b"old", partition=0, timestamp_ms=1)
            except InvalidTimestampError:
                return True
            return False

        await eventually(f"{topic} refuses records of {age_ms} ms", is_refused)


async def _alter(bootstrap_servers: str, topic: str, name: str, value: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: str(value)})])
    finally:
        await admin.close()


async def is_missing(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Return whether the broker has deleted a topic."""
    return topic not in await admin.list_topics()
