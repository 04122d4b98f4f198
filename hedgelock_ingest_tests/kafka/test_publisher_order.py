"""Order and exactly-once publishing when Kafka refuses a batch that others of the same key follow."""

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.kafka.clusters import KafkaUnderTest, publisher_of
from hedgelock_ingest_tests.kafka.records import a_record, positions_of, refused_of


@pytest.mark.parametrize("is_recreated", [False, True])
async def test_no_record_overtakes_a_refused_batch(kafka_under_test: KafkaUnderTest, is_recreated: bool) -> None:
    """A broker without state for a producer accepts any sequence number, so a later batch must not be sent."""
    topic = kafka_under_test.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(kafka_under_test)
    records = [a_record(position, value_bytes=10_000) for position in range(2, 33)]
    try:
        await publisher.open(None, settle=False)
        if is_recreated:
            await publisher.publish([a_record(1, value_bytes=10)])
            await kafka_under_test.recreate_topic(topic, kafka_under_test.settings.kafka_topic_partitions, 150_000)
        else:
            await kafka_under_test.limit_bytes(topic, 150_000)
        await publisher.publish(records)
    finally:
        await publisher.close()
    assert positions_of(await kafka_under_test.records(topic)) == list(range(2, 33))


async def test_refusal_by_one_topic_does_not_affect_another(kafka_under_test: KafkaUnderTest) -> None:
    """A frame's records in two topics have the same position and number."""
    publisher = publisher_of(kafka_under_test)
    large, other = (a_record(1, value_bytes=10_000, topic=topic) for topic in (Topic.MARKET_TRADES, Topic.ACCOUNT_RAW))
    try:
        await publisher.open(None, settle=False)
        await kafka_under_test.limit_bytes(kafka_under_test.settings.topic(Topic.MARKET_TRADES), 5_000)
        assert [refusal.record for refusal in await refused_of(publisher, [large, other])] == [large]
    finally:
        await publisher.close()
    assert len(await kafka_under_test.records(kafka_under_test.settings.topic(Topic.ACCOUNT_RAW))) == 1
