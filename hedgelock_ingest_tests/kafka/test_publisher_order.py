"""Order and once-only when Kafka refuses a batch that others of the same key follow."""

import os
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from hedgelock_ingest.errors import ProducerSpent
from hedgelock_ingest.kafka.assembly import kafka_publisher
from hedgelock_ingest.kafka.partitioning import partition_for
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.kafka.reading import read_topic
from hedgelock_ingest_tests.scenarios.stage import eventually

KEY = b"linear:BTCUSDT"
PROBED = (partition_for(KEY, 6) + 1) % 6
"""Another partition than that of the records."""


def a_record(position: int, *, value_bytes: int, topic: Topic = Topic.MARKET_TRADES) -> Record:
    """Make a record of one key whose value does not compress."""
    value = os.urandom(value_bytes)
    return Record(topic, KEY, value, position, 0, str(UUID(int=position)), 1, 1_000_000)


async def alter_largest_message(bootstrap_servers: str, topic: str, largest_bytes: int) -> None:
    """Change a topic's `max.message.bytes`, and wait until the broker goes by it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        configs = {"max.message.bytes": str(largest_bytes)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, max_request_size=2**20) as producer:

        async def is_refused() -> bool:
            try:
                await producer.send_and_wait(topic, os.urandom(largest_bytes + 1), partition=PROBED)
            except MessageSizeTooLargeError:
                return True
            return False

        await eventually(f"{topic} takes no more than {largest_bytes} bytes", is_refused)


async def make_topic_anew(bootstrap_servers: str, topic: str, largest_bytes: int) -> None:
    """Delete a topic and create it again, so that the broker has forgotten all producers."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        await eventually(f"{topic} is gone", lambda: is_missing(admin, topic))
        await admin.create_topics([NewTopic(topic, 6, 1, topic_configs={"max.message.bytes": str(largest_bytes)})])
    finally:
        await admin.close()


async def is_missing(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Tell whether the broker has deleted a topic."""
    return topic not in await admin.list_topics()


@pytest.mark.parametrize("is_made_anew", [False, True])
async def test_refused_batch_lets_nothing_behind_it_pass(
    kafka: EmbeddedKafka, topic_prefix: str, is_made_anew: bool
) -> None:
    """A broker that knows nothing of a producer takes any sequence number, so a later batch must not be sent."""
    names = {topic.setting: topic_prefix + topic.value for topic in Topic}
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, **names)  # type: ignore[arg-type]
    topic = names["kafka_topic_market_trades"]
    publisher = kafka_publisher(settings, "0" * 32)
    records = [a_record(position, value_bytes=10_000) for position in range(2, 33)]
    try:
        await publisher.open(None, settle=False)
        if is_made_anew:
            await publisher.publish([a_record(1, value_bytes=10)])
            await make_topic_anew(kafka.bootstrap_servers, topic, 150_000)
        else:
            await alter_largest_message(kafka.bootstrap_servers, topic, 150_000)
        with pytest.raises(ProducerSpent):
            await publisher.publish(records)
        await publisher.open({}, settle=True)
        assert await publisher.publish(records) == []
    finally:
        await publisher.close()
    found = [record for record in await read_topic(kafka.bootstrap_servers, topic) if record.partition != PROBED]
    positions = [int(dict(record.headers)["journal-position"]) for record in found]
    assert positions == list(range(2, 33))


async def test_refusal_by_one_topic_keeps_nothing_from_another(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """A frame's records in two topics have the same position and number."""
    names = {topic.setting: topic_prefix + topic.value for topic in Topic}
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, **names)  # type: ignore[arg-type]
    publisher = kafka_publisher(settings, "0" * 32)
    large, other = (a_record(1, value_bytes=10_000, topic=topic) for topic in (Topic.MARKET_TRADES, Topic.ACCOUNT_RAW))
    try:
        await publisher.open(None, settle=False)
        await alter_largest_message(kafka.bootstrap_servers, names["kafka_topic_market_trades"], 5_000)
        with pytest.raises(ProducerSpent):
            await publisher.publish([large])
        await publisher.open({}, settle=True)
        assert [refusal.record for refusal in await publisher.publish([large, other])] == [large]
    finally:
        await publisher.close()
    assert len(await read_topic(kafka.bootstrap_servers, names["kafka_topic_account_raw"])) == 1
