"""Resume: reading back the tails of topics that other programs write to as well."""

from aiokafka import AIOKafkaProducer

from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.kafka.records import a_record


async def test_transaction_markers_of_other_programs_are_skipped(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """They occupy offsets and hold no record, also at the end of a partition."""
    names = {topic.setting: topic_prefix + topic.value for topic in Topic}
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, **names)  # type: ignore[arg-type]
    topic = settings.topic(Topic.MARKET_TRADES)
    publisher = kafka_publisher(settings, "0" * 32)
    records = [a_record(position, value_bytes=100) for position in range(1, 4)]
    try:
        await publisher.open(None, settle=False)
        await publisher.publish(records)
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, transactional_id=topic_prefix
        ) as other_program:
            for number in range(settings.kafka_topic_partitions):
                async with other_program.transaction():
                    await other_program.send_and_wait(topic, b"not ours", partition=number)
            await other_program.begin_transaction()
            await other_program.send_and_wait(topic, b"not ours either", partition=0)
            await other_program.abort_transaction()
        await publisher.open({}, settle=True)
        await publisher.publish(records)
    finally:
        await publisher.close()
    assert (
        sum(b"not ours" not in (record.value or b"") for record in await read_topic(kafka.bootstrap_servers, topic))
        == 3
    )
