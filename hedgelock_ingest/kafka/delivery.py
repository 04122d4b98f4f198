"""Deliver batches as an idempotent producer: one request a broker, one batch a partition under way."""

import asyncio
from collections.abc import Iterable, Mapping

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import DuplicateSequenceNumber, LeaderNotAvailableError, NoError, for_code
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.kafka.produce import Produce
from hedgelock_ingest.kafka.record_batch import RecordBatch

log = structlog.get_logger(__name__)

_RETRY_S = 0.3
_NO_LEADER = -1
_LAST_IN_SEQUENCE = 2**31 - 1

type Answer = int | AiokafkaError
"""The offset of a batch's first record, below 0 if the broker knew the batch already; or why it is not taken."""


class Delivery:
    """
    Brings batches to the leaders of their partitions, in place of a producer's own queue and sender.

    Those take 20 µs a batch, and frames of many symbols make many small batches. The producer's connections, metadata
    and id are used, so nothing else may be sent by it.
    """

    def __init__(self, producer: AIOKafkaProducer, *, ask_ms: int) -> None:
        """
        Use a producer that is idempotent and started.

        Args:
            producer: Whose connections and id are used.
            ask_ms: How long a broker may take until all replicas have a batch, milliseconds.
        """
        self._client = producer.client
        self._identity = producer._txn_manager
        self._next_in_sequence: dict[TopicPartition, int] = {}
        self._ask_ms = ask_ms

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
        identity = self._identity
        return batch.content(producer_id=identity.producer_id, epoch=identity.producer_epoch, sequence=sequence)

    async def _ask_all(self, waiting: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, Answer]:
        by_leader: dict[int, dict[TopicPartition, bytes]] = {}
        for partition, batch in waiting.items():
            leader = self._client.cluster.leader_for_partition(partition)
            by_leader.setdefault(_NO_LEADER if leader is None else leader, {})[partition] = batch
        if len(by_leader) == 1:  # without a task the request is written before anything else has its turn
            return await self._ask(*by_leader.popitem())
        answers: dict[TopicPartition, Answer] = {}
        for some in await asyncio.gather(*(self._ask(*one) for one in by_leader.items())):
            answers.update(some)
        return answers

    async def _ask(self, leader: int, batches: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, Answer]:
        if leader == _NO_LEADER:
            return dict.fromkeys(batches, LeaderNotAvailableError())
        try:
            response = await self._client.send(leader, Produce(batches, ask_ms=self._ask_ms))
        except AiokafkaError as error:
            return dict.fromkeys(batches, error)
        except Exception as error:  # noqa: BLE001  aiokafka asserts a few things of a connection that it opens again
            return dict.fromkeys(batches, AiokafkaError(f"{type(error).__name__} while a broker was asked"))
        return {partition: _answer(code, offset) for partition, (code, offset) in response.answers.items()}

    async def _wait_for_leaders(self, troubles: Iterable[AiokafkaError]) -> None:
        if any(trouble.invalid_metadata for trouble in troubles):
            self._client.force_metadata_update()
        await asyncio.sleep(_RETRY_S)
        await self._client._maybe_wait_metadata()


def _answer(code: int, offset: int) -> Answer:
    error = for_code(code)
    if error is NoError or error is DuplicateSequenceNumber:
        return offset
    return error()
