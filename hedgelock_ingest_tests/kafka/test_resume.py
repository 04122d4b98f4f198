"""Resume: reading back the tails of topics that other programs write to as well."""

from uuid import UUID

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.kafka.clusters import MemoryKafka, publisher_of
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.kafka.records import a_record, positions_of


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


async def _positions(kafka: MemoryKafka) -> list[int]:
    return positions_of(await kafka.records(kafka.settings.topic(Topic.ACCOUNT_UPDATES)))


def _updates(first: int, last: int) -> list[Record]:
    return [a_record(position, topic=Topic.ACCOUNT_UPDATES) for position in range(first, last + 1)]


@pytest.mark.parametrize("is_state_lost", [False, True])
async def test_what_compaction_removed_has_arrived(memory_kafka: MemoryKafka, is_state_lost: bool) -> None:
    """Published again, it would follow the newest record of its key: an old state as the newest."""
    first = publisher_of(memory_kafka)
    await first.open(None, settle=False)
    known = first.offsets_at(0)
    await first.publish(_updates(32, 38))
    await first.close()
    memory_kafka.broker.compact(memory_kafka.settings.topic(Topic.ACCOUNT_UPDATES))

    second = publisher_of(memory_kafka)
    await second.open({} if is_state_lost else known, settle=True, journal_end=38)
    await second.publish(_updates(32, 40))

    assert await _positions(memory_kafka) == list(range(32, 41))


async def test_records_of_another_copy_of_the_journal_prove_nothing(memory_kafka: MemoryKafka) -> None:
    """A journal that was restored from an older copy reuses the positions after its end for other frames."""
    first = publisher_of(memory_kafka)
    await first.open(None, settle=False)
    known = first.offsets_at(0)
    await first.publish(_updates(32, 38))
    await first.close()
    memory_kafka.broker.compact(memory_kafka.settings.topic(Topic.ACCOUNT_UPDATES))
    others = [msgspec.structs.replace(each, trace_id=str(UUID(int=1_000 + each.position))) for each in _updates(36, 39)]

    restored = publisher_of(memory_kafka)
    await restored.open(known, settle=True, journal_end=35)
    await restored.publish(others)

    assert await _positions(memory_kafka) == [*range(32, 39), *range(36, 40)]


async def test_other_number_of_partitions_proves_nothing(memory_kafka: MemoryKafka) -> None:
    """The keys have moved: a later record in a partition may have passed an earlier one of another partition."""
    topic = memory_kafka.settings.topic(Topic.ACCOUNT_UPDATES)
    first = publisher_of(memory_kafka)
    await first.open(None, settle=False)
    known = first.offsets_at(0)
    memory_kafka.broker.create_topic(topic, 1)
    await first.close()

    second = publisher_of(memory_kafka)
    await second.open(known, settle=True, journal_end=38)
    await second.publish(_updates(38, 38))
    await second.close()
    third = publisher_of(memory_kafka)
    await third.open(known, settle=True, journal_end=38)
    await third.publish(_updates(32, 38))

    assert await _positions(memory_kafka) == [38, *range(32, 38)]


async def test_producer_that_is_replaced_reads_back_only_what_is_new(memory_kafka: MemoryKafka) -> None:
    """What was acknowledged is known, also in a topic whose records were deleted since."""
    topic = memory_kafka.settings.topic(Topic.ACCOUNT_UPDATES)
    publisher = publisher_of(memory_kafka)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)
    await publisher.publish(_updates(1, 5))
    await publisher.open(known, settle=True)
    memory_kafka.broker.compact(topic)
    await publisher.publish(_updates(1, 6))

    assert await _positions(memory_kafka) == [1, 2, 3, 4, 5, 6]
