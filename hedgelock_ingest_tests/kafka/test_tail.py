"""The command `tail`: the last records of a topic, and those that follow."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka import AIOKafkaProducer

from hedgelock_ingest.errors import KafkaUnavailable, TopicMismatch
from hedgelock_ingest.kafka.probe import probe_kafka
from hedgelock_ingest.kafka.tail import Filter, ReadRecord, tail
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.conftest import NO_RETENTION
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.kafka.topics import create_topic, delete_records
from hedgelock_ingest_tests.processes.stage import eventually

COMPACTED_RECORDS = 250_000


@pytest.fixture
async def settings(kafka: EmbeddedKafka, topic_prefix: str) -> Settings:
    """Return settings whose market data topic exists, with two partitions."""
    name = topic_prefix + "market-data"
    await create_topic(kafka.bootstrap_servers, name, partitions=2)
    return Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic_market_data=name)


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Return a producer on the shared broker."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        yield producer


async def publish(producer: AIOKafkaProducer, settings: Settings, numbers: range) -> None:
    """Publish numbers, even ones to partition 0 and odd ones to 1; times rise with them, keys repeat in threes."""
    for number in numbers:
        await producer.send_and_wait(
            settings.kafka_topic_market_data,
            str(number).encode(),
            key=f"k{number % 3}".encode(),
            partition=number % 2,
            timestamp_ms=1_700_000_000_000 + number,
        )


async def read(settings: Settings, **options: object) -> list[int]:
    """Return the numbers that `tail` yields."""
    found = tail(settings, "market-data", **options)  # type: ignore[arg-type]
    return [int(record.value or b"") async for record in found]


async def test_the_last_records_of_all_partitions_come_in_order_of_time(
    settings: Settings, producer: AIOKafkaProducer
) -> None:
    """`-n 4` means the last four of the topic, not of each partition."""
    assert await read(settings) == []
    await publish(producer, settings, range(30))
    assert await read(settings, count=4) == [26, 27, 28, 29]
    assert await read(settings, count=100) == list(range(30))
    assert await read(settings, count=0) == []


async def test_filters_by_partition_and_key(settings: Settings, producer: AIOKafkaProducer) -> None:
    """A rare key is searched further back than the number of records requested."""
    await publish(producer, settings, range(60))
    await producer.send_and_wait(settings.kafka_topic_market_data, b"60", partition=0)
    assert await read(settings, count=2, only=Filter(partition=1)) == [57, 59]
    assert await read(settings, count=25, only=Filter(key="k2")) == list(range(2, 60, 3))
    assert await read(settings, only=Filter(key="no such key")) == []


async def test_markers_of_transactions_do_not_count_as_records(
    settings: Settings, producer: AIOKafkaProducer, topic_prefix: str
) -> None:
    """Another program may write to a topic in transactions: each leaves an offset without a record."""
    topic, servers = settings.kafka_topic_market_data, settings.kafka_bootstrap_servers
    await publish(producer, settings, range(8))
    async with AIOKafkaProducer(bootstrap_servers=servers, transactional_id=topic_prefix) as transactional:
        for number in range(8, 14):
            async with transactional.transaction():
                value, at_ms = str(number).encode(), 1_700_000_000_000 + number
                await transactional.send_and_wait(topic, value, partition=1, timestamp_ms=at_ms)

    assert await read(settings, count=5) == [9, 10, 11, 12, 13]
    assert await read(settings, count=100) == list(range(14))


async def test_deleted_records_are_not_missed(settings: Settings, producer: AIOKafkaProducer) -> None:
    """Retention may have left fewer records than requested, or none."""
    await publish(producer, settings, range(20))
    await delete_records(settings.kafka_bootstrap_servers, settings.kafka_topic_market_data, {0: 9, 1: 7})
    assert await read(settings, count=5) == [15, 17, 18, 19]

    await delete_records(settings.kafka_bootstrap_servers, settings.kafka_topic_market_data, {0: 10, 1: 10})
    assert await read(settings, count=5) == []


@pytest.mark.proof
async def test_following_goes_on_at_the_first_record_that_retention_has_left(
    settings: Settings, producer: AIOKafkaProducer
) -> None:
    """A reader that pauses for long loses what was deleted, and no more."""
    await publish(producer, settings, range(2))
    records = tail(settings, settings.kafka_topic_market_data, count=2, follow=True)
    assert [(await anext(records)).value for _ in range(2)] == [b"0", b"1"]
    await publish(producer, settings, range(2, 20))
    await delete_records(settings.kafka_bootstrap_servers, settings.kafka_topic_market_data, {0: 6, 1: 6})
    later: list[int] = []
    async with asyncio.timeout(20):
        while not {12, 13, 14, 15, 16, 17, 18, 19} <= set(later):
            later.append(int((await anext(records)).value or b""))
    assert len(later) == len(set(later))
    await records.aclose()


@pytest.mark.proof
async def test_last_records_of_a_compacted_topic_are_found_however_far_back(
    own_kafka: Callable[..., EmbeddedKafka],
) -> None:
    """A key that is quiet for long lies far more offsets before the end than there are records."""
    broker = await asyncio.to_thread(own_kafka, settings={"log.cleaner.backoff.ms": 100} | NO_RETENTION)
    servers, topic = broker.bootstrap_servers, "account-updates"
    configs = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.bytes": str(2**20)}
    await create_topic(servers, topic, configs=configs)
    settings = Settings(kafka_bootstrap_servers=servers)
    async with AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=2**17) as producer:
        sent = [await producer.send(topic, b"quiet", key=b"quiet", partition=0)]
        for number in range(COMPACTED_RECORDS):
            sent.append(await producer.send(topic, str(number).encode(), key=b"busy", partition=0))
        await asyncio.gather(*sent)

    async def is_compacted() -> bool:
        return len(await read_topic(servers, topic)) < COMPACTED_RECORDS // 2

    await eventually("the topic is compacted", is_compacted)
    found = [record async for record in tail(settings, topic, count=1, only=Filter(key="quiet"))]
    assert [(record.offset, record.value) for record in found] == [(0, b"quiet")]


async def test_following_yields_each_record_that_comes_later(settings: Settings, producer: AIOKafkaProducer) -> None:
    """No record is left out between the last records and the first new one."""
    await publish(producer, settings, range(5))
    records = tail(settings, settings.kafka_topic_market_data, count=2, follow=True)
    assert [(await anext(records)).value for _ in range(2)] == [b"3", b"4"]
    await publish(producer, settings, range(5, 9))
    async with asyncio.timeout(20):
        later = [await anext(records) for _ in range(4)]
    assert sorted(record.value or b"" for record in later) == [b"5", b"6", b"7", b"8"]
    assert ReadRecord(1, 2, 1_700_000_000_005, "k2", b"5") in later
    await records.aclose()


async def test_a_missing_topic_or_partition_lists_the_existing_ones(settings: Settings) -> None:
    """A misspelt name can be corrected at once, and Kafka does not create it."""
    with pytest.raises(TopicMismatch, match=settings.kafka_topic_market_data):
        [record async for record in tail(settings, "market-dota")]
    with pytest.raises(TopicMismatch, match="no partition 7; it has 0 to 1"):
        await read(settings, only=Filter(partition=7))
    answer = await probe_kafka(settings, 10)
    assert "market-dota" not in answer.topics


async def test_the_probe_returns_brokers_topics_and_round_trip_time(settings: Settings) -> None:
    """`check` shows them."""
    answer = await probe_kafka(settings, 10)
    assert answer.brokers == 1
    assert settings.kafka_topic_market_data in answer.topics
    assert 0 < answer.round_trip_s < 10


async def test_no_broker_is_one_clear_error() -> None:
    """`probe_kafka` and `tail` raise our error, with the address and the action to take."""
    nowhere = Settings(kafka_bootstrap_servers="127.0.0.1:1")
    with pytest.raises(KafkaUnavailable):
        await probe_kafka(nowhere, 10)
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1.*KAFKA_BOOTSTRAP_SERVERS"):
        await read(nowhere)


@pytest.mark.parametrize(("message_type", "is_taken"), [("AccountRaw", True), ("OrderUpdate", False), (None, True)])
def test_filter_by_type_leaves_out_copies_of_other_types(message_type: str | None, is_taken: bool) -> None:
    """A topic may hold copies of other types, and records of programs that state none."""
    record = ReadRecord(0, 1, 2, "desk", b"{}", message_type)
    assert Filter(key="desk", message_type="AccountRaw").takes(record) == is_taken
    assert not Filter(key="other", message_type="AccountRaw").takes(record)
    assert Filter().takes(record)
