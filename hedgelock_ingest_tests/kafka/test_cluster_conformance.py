"""Conformance of the real and the simulated cluster to what publishing relies on."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    UnknownTopicOrPartitionError,
)
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.batch_format import VARINTS, Codec, RecordBatch, with_length
from hedgelock_ingest.kafka.batch_sender import BatchSender
from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.ports import KafkaTiming, ProduceAnswer, ProducerSession, TailReader
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.kafka.clusters import CLOCK, TIMING, KafkaUnderTest, MemoryKafka, publisher_of
from hedgelock_ingest_tests.kafka.records import a_record, positions_of

COUNT = 2
"""Records per batch."""
ASK_MS = 30_000
AT_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000


def values_of(number: int) -> list[bytes]:
    """Return the values of a batch's records."""
    return [b"%d.%d" % (number, record) for record in range(COUNT)]


def a_batch(number: int, *, padding: bytes = b"", at_ms: int = AT_MS) -> RecordBatch:
    """Build a batch whose records have one header each."""
    batch = RecordBatch(2_000_000, Codec.NONE)
    for value in values_of(number):
        batch.append(at_ms, with_length(b"k"), value + padding, VARINTS[1] + with_length(b"name") + with_length(value))
    return batch


def content(
    session: ProducerSession, number: int, *, sequence: int | None = None, padding: bytes = b"", at_ms: int = AT_MS
) -> bytes:
    """Return the bytes of a batch: number 0 begins the sequence, number 1 follows it."""
    batch, sequence = a_batch(number, padding=padding, at_ms=at_ms), number * COUNT if sequence is None else sequence
    return batch.content(producer_id=session.producer_id, epoch=session.epoch, sequence=sequence)


async def send(session: ProducerSession, partition: TopicPartition, batch: bytes) -> ProduceAnswer:
    """Send one batch to the broker."""
    leader = session.leader_of(partition)
    assert leader is not None
    return (await session.produce(leader, {partition: batch}, answer_timeout_ms=ASK_MS))[partition]


@asynccontextmanager
async def producing(kafka_under_test: KafkaUnderTest, *partitions: TopicPartition) -> AsyncIterator[ProducerSession]:
    """Connect a new producer."""
    session = kafka_under_test.cluster().producer()
    try:
        await session.open([partition.topic for partition in partitions])
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def reading(kafka_under_test: KafkaUnderTest, *partitions: TopicPartition) -> AsyncIterator[TailReader]:
    """Connect a reader."""
    reader = kafka_under_test.cluster().reader()
    try:
        await reader.open(partitions)
        yield reader
    finally:
        await reader.close()


async def a_partition(kafka_under_test: KafkaUnderTest, prefix: str, name: str = "topic") -> TopicPartition:
    """Create a topic of one partition."""
    await kafka_under_test.create_topic(prefix + name)
    return TopicPartition(prefix + name, 0)


async def values(kafka_under_test: KafkaUnderTest, partition: TopicPartition) -> list[bytes | None]:
    """Read the values of a topic."""
    return [record.value for record in await kafka_under_test.records(partition.topic)]


def all_of(numbers: Collection[int]) -> list[bytes]:
    """Return the values of several batches."""
    return [value for number in numbers for value in values_of(number)]


async def test_repeated_batch_is_appended_once_and_gets_its_first_answer(
    kafka_under_test: KafkaUnderTest, topic_prefix: str
) -> None:
    """The broker recognises the last five, whose answers may have been lost; it refuses an older one."""
    partition = await a_partition(kafka_under_test, topic_prefix)
    async with producing(kafka_under_test, partition) as session:
        batches = [content(session, number) for number in range(6)]
        assert [await send(session, partition, each) for each in batches] == [(0, COUNT * n) for n in range(6)]
        assert [await send(session, partition, each) for each in batches[1:]] == [(0, COUNT * n) for n in range(1, 6)]
        assert await send(session, partition, batches[0]) == (OutOfOrderSequenceNumber.errno, -1)
    assert await values(kafka_under_test, partition) == all_of(range(6))


async def test_batch_that_does_not_follow_is_refused(kafka_under_test: KafkaUnderTest, topic_prefix: str) -> None:
    """After a lost batch nothing is accepted until the lost batch arrives."""
    partition = await a_partition(kafka_under_test, topic_prefix)
    async with producing(kafka_under_test, partition) as session:
        assert await send(session, partition, content(session, 0)) == (0, 0)
        assert await send(session, partition, content(session, 2)) == (OutOfOrderSequenceNumber.errno, -1)
        partly = content(session, 1, sequence=1)
        assert await send(session, partition, partly) == (OutOfOrderSequenceNumber.errno, -1)
        assert await send(session, partition, content(session, 1)) == (0, COUNT)
        assert await send(session, partition, content(session, 2)) == (0, 2 * COUNT)
    assert await values(kafka_under_test, partition) == all_of(range(3))


async def test_new_producer_may_start_at_any_sequence_number(
    kafka_under_test: KafkaUnderTest, topic_prefix: str
) -> None:
    """So its first batch must arrive before the second is sent; after the last number the sequence wraps to 0."""
    partition = await a_partition(kafka_under_test, topic_prefix)
    async with producing(kafka_under_test, partition) as one, producing(kafka_under_test, partition) as other:
        assert one.producer_id != other.producer_id
        assert await send(one, partition, content(one, 0, sequence=2**31 - COUNT)) == (0, 0)
        assert await send(other, partition, content(other, 1, sequence=700)) == (0, COUNT)
        assert await send(one, partition, content(one, 2, sequence=0)) == (0, 2 * COUNT)
        wrong = content(other, 3, sequence=0)
        assert await send(other, partition, wrong) == (OutOfOrderSequenceNumber.errno, -1)
    assert await values(kafka_under_test, partition) == all_of(range(3))


async def test_refused_batch_leaves_no_trace(kafka_under_test: KafkaUnderTest, topic_prefix: str) -> None:
    """Too large, damaged, or from a wrong clock: its number stays free, and other partitions are not affected."""
    await kafka_under_test.create_topic(topic_prefix + "small", limit_bytes=5_000)
    small, other = TopicPartition(topic_prefix + "small", 0), await a_partition(kafka_under_test, topic_prefix, "other")
    async with producing(kafka_under_test, small, other) as session:
        assert await send(session, small, content(session, 0)) == (0, 0)
        large = content(session, 1, padding=os.urandom(5_000))
        leader = session.leader_of(small)
        assert leader is not None
        both = {small: large, other: content(session, 0)}
        assert await session.produce(leader, both, answer_timeout_ms=ASK_MS) == {
            small: (MessageSizeTooLargeError.errno, -1),
            other: (0, 0),
        }
        damaged = content(session, 1)[:-1] + b"!"
        assert await send(session, small, damaged) == (CorruptRecordException.errno, -1)
        ahead = content(session, 1, at_ms=AT_MS + DAY_MS)
        assert (await send(session, small, ahead))[0] == InvalidTimestampError.errno
        missing = TopicPartition(small.topic, 1)
        refused = await session.produce(leader, {missing: content(session, 0)}, answer_timeout_ms=ASK_MS)
        assert refused == {missing: (UnknownTopicOrPartitionError.errno, -1)}
        assert await send(session, small, content(session, 1)) == (0, COUNT)
    assert await values(kafka_under_test, small) == all_of(range(2))
    assert await values(kafka_under_test, other) == all_of([0])


async def test_records_are_found_as_they_were_sent(kafka_under_test: KafkaUnderTest, topic_prefix: str) -> None:
    """Partition, offset, time, key, value and headers, which the proofs on both clusters compare."""
    partition = await a_partition(kafka_under_test, topic_prefix)
    async with producing(kafka_under_test, partition) as session:
        await send(session, partition, content(session, 0))
        await send(session, partition, content(session, 1))
    found = [
        (each.partition, each.offset, each.timestamp, each.key, each.value, list(each.headers))
        for each in await kafka_under_test.records(partition.topic)
    ]
    assert found == [(0, n, AT_MS, b"k", each, [("name", each)]) for n, each in enumerate(all_of(range(2)))]


async def test_tail_is_read_from_any_offset_to_the_end(kafka_under_test: KafkaUnderTest, topic_prefix: str) -> None:
    """Also from within a batch; a partition without records between start and end yields nothing."""
    full, empty = [await a_partition(kafka_under_test, topic_prefix, name) for name in ("full", "empty")]
    async with producing(kafka_under_test, full) as session, reading(kafka_under_test, full, empty) as reader:
        for number in range(3):
            await send(session, full, content(session, number))
        assert await reader.begins([full, empty]) == {full: 0, empty: 0}
        ends = await reader.ends([full, empty])
        assert ends == {full: 3 * COUNT, empty: 0}
        read = [step async for step in reader.read({full: 3, empty: 0}, ends)]
        assert [step async for step in reader.read(ends, ends)] == []
    assert set().union(*read) == {full}
    assert names_in(read, full) == all_of(range(3))[3:]


def names_in(steps: Sequence[Mapping[TopicPartition, Sequence[Headers]]], partition: TopicPartition) -> list[bytes]:
    """Return the `name` headers of a partition's records."""
    return [dict(headers)["name"] for step in steps for headers in step[partition]]


async def test_resumed_publisher_skips_what_has_arrived(kafka_under_test: KafkaUnderTest) -> None:
    """From the saved offsets, or from the beginning; records of another journal are ignored."""
    records = [a_record(position) for position in range(1, 8)]
    first, second = publisher_of(kafka_under_test), publisher_of(kafka_under_test)
    try:
        await first.open(None, settle=False)
        await first.publish(records[:2])
        known = first.offsets_at(2)
        await first.publish(records[2:5])
        await first.close()
        with pytest.raises(KafkaUnavailable):
            await first.publish(records)
        await second.open(known, settle=True)
        assert second.offsets_at(2) == known
        await second.publish(records[2:])
        ends = second.offsets_at(7)
        await second.open({}, settle=False)
        await second.publish(records)
        assert second.offsets_at(7) == ends
    finally:
        await first.close()
        await second.close()
    assert positions_of(await kafka_under_test.records(kafka_under_test.settings.topic(Topic.MARKET_TRADES))) == list(
        range(1, 8)
    )


async def test_batch_arrives_although_its_sender_has_timed_out(
    killable_kafka: KafkaUnderTest, topic_prefix: str
) -> None:
    """It is in flight; sent again unchanged, the broker recognises it."""
    partition = await a_partition(killable_kafka, topic_prefix)
    async with producing(killable_kafka, partition) as session:
        await send(session, partition, content(session, 0))
        await killable_kafka.freeze()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(session, partition, content(session, 1)), 0.1)
        again = asyncio.ensure_future(send(session, partition, content(session, 1)))
        await asyncio.sleep(0.1)
        assert not again.done()
        await killable_kafka.thaw()
        assert await again == (0, COUNT)
        assert await send(session, partition, content(session, 2)) == (0, 2 * COUNT)
    assert await values(killable_kafka, partition) == all_of(range(3))


async def test_bytes_of_a_producer_that_gave_up_arrive_late_and_are_settled(killable_kafka: KafkaUnderTest) -> None:
    """They wait in the sockets of a frozen broker; the next producer reads until they have arrived."""
    records = [a_record(position) for position in range(1, 11)]
    impatient = publisher_of(killable_kafka, KafkaTiming(delivery_timeout_s=0.2, stop_timeout_s=0.2))
    after = publisher_of(killable_kafka)
    try:
        await impatient.open(None, settle=False)
        await impatient.publish(records[:2])
        await killable_kafka.freeze()
        with pytest.raises(KafkaUnavailable):
            await impatient.publish(records[2:5])
        await impatient.close()
        opening = asyncio.ensure_future(after.open({}, settle=True))
        await asyncio.sleep(0.3)
        assert not opening.done()
        await killable_kafka.thaw()
        await opening
        late = positions_of(await killable_kafka.records(killable_kafka.settings.topic(Topic.MARKET_TRADES)))
        await after.publish(records)
    finally:
        await killable_kafka.thaw()
        await impatient.close()
        await after.close()
    assert late == [1, 2, 3, 4, 5]
    assert positions_of(await killable_kafka.records(killable_kafka.settings.topic(Topic.MARKET_TRADES))) == list(
        range(1, 11)
    )


async def test_killed_broker_restarts_with_its_producer_state(
    killable_kafka: KafkaUnderTest, topic_prefix: str
) -> None:
    """
    Requests fail at once while it is down; then batches are delivered once, and duplicates are still recognised.

    Not so a producer whose records are more than a day old: the broker treats it as expired.

    Source: Apache Kafka, `producer.id.expiration.ms`; `ProducerStateManager.isProducerExpired` goes by records' times.
    """
    partition, old = [await a_partition(killable_kafka, topic_prefix, name) for name in ("topic", "old")]
    async with producing(killable_kafka, partition, old) as session, producing(killable_kafka, partition) as other:
        sender = BatchSender(session, CLOCK, TIMING)
        assert await sender.send({partition: a_batch(0)}, patience_s=60.0) == {partition: 0}
        assert await send(other, partition, content(other, 1)) == (0, COUNT)
        of_yesterday = content(session, 0, at_ms=AT_MS - DAY_MS)
        assert [await send(session, old, of_yesterday) for _ in range(2)] == [(0, 0), (0, 0)]
        await killable_kafka.kill()
        with pytest.raises(AiokafkaError) as refused:
            await send(other, partition, content(other, 1))
        assert refused.value.retriable
        with pytest.raises((AiokafkaError, KafkaUnavailable)):
            await open_new_producer(killable_kafka, partition)
        with pytest.raises(KafkaUnavailable):
            await killable_kafka.cluster().topics()
        sending = asyncio.ensure_future(sender.send({partition: a_batch(2)}, patience_s=60.0))
        await asyncio.sleep(0.1)
        assert not sending.done()
        await killable_kafka.restart()
        assert await sending == {partition: 2 * COUNT}
        assert await send_with_retries(other, partition, content(other, 1)) == (0, COUNT)
        assert await send(other, partition, content(other, 3)) == (OutOfOrderSequenceNumber.errno, -1)
        assert await send_with_retries(session, old, of_yesterday) == (0, COUNT)
    assert await values(killable_kafka, partition) == all_of(range(3))


async def open_new_producer(kafka_under_test: KafkaUnderTest, partition: TopicPartition) -> None:
    """Connect a new producer and close it."""
    async with producing(kafka_under_test, partition):
        pass


async def send_with_retries(session: ProducerSession, partition: TopicPartition, batch: bytes) -> ProduceAnswer:
    """Send a batch until it is answered."""
    async with asyncio.timeout(20):
        while True:
            with suppress(AiokafkaError):
                return await send(session, partition, batch)
            session.renew_leaders()
            await asyncio.sleep(0.1)
            await session.leaders_renewed()


@pytest.fixture
def memory(topic_prefix: str, moments: Random) -> MemoryKafka:
    """Return the simulated cluster, for faults that tests cannot cause in the real one."""
    return MemoryKafka(topic_prefix, moments)


async def test_lost_answer_fails_the_sender_and_its_retry_is_a_duplicate(
    memory: MemoryKafka, topic_prefix: str
) -> None:
    """The broker has appended the batch, and the connection is cut."""
    partition = await a_partition(memory, topic_prefix)
    async with producing(memory, partition) as session:
        memory.broker.lose_answers(2)
        with pytest.raises(AiokafkaError):
            await send(session, partition, content(session, 0))
        with pytest.raises(AiokafkaError):
            await send(session, partition, content(session, 0))
        assert await send(session, partition, content(session, 0)) == (0, 0)
    assert memory.broker.counts == {"appended": 1, "repeated": 2}


async def test_partition_without_a_leader_is_waited_for(memory: MemoryKafka, topic_prefix: str) -> None:
    """The client learns it from the refusal, and refreshes its metadata; readers wait too."""
    partition = await a_partition(memory, topic_prefix)
    async with producing(memory, partition) as session, reading(memory, partition) as reader:
        memory.broker.leaderless(partition)
        assert await send(session, partition, content(session, 0)) == (NotLeaderForPartitionError.errno, -1)
        sending = asyncio.ensure_future(
            BatchSender(session, CLOCK, TIMING).send({partition: a_batch(0)}, patience_s=60.0)
        )
        reading_ends = asyncio.ensure_future(reader.ends([partition]))
        await asyncio.sleep(0.5)
        assert session.leader_of(partition) == -1
        assert not sending.done()
        assert not reading_ends.done()
        memory.broker.lead_again(partition)
        assert await sending == {partition: 0}
        await reading_ends
    assert await values(memory, partition) == all_of([0])


async def test_killed_process_sends_nothing_but_the_bytes_already_written(
    memory: MemoryKafka, topic_prefix: str
) -> None:
    """Bytes written before the kill still arrive."""
    partition = await a_partition(memory, topic_prefix)
    async with producing(memory, partition) as session:
        left = asyncio.ensure_future(send(session, partition, content(session, 0)))
        await asyncio.sleep(0)
        lifetime = session._connection._lifetime  # type: ignore[attr-defined]
        lifetime.is_dead = True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(session, partition, content(session, 1)), 0.1)
        assert not left.done()
        left.cancel()
    assert await values(memory, partition) == all_of([0])
