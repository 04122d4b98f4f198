"""Refusals of a topic: what Kafka never accepts is set aside, what it accepts later waits, and the rest goes on."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTimestampError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from hedgelock_ingest.errors import JournalWriteFailed, KafkaError, KafkaUnavailable, ProducerSpent
from hedgelock_ingest.kafka.publish_all import opened, publish_all
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest_tests.kafka.clusters import TIMING, KafkaUnderTest, MemoryKafka, publisher_of
from hedgelock_ingest_tests.kafka.records import a_record, positions_of, refused_of
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.simulation.broker import MemoryBroker
from hedgelock_ingest_tests.simulation.memory_cluster import MemoryProducerSession

IMPATIENT = replace(TIMING, patience_s=0.0, blocked_retry_s=(0.0, 0.0))
INVALID_RECORD = 87
TOPIC_PARTITIONS = 3


def raw(position: int) -> Record:
    """Build a record for a topic that refuses nothing."""
    return a_record(position, topic=Topic.ACCOUNT_RAW)


async def positions(kafka: KafkaUnderTest, topic: Topic) -> list[int]:
    """Return the positions in a topic, in its order."""
    return positions_of(await kafka.records(kafka.settings.topic(topic)))


async def test_records_that_are_too_old_get_the_present_time(kafka_under_test: KafkaUnderTest) -> None:
    """After a long outage of Kafka; their own time stays in the headers, and nothing else is delayed."""
    topic, now_ns = kafka_under_test.settings.topic(Topic.MARKET_TRADES), time.time_ns()
    old = [a_record(position, received_ns=now_ns - 3_600_000_000_000) for position in range(1, 30)]
    new = [a_record(position, received_ns=now_ns) for position in range(30, 40)]
    publisher = publisher_of(kafka_under_test)
    try:
        await publisher.open(None, settle=False)
        await kafka_under_test.refuse_older(topic, 60_000)
        await publisher.publish([*old, raw(30), *new])
        await publisher.publish([a_record(40, received_ns=now_ns)])
    finally:
        await publisher.close()
    found = [record for record in await kafka_under_test.records(topic) if record.headers]
    assert positions_of(found) == list(range(1, 41))
    assert all(record.timestamp >= now_ns // 1_000_000 for record in found)
    assert dict(found[0].headers)["received-ns"] == b"%d" % old[0].received_ns
    assert await positions(kafka_under_test, Topic.ACCOUNT_RAW) == [30]


async def test_topic_that_refuses_the_present_time_blocks(memory_kafka: MemoryKafka) -> None:
    """The clocks of the broker and of this machine differ: the records are accepted when they agree again."""
    topic = memory_kafka.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(memory_kafka, IMPATIENT)
    await publisher.open(None, settle=False)
    memory_kafka.broker.refuse(topic, InvalidTimestampError.errno)
    await publisher.publish([a_record(1), raw(1)])
    assert "clock" in publisher.blocked[topic]
    memory_kafka.broker.refuse(topic, None)
    await publisher.publish([])
    assert publisher.must_catch_up
    assert not publisher.blocked
    assert await positions(memory_kafka, Topic.MARKET_TRADES) == [1]


async def test_record_that_is_refused_for_good_is_isolated(memory_kafka: MemoryKafka) -> None:
    """A broker that validates records refuses the batch; the others of the batch arrive, in order."""
    records = [a_record(position) for position in range(1, 100)]
    records[41:43] = [msgspec.structs.replace(each, value=b"[poison]") for each in records[41:43]]
    publisher = publisher_of(memory_kafka)
    await publisher.open(None, settle=False)
    memory_kafka.broker.refuse_value(memory_kafka.settings.topic(Topic.MARKET_TRADES), b"poison")
    refused = await refused_of(publisher, [*records, raw(1)])
    assert [refusal.record for refusal in refused] == records[41:43]
    assert all(f"INVALID_RECORD ({INVALID_RECORD})" in refusal.reason for refusal in refused)
    assert await positions(memory_kafka, Topic.MARKET_TRADES) == [*range(1, 42), *range(44, 100)]
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1]


@pytest.mark.parametrize("topic", [Topic.MARKET_TRADES, Topic.ACCOUNT_UPDATES])
@pytest.mark.parametrize("is_new_process", [False, True])
async def test_refused_record_that_was_not_kept_is_refused_again(
    memory_kafka: MemoryKafka, topic: Topic, is_new_process: bool
) -> None:
    """Nothing later is in its partition before it is kept, since that would prove that it is done with."""
    records = [a_record(position, topic=topic) for position in range(1, 9)]
    records[2] = msgspec.structs.replace(records[2], value=b"[poison]")
    publisher = publisher_of(memory_kafka)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)
    memory_kafka.broker.refuse_value(memory_kafka.settings.topic(topic), b"poison")

    async def fail(_: object) -> None:
        raise JournalWriteFailed("the disk is full")

    with pytest.raises(JournalWriteFailed):
        await publisher.publish(records, fail)
    assert await positions(memory_kafka, topic) == [1, 2]
    if is_new_process:
        await publisher.close()
        publisher = publisher_of(memory_kafka)
    await publisher.open(known, settle=False, journal_end=8)
    assert [refusal.record.position for refusal in await refused_of(publisher, records)] == [3]
    assert await positions(memory_kafka, topic) == [1, 2, 4, 5, 6, 7, 8]


async def test_topic_that_refuses_every_record_costs_few_requests(memory_kafka: MemoryKafka) -> None:
    """All are set aside; the first ones show that, while all other topics wait."""
    topic = memory_kafka.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(memory_kafka)
    await publisher.open(None, settle=False)
    memory_kafka.broker.refuse_value(topic, b"")
    for first in (1, 1_001):
        group = [a_record(position) for position in range(first, first + 1_000)]
        refused = await refused_of(publisher, [*group, raw(first)])
        assert [refusal.record for refusal in refused] == group
    assert "not tried" in refused[-1].reason
    assert memory_kafka.broker.counts[f"refused_{INVALID_RECORD}"] < 200
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1, 1_001]
    memory_kafka.broker.refuse_value(topic, b"nothing")
    assert await refused_of(publisher, [a_record(2_001), a_record(2_002)]) == []


async def test_topic_of_a_small_limit_leaves_the_batches_of_others_large(memory_kafka: MemoryKafka) -> None:
    """One record that it refuses shows the limit of this topic alone."""
    topic = memory_kafka.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(memory_kafka)
    await publisher.open(None, settle=False)
    memory_kafka.broker.limit_bytes(topic, 3_000, is_reported=False)
    large = a_record(1, value_bytes=6_000)
    assert [refusal.record for refusal in await refused_of(publisher, [large, a_record(2), raw(2)])] == [large]
    before = memory_kafka.broker.counts["appended"]
    await publisher.publish([raw(position) for position in range(3, 1_000)])
    assert memory_kafka.broker.counts["appended"] - before < 5


async def test_records_are_counted_once_and_only_in_kafka(memory_kafka: MemoryKafka) -> None:
    """Not those that a blocked topic lacks, and not again those that others had when it catches up."""
    publisher = publisher_of(memory_kafka, IMPATIENT)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)
    memory_kafka.broker.refuse(memory_kafka.settings.topic(Topic.MARKET_TRADES), NotEnoughReplicasError.errno)
    both = [each for n in range(1, 7) for each in (a_record(n), raw(n))]
    await publisher.publish(both)
    assert publisher.records == {Topic.ACCOUNT_RAW: 6}
    memory_kafka.broker.refuse_nothing()
    await publisher.publish([])
    publisher.catch_up(known)
    await publisher.publish(both)
    assert publisher.records == {Topic.ACCOUNT_RAW: 6, Topic.MARKET_TRADES: 6}


@pytest.mark.parametrize(
    "code", [TopicAuthorizationFailedError.errno, NotEnoughReplicasError.errno, 89, 12_345], ids=str
)
async def test_topic_that_refuses_for_now_blocks_no_other(memory_kafka: MemoryKafka, code: int) -> None:
    """What it lacks is published in order when it accepts records again, and nothing is published twice."""
    topic = memory_kafka.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(memory_kafka, IMPATIENT)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)
    await publisher.publish([a_record(1), raw(1)])
    memory_kafka.broker.refuse(topic, code)
    for position in range(2, 6):
        await publisher.publish([a_record(position), raw(position)])
    assert publisher.is_behind
    assert not publisher.must_catch_up
    assert str(code) in publisher.blocked[topic]
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1, 2, 3, 4, 5]
    memory_kafka.broker.refuse(topic, None)
    await publisher.publish([a_record(6), raw(6)])
    assert publisher.must_catch_up
    assert await positions(memory_kafka, Topic.MARKET_TRADES) == [1, 2], "later records wait"
    publisher.catch_up(known)
    assert publisher.offsets_at(0) == known, "records after position 0 are beyond the present offsets"
    await publisher.publish([each for n in range(1, 7) for each in (a_record(n), raw(n))])
    assert not publisher.is_behind
    assert await positions(memory_kafka, Topic.MARKET_TRADES) == [1, 2, 3, 4, 5, 6]
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1, 2, 3, 4, 5, 6]


async def test_blocked_batch_that_is_refused_for_good_later_is_isolated(memory_kafka: MemoryKafka) -> None:
    """The reason may change while it waits."""
    topic = memory_kafka.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(memory_kafka, IMPATIENT)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)
    memory_kafka.broker.refuse(topic, TopicAuthorizationFailedError.errno)
    records = [a_record(1), msgspec.structs.replace(a_record(2), value=b"poison"), a_record(3)]
    await publisher.publish(records)
    memory_kafka.broker.refuse(topic, None)
    memory_kafka.broker.refuse_value(topic, b"poison")
    await publisher.publish([])
    publisher.catch_up(known)
    assert [refusal.record.position for refusal in await refused_of(publisher, records)] == [2]
    assert await positions(memory_kafka, Topic.MARKET_TRADES) == [1, 3]


async def test_deleted_topic_stops_no_other_and_is_created_again(kafka_under_test: KafkaUnderTest) -> None:
    """The broker answers at once that it does not exist."""
    topic = kafka_under_test.settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(kafka_under_test, IMPATIENT)
    try:
        await publisher.open(None, settle=False)
        known = publisher.offsets_at(0)
        await publisher.publish([a_record(1), raw(1)])
        await kafka_under_test.delete_topic(topic)
        await publisher.publish([a_record(2), raw(2)])
        assert await positions(kafka_under_test, Topic.ACCOUNT_RAW) == [1, 2]

        async def is_accepted() -> bool:
            await publisher.publish([])
            return publisher.must_catch_up

        await eventually("the topic accepts records", is_accepted)
        publisher.catch_up(known)
        await publisher.publish([each for n in range(1, 4) for each in (a_record(n), raw(n))])
    finally:
        await publisher.close()
    assert await positions(kafka_under_test, Topic.MARKET_TRADES) == [2, 3], "what was deleted is not published again"
    assert await positions(kafka_under_test, Topic.ACCOUNT_RAW) == [1, 2, 3]


@pytest.mark.parametrize(
    ("lose", "regain", "words"),
    [
        (
            lambda broker, topic: broker.delete_topic(topic),
            lambda broker, topic: broker.create_topic(topic, TOPIC_PARTITIONS),
            "does not exist",
        ),
        (
            lambda broker, topic: broker.refuse(topic, TopicAuthorizationFailedError.errno),
            lambda broker, topic: broker.refuse(topic, None),
            "denies User:ANONYMOUS Read, Write on the topic",
        ),
        (
            lambda broker, topic: broker.leaderless(TopicPartition(topic, 1)),
            lambda broker, topic: broker.lead_again(),
            "1 of 3 partitions have no leader",
        ),
    ],
    ids=["missing", "denied", "without a leader"],
)
async def test_topic_that_is_lost_when_kafka_is_back_blocks_no_other(
    memory_kafka: MemoryKafka,
    lose: Callable[[MemoryBroker, str], None],
    regain: Callable[[MemoryBroker, str], None],
    words: str,
) -> None:
    """At the first start it is an error unless it has no leader, while running it is not."""
    fields = {"kafka_create_topics": False, "kafka_topic_partitions": TOPIC_PARTITIONS}
    memory_kafka.settings = settings = memory_kafka.settings.model_copy(update=fields)
    await memory_kafka.cluster().topics(create=True)
    topic = settings.topic(Topic.MARKET_TRADES)
    publisher = publisher_of(memory_kafka, IMPATIENT)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)
    lose(memory_kafka.broker, topic)
    first = publisher_of(memory_kafka)
    with nullcontext() if "leader" in words else pytest.raises(KafkaError, match=words):
        await first.open(None, settle=False)
        assert words in first.blocked[topic]
    await publisher.open(known, settle=False)
    await publisher.publish([a_record(1), raw(1)])
    assert words in publisher.blocked[topic]
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1]
    regain(memory_kafka.broker, topic)
    with pytest.raises(ProducerSpent, match="can be used again"):
        await publisher.publish([])
    await publisher.open(known, settle=False)
    await publisher.publish([a_record(1), raw(1)])
    assert await positions(memory_kafka, Topic.MARKET_TRADES) == [1]
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1]


async def test_foreign_exception_while_sending_replaces_the_producer(
    memory_kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its type and text are kept; the next producer goes on."""
    publisher = publisher_of(memory_kafka)
    await publisher.open(None, settle=False)
    known = publisher.offsets_at(0)

    async def fail(*_: object, **__: object) -> None:
        raise IndexError("no such broker")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryProducerSession, "produce", fail)
        with pytest.raises(ProducerSpent, match="IndexError while records were sent: no such broker"):
            await publisher.publish([raw(1)])
    await publisher.open(known, settle=False)
    await publisher.publish([raw(1)])
    assert await positions(memory_kafka, Topic.ACCOUNT_RAW) == [1]


async def test_publishing_all_fails_when_a_topic_accepts_nothing(memory_kafka: MemoryKafka) -> None:
    """A backfill or a replay must not end as if all had arrived."""
    topic = memory_kafka.settings.topic(Topic.MARKET_TRADES)
    async with opened(publisher_of(memory_kafka, IMPATIENT), None, settle=False) as publisher:
        memory_kafka.broker.refuse(topic, UnknownTopicOrPartitionError.errno)
        with pytest.raises(KafkaUnavailable, match="does not exist"):
            await publish_all(publisher, [a_record(1)])
