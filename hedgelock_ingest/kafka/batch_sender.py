"""Idempotent sending of batches: one request per broker, at most one batch per partition in flight."""

import asyncio
from collections.abc import Iterable, Mapping

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import DuplicateSequenceNumber, LeaderNotAvailableError, NoError, for_code
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.kafka.batch_format import RecordBatch
from hedgelock_ingest.kafka.ports import NO_LEADER, KafkaTiming, ProducerSession

log = structlog.get_logger(__name__)

_MAX_SEQUENCE = 2**31 - 1

type Answer = int | AiokafkaError
"""The offset of a batch's first record, below 0 if the broker already had the batch; or the error that refused it."""


class BatchSender:
    """
    Sends batches to the leaders of their partitions, in place of aiokafka's queue and sender.

    Those cost 20 µs per batch, and frames of many symbols produce many small batches.
    """

    def __init__(self, session: ProducerSession, clock: Clock, timing: KafkaTiming) -> None:
        """Send through an open session that is used by this sender alone."""
        self._session = session
        self._clock = clock
        self._answer_timeout_ms = timing.answer_timeout_ms
        self._retry_s = timing.retry_s
        self._producer_id, self._epoch = session.producer_id, session.epoch
        self._next_in_sequence: dict[TopicPartition, int] = {}

    async def send(self, batches: Mapping[TopicPartition, RecordBatch]) -> dict[TopicPartition, Answer]:
        """
        Send one batch per partition, and return the final answers.

        A batch refused with a retriable error is sent again, without end, under the same sequence number: a broker
        that already has it reports the duplicate and does not append it twice.

        Source: Apache Kafka, KIP-98, "Idempotent Producer Guarantees".
        """
        waiting = {partition: self._numbered(partition, batch) for partition, batch in batches.items()}
        final: dict[TopicPartition, Answer] = {}
        is_first = True
        while True:
            answers = await self._produce_all(waiting)
            retriable_errors: list[AiokafkaError] = []
            for partition, answer in answers.items():
                if isinstance(answer, AiokafkaError) and answer.retriable:
                    retriable_errors.append(answer)
                elif waiting.pop(partition, None) is not None:
                    final[partition] = answer
            if not waiting:
                return final
            if is_first:
                log.warning(
                    "batches_retried",
                    batches=len(waiting),
                    causes=sorted({type(error).__name__ for error in retriable_errors}),
                )
                is_first = False
            await self._wait_for_leaders(retriable_errors)

    def _numbered(self, partition: TopicPartition, batch: RecordBatch) -> bytes:
        """Return the bytes of a batch, with its sequence number in its partition."""
        sequence = self._next_in_sequence.get(partition, 0)
        # After the last number the sequence wraps to 0 (Apache Kafka, `DefaultRecordBatch.incrementSequence`).
        self._next_in_sequence[partition] = sequence + batch.count & _MAX_SEQUENCE
        return batch.content(producer_id=self._producer_id, epoch=self._epoch, sequence=sequence)

    async def _produce_all(self, waiting: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, Answer]:
        by_leader: dict[int, dict[TopicPartition, bytes]] = {}
        for partition, batch in waiting.items():
            leader = self._session.leader_of(partition)
            by_leader.setdefault(NO_LEADER if leader is None else leader, {})[partition] = batch
        if len(by_leader) == 1:  # without a task, the request is written before any other task runs
            return await self._produce_to(*by_leader.popitem())
        answers: dict[TopicPartition, Answer] = {}
        for of_leader in await asyncio.gather(*(self._produce_to(*each) for each in by_leader.items())):
            answers.update(of_leader)
        return answers

    async def _produce_to(self, leader: int, batches: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, Answer]:
        if leader == NO_LEADER:
            return dict.fromkeys(batches, LeaderNotAvailableError())
        try:
            answers = await self._session.produce(leader, batches, answer_timeout_ms=self._answer_timeout_ms)
        except AiokafkaError as error:
            return dict.fromkeys(batches, error)
        return {partition: _answer(code, offset) for partition, (code, offset) in answers.items()}

    async def _wait_for_leaders(self, errors: Iterable[AiokafkaError]) -> None:
        if any(error.invalid_metadata for error in errors):
            self._session.renew_leaders()
        await self._clock.sleep(self._retry_s)
        await self._session.leaders_renewed()


def _answer(code: int, offset: int) -> Answer:
    error = for_code(code)
    if error is NoError or error is DuplicateSequenceNumber:
        return offset
    return error()
