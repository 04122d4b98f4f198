"""Deliver batches as an idempotent producer: one request a broker, one batch a partition under way."""

import asyncio
from collections.abc import Iterable, Mapping

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import DuplicateSequenceNumber, LeaderNotAvailableError, NoError, for_code
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.kafka.ports import NO_LEADER, ProducerSession
from hedgelock_ingest.kafka.record_batch import RecordBatch
from hedgelock_ingest.kafka.timing import KafkaTiming

log = structlog.get_logger(__name__)

_LAST_IN_SEQUENCE = 2**31 - 1

type Answer = int | AiokafkaError
"""The offset of a batch's first record, below 0 if the broker knew the batch already; or why it is not taken."""


class Delivery:
    """
    Brings batches to the leaders of their partitions, in place of a producer's own queue and sender.

    Those take 20 µs a batch, and frames of many symbols make many small batches.
    """

    def __init__(self, session: ProducerSession, clock: Clock, timing: KafkaTiming) -> None:
        """Send by a session that is open, and that nobody else sends by."""
        self._session = session
        self._clock = clock
        self._ask_ms = timing.ask_ms
        self._retry_s = timing.retry_s
        self._producer_id, self._epoch = session.producer_id, session.epoch
        self._next_in_sequence: dict[TopicPartition, int] = {}

    async def deliver(self, batches: Mapping[TopicPartition, RecordBatch]) -> dict[TopicPartition, Answer]:
        """
        Deliver one batch a partition, and give the final answers.

        What may succeed another time is sent again, without end, under the same sequence number: a broker that has
        taken it says so instead of taking it twice.

        Source: Apache Kafka, KIP-98, "Idempotent Producer Guarantees".
        """
        waiting = {partition: self._numbered(partition, batch) for partition, batch in batches.items()}
        final: dict[TopicPartition, Answer] = {}
        is_first = True
        while True:
            answers = await self._ask_all(waiting)
            troubles: list[AiokafkaError] = []
            for partition, answer in answers.items():
                if isinstance(answer, AiokafkaError) and answer.retriable:
                    troubles.append(answer)
                elif waiting.pop(partition, None) is not None:
                    final[partition] = answer
            if not waiting:
                return final
            if is_first:
                log.warning(
                    "batches_sent_again", batches=len(waiting), causes=sorted({type(t).__name__ for t in troubles})
                )
                is_first = False
            await self._wait_for_leaders(troubles)

    def _numbered(self, partition: TopicPartition, batch: RecordBatch) -> bytes:
        """Give the bytes of a batch, with its place in the sequence of its partition."""
        sequence = self._next_in_sequence.get(partition, 0)
        # Behind the last number comes 0 again (Apache Kafka, `DefaultRecordBatch.incrementSequence`).
        self._next_in_sequence[partition] = sequence + batch.count & _LAST_IN_SEQUENCE
        return batch.content(producer_id=self._producer_id, epoch=self._epoch, sequence=sequence)

    async def _ask_all(self, waiting: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, Answer]:
        by_leader: dict[int, dict[TopicPartition, bytes]] = {}
        for partition, batch in waiting.items():
            leader = self._session.leader_of(partition)
            by_leader.setdefault(NO_LEADER if leader is None else leader, {})[partition] = batch
        if len(by_leader) == 1:  # without a task the request is written before anything else has its turn
            return await self._ask(*by_leader.popitem())
        answers: dict[TopicPartition, Answer] = {}
        for some in await asyncio.gather(*(self._ask(*one) for one in by_leader.items())):
            answers.update(some)
        return answers

    async def _ask(self, leader: int, batches: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, Answer]:
        if leader == NO_LEADER:
            return dict.fromkeys(batches, LeaderNotAvailableError())
        try:
            answers = await self._session.produce(leader, batches, ask_ms=self._ask_ms)
        except AiokafkaError as error:
            return dict.fromkeys(batches, error)
        return {partition: _answer(code, offset) for partition, (code, offset) in answers.items()}

    async def _wait_for_leaders(self, troubles: Iterable[AiokafkaError]) -> None:
        if any(trouble.invalid_metadata for trouble in troubles):
            self._session.renew_leaders()
        await self._clock.sleep(self._retry_s)
        await self._session.leaders_renewed()


def _answer(code: int, offset: int) -> Answer:
    error = for_code(code)
    if error is NoError or error is DuplicateSequenceNumber:
        return offset
    return error()
