"""Idempotent sending of batches: one request per broker, at most one batch per partition in flight."""

import asyncio
from collections.abc import Container, Mapping

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import ProducerSpent
from hedgelock_ingest.kafka.batch_format import RecordBatch
from hedgelock_ingest.kafka.ports import KafkaTiming, ProducerSession
from hedgelock_ingest.kafka.refusals import (
    DUPLICATE_SEQUENCE_NUMBER,
    LEADER_NOT_AVAILABLE,
    MAY_HAVE_APPENDED,
    BatchRefusal,
    RefusalKind,
)
from hedgelock_ingest.kafka.topic_metadata import NO_LEADER

log = structlog.get_logger(__name__)

_MAX_SEQUENCE = 2**31 - 1

type Answer = int | BatchRefusal
"""The offset of a batch's first record, below 0 if the broker already had the batch; or its refusal."""


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
        self._may_have_arrived: set[TopicPartition] = set()

    async def send(
        self, batches: Mapping[TopicPartition, RecordBatch], *, patience_s: float, blocked: Container[str] = ()
    ) -> dict[TopicPartition, Answer]:
        """
        Send one batch per partition, and return the final answers.

        A batch without an answer is sent again, without end, under the same sequence number: a broker that already has
        it reports the duplicate and does not append it twice. A batch whose refusal may pass is sent again for
        `patience_s`, but not to a blocked topic; after that it must come next in its partition. After any other refusal
        nothing was appended, and the next batch has the same sequence number.

        Source: Apache Kafka, KIP-98, "Idempotent Producer Guarantees".

        Raises:
            ProducerSpent: A batch is refused for good that may have arrived before, when its answer was lost.
        """
        waiting = {partition: self._content(partition, batch) for partition, batch in batches.items()}
        final: dict[TopicPartition, Answer] = {}
        refused_s: dict[TopicPartition, float] = {}
        is_first = True
        while True:
            causes: set[str] = set()
            for partition, answer in (await self._produce_all(waiting)).items():
                if isinstance(answer, int):
                    self._count(partition, batches[partition])
                elif not isinstance(answer, BatchRefusal):
                    self._may_have_arrived.add(partition)
                    causes.add(type(answer).__name__)
                    continue
                elif answer.kind is RefusalKind.LATER:
                    if answer.code in MAY_HAVE_APPENDED:
                        self._may_have_arrived.add(partition)
                    now_s = self._clock.monotonic()
                    since_s = now_s - refused_s.setdefault(partition, now_s)
                    if since_s < patience_s and partition.topic not in blocked:
                        causes.add(str(answer))
                        continue
                elif partition in self._may_have_arrived:
                    # Its sequence numbers may be used: another batch under them would be taken for a duplicate.
                    raise ProducerSpent(f"{answer} from {partition.topic} after a lost answer")
                if waiting.pop(partition, None) is not None:
                    final[partition] = answer
            if not waiting:
                return final
            if is_first:
                log.warning("batches_retried", batches=len(waiting), causes=sorted(causes))
                is_first = False
            self._session.renew_leaders()
            await self._clock.sleep(self._retry_s)
            await self._session.leaders_renewed()

    def _content(self, partition: TopicPartition, batch: RecordBatch) -> bytes:
        """Return the bytes of a batch, with its sequence number in its partition."""
        sequence = self._next_in_sequence.get(partition, 0)
        return batch.content(producer_id=self._producer_id, epoch=self._epoch, sequence=sequence)

    def _count(self, partition: TopicPartition, batch: RecordBatch) -> None:
        # After the last number the sequence wraps to 0 (Apache Kafka, `DefaultRecordBatch.incrementSequence`).
        self._may_have_arrived.discard(partition)
        self._next_in_sequence[partition] = self._next_in_sequence.get(partition, 0) + batch.count & _MAX_SEQUENCE

    async def _produce_all(
        self, waiting: Mapping[TopicPartition, bytes]
    ) -> dict[TopicPartition, Answer | AiokafkaError]:
        by_leader: dict[int, dict[TopicPartition, bytes]] = {}
        for partition, batch in waiting.items():
            leader = self._session.leader_of(partition)
            by_leader.setdefault(NO_LEADER if leader is None else leader, {})[partition] = batch
        if len(by_leader) == 1:  # without a task, the request is written before any other task runs
            return await self._produce_to(*by_leader.popitem())
        answers: dict[TopicPartition, Answer | AiokafkaError] = {}
        for of_leader in await asyncio.gather(*(self._produce_to(*each) for each in by_leader.items())):
            answers.update(of_leader)
        return answers

    async def _produce_to(
        self, leader: int, batches: Mapping[TopicPartition, bytes]
    ) -> dict[TopicPartition, Answer | AiokafkaError]:
        if leader == NO_LEADER:
            return dict.fromkeys(batches, BatchRefusal(LEADER_NOT_AVAILABLE))
        try:
            answers = await self._session.produce(leader, batches, answer_timeout_ms=self._answer_timeout_ms)
        except AiokafkaError as error:
            return dict.fromkeys(batches, error)
        return {
            partition: _answer(*answers[partition]) if partition in answers else AiokafkaError("not in the answer")
            for partition in batches
        }


def _answer(code: int, offset: int) -> Answer:
    return offset if code in (0, DUPLICATE_SEQUENCE_NUMBER) else BatchRefusal(code)
