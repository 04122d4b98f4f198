"""Batches are retried until their answer is final, under unchanged sequence numbers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    DuplicateSequenceNumber,
    KafkaConnectionError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import ProducerSpent
from hedgelock_ingest.kafka.batch_format import Codec, RecordBatch, with_length
from hedgelock_ingest.kafka.batch_sender import BatchSender
from hedgelock_ingest.kafka.ports import KafkaTiming, ProduceAnswer
from hedgelock_ingest.kafka.refusals import BatchRefusal
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.kafka.batches import NO_HEADERS, read_batch
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.kafka.sessions import producing
from hedgelock_ingest_tests.kafka.topics import create_topic

A, B = TopicPartition("a", 0), TopicPartition("b", 3)
PRODUCER_ID, EPOCH = 4_711, 2

type Codes = dict[TopicPartition, int]
"""A broker's answer: an error code by partition, 0 for none."""


class Brokers:
    """Stands in for a session: it records requests, and returns prepared answers."""

    producer_id, epoch = PRODUCER_ID, EPOCH

    def __init__(self, *answers: Codes | Exception, leaders: Callable[[TopicPartition], int | None]) -> None:
        self.requests: list[tuple[int, dict[TopicPartition, bytes]]] = []
        self.renewals = 0
        self.leader_of = leaders
        self._answers = list(answers)

    async def open(self, topics: Collection[str]) -> None:
        """Do nothing."""

    async def produce(
        self, leader: int, batches: Mapping[TopicPartition, bytes], *, answer_timeout_ms: int
    ) -> Mapping[TopicPartition, ProduceAnswer]:
        self.requests.append((leader, dict(batches)))
        codes = self._answers.pop(0)
        if isinstance(codes, Exception):
            raise codes
        return {partition: (codes.get(partition, 0), 70) for partition in batches}

    def renew_leaders(self) -> None:
        self.renewals += 1

    async def leaders_renewed(self) -> None:
        """Return at once."""

    async def close(self) -> None:
        """Do nothing."""


def a_sender(brokers: Brokers) -> BatchSender:
    """Create a sender that retries without a pause."""
    return BatchSender(brokers, SystemClock(), KafkaTiming(retry_s=0.0))


def a_batch(count: int = 2) -> RecordBatch:
    """Build a batch of some records."""
    batch = RecordBatch(10_000, Codec.NONE)
    for number in range(count):
        batch.append(1, with_length(b"k"), b"%d" % number, NO_HEADERS)
    return batch


def sequences(brokers: Brokers, partition: TopicPartition) -> Sequence[int]:
    """Return the base sequence of a partition's batch in each request."""
    found = []
    for _, batches in brokers.requests:
        if partition in batches:
            batch = read_batch(batches[partition])
            assert (batch.producer_id, batch.producer_epoch) == (PRODUCER_ID, EPOCH)
            found.append(batch.base_sequence)
    return found


@pytest.fixture
async def one_leader() -> Callable[[TopicPartition], int]:
    """Return a leader function with one broker for all partitions."""
    return lambda _: 1


async def test_blocked_topic_is_not_waited_for(one_leader: Callable[[TopicPartition], int]) -> None:
    """All other topics would wait again for each partition of it."""
    refused = TopicAuthorizationFailedError.errno
    brokers = Brokers({A: refused}, leaders=one_leader)
    answers = await a_sender(brokers).send({A: a_batch(), B: a_batch()}, patience_s=60.0, blocked={A.topic})
    assert answers == {A: BatchRefusal(refused), B: 70}


async def test_answer_for_other_partitions_is_none(one_leader: Callable[[TopicPartition], int]) -> None:
    """What it lacks is sent again under its number, and what it adds is ignored."""

    class Confused(Brokers):
        async def produce(self, *args: Any, **options: Any) -> Mapping[TopicPartition, ProduceAnswer]:
            answers = dict(await super().produce(*args, **options))
            if len(self.requests) == 1:
                answers[TopicPartition("unasked", 0)] = answers.pop(A)
            return answers

    brokers = Confused({}, {}, leaders=one_leader)
    assert await a_sender(brokers).send({A: a_batch(), B: a_batch()}, patience_s=60.0) == {A: 70, B: 70}
    assert (sequences(brokers, A), sequences(brokers, B)) == ([0, 0], [0])


async def test_batches_of_one_leader_share_a_request(one_leader: Callable[[TopicPartition], int]) -> None:
    """A request per batch would cost a round trip each."""
    brokers = Brokers({}, {}, leaders=one_leader)
    one = a_sender(brokers)

    assert await one.send({A: a_batch(2), B: a_batch(5)}, patience_s=60.0) == {A: 70, B: 70}
    await one.send({B: a_batch()}, patience_s=60.0)

    assert [set(batches) for _, batches in brokers.requests] == [{A, B}, {B}]
    assert (sequences(brokers, A), sequences(brokers, B)) == ([0], [0, 5])


async def test_each_leader_gets_its_own_batches() -> None:
    """A broker refuses batches of partitions that it does not lead."""
    brokers = Brokers({}, {}, leaders=lambda partition: {A: 1, B: 2}[partition])
    await a_sender(brokers).send({A: a_batch(), B: a_batch()}, patience_s=60.0)

    assert {node: set(batches) for node, batches in brokers.requests} == {1: {A}, 2: {B}}


@pytest.mark.parametrize(
    "error",
    [{A: NotLeaderForPartitionError.errno}, KafkaConnectionError("cut off")],
    ids=["refused", "answer lost"],
)
async def test_batch_refused_with_a_retriable_error_is_sent_again_unchanged(
    one_leader: Callable[[TopicPartition], int], error: Codes | Exception
) -> None:
    """Under a new number, a batch that had arrived and whose answer was lost would be appended twice."""
    brokers = Brokers(error, error, {}, leaders=one_leader)

    assert await a_sender(brokers).send({A: a_batch()}, patience_s=60.0) == {A: 70}

    assert brokers.requests[0][1][A] == brokers.requests[1][1][A] == brokers.requests[2][1][A]
    assert brokers.renewals == 2


async def test_only_failed_batches_are_sent_again(one_leader: Callable[[TopicPartition], int]) -> None:
    """The answers of the others are final."""
    brokers = Brokers({A: NotLeaderForPartitionError.errno}, {}, leaders=one_leader)

    assert await a_sender(brokers).send({A: a_batch(), B: a_batch()}, patience_s=60.0) == {A: 70, B: 70}

    assert [set(batches) for _, batches in brokers.requests] == [{A, B}, {A}]


async def test_duplicate_batch_counts_as_arrived(one_leader: Callable[[TopicPartition], int]) -> None:
    """Its first answer was lost."""
    brokers = Brokers({A: DuplicateSequenceNumber.errno}, leaders=one_leader)

    assert await a_sender(brokers).send({A: a_batch()}, patience_s=60.0) == {A: 70}


async def test_permanent_refusal_is_the_answer(one_leader: Callable[[TopicPartition], int]) -> None:
    """The caller decides what to do with the refused batch; the other one has arrived."""
    brokers = Brokers({A: MessageSizeTooLargeError.errno}, leaders=one_leader)

    answers = await a_sender(brokers).send({A: a_batch(), B: a_batch()}, patience_s=60.0)

    assert answers == {A: BatchRefusal(MessageSizeTooLargeError.errno), B: 70}


async def test_batch_after_a_refused_one_has_its_sequence_number(one_leader: Callable[[TopicPartition], int]) -> None:
    """Nothing of the refused batch was appended, so the broker expects its number."""
    brokers = Brokers({A: MessageSizeTooLargeError.errno}, {}, leaders=one_leader)
    one = a_sender(brokers)

    await one.send({A: a_batch(3)}, patience_s=60.0)
    await one.send({A: a_batch(1)}, patience_s=60.0)

    assert sequences(brokers, A) == [0, 0]


@pytest.mark.parametrize(
    "before", [KafkaConnectionError("cut off"), {A: RequestTimedOutError.errno}], ids=["answer lost", "timed out"]
)
async def test_refusal_of_a_batch_that_may_have_arrived_ends_the_producer(
    one_leader: Callable[[TopicPartition], int], before: Codes | Exception
) -> None:
    """Under its sequence number the next batch would be taken for a copy of it, and dropped."""
    brokers = Brokers(before, {A: MessageSizeTooLargeError.errno}, leaders=one_leader)

    with pytest.raises(ProducerSpent, match="lost answer"):
        await a_sender(brokers).send({A: a_batch(1)}, patience_s=60.0)


async def test_refusal_that_may_pass_is_final_after_a_while(one_leader: Callable[[TopicPartition], int]) -> None:
    """The other partitions wait no longer for it; the same batch comes next."""
    denied: Codes = {A: TopicAuthorizationFailedError.errno}
    brokers = Brokers(denied, denied, {}, leaders=one_leader)
    one, batch = a_sender(brokers), a_batch()

    assert await one.send({A: batch, B: a_batch()}, patience_s=0.0) == {A: BatchRefusal(29), B: 70}
    assert await one.send({A: batch}, patience_s=0.0) == {A: BatchRefusal(29)}
    assert await one.send({A: batch}, patience_s=0.0) == {A: 70}

    assert brokers.requests[0][1][A] == brokers.requests[1][1][A] == brokers.requests[2][1][A]


async def test_batch_waits_for_its_partition_to_have_a_leader() -> None:
    """While brokers elect one, no request is sent."""
    leaders = iter([None, -1, 1])
    brokers = Brokers({}, leaders=lambda _: next(leaders))

    assert await a_sender(brokers).send({A: a_batch()}, patience_s=60.0) == {A: 70}

    assert [node for node, _ in brokers.requests] == [1]
    assert brokers.renewals == 2
    assert LeaderNotAvailableError.invalid_metadata


async def test_broker_appends_a_batch_that_was_sent_twice_once(kafka: EmbeddedKafka, topic_prefix: str) -> None:
    """The answers to two requests are lost on the way back; a real broker recognises the numbers."""
    topic = topic_prefix + "once"
    await create_topic(kafka.bootstrap_servers, topic)
    async with producing(kafka.bootstrap_servers, topic) as session:
        client, lost = session._client, [True, False, True, True]
        one, send = BatchSender(session, SystemClock(), KafkaTiming()), client.send

        async def send_and_lose(node_id: int, request: Any) -> Any:
            answer = await send(node_id, request)
            if lost and lost.pop(0):
                raise KafkaConnectionError("cut off")
            return answer

        client.send = send_and_lose
        offsets = [await one.send({TopicPartition(topic, 0): a_batch(3)}, patience_s=60.0) for _ in range(3)]

    assert lost == []
    assert [offset for (offset,) in (answers.values() for answers in offsets)] == [0, 3, 6]
    assert [record.value for record in await read_topic(kafka.bootstrap_servers, topic)] == [b"0", b"1", b"2"] * 3


async def test_sequence_wraps_to_0_after_its_last_number(
    kafka: EmbeddedKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 2,147,483,648 records of a partition, as Kafka's own producer does it; the broker is strict."""
    topic = topic_prefix + "long"
    await create_topic(kafka.bootstrap_servers, topic)
    partition = TopicPartition(topic, 0)
    async with producing(kafka.bootstrap_servers, topic) as session:
        one = BatchSender(session, SystemClock(), KafkaTiming())
        monkeypatch.setitem(one._next_in_sequence, partition, 2**31 - 5)
        offsets = [(await one.send({partition: a_batch(3)}, patience_s=60.0))[partition] for _ in range(4)]

    assert offsets == [0, 3, 6, 9]
