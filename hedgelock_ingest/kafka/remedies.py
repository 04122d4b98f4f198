"""Remedies: what is sent instead of a batch that Kafka refuses for good, and which records are set aside."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from aiokafka import TopicPartition

from hedgelock_ingest.kafka.record_batches import Batch, BatchRebuilder
from hedgelock_ingest.kafka.refusals import RECORDS_TOO_LARGE, BatchRefusal, RefusalKind
from hedgelock_ingest.translate.record import Record, Refusal

TRIED_IN_A_ROW = 50
"""So many records in a row that are refused one by one show that the topic accepts none of their kind."""


class Remedies:
    """
    Remedies for refused batches, whose records are separated by sending halves.

    `batch_bytes` is the largest batch of each topic, before compression; it shrinks where a topic takes less.
    """

    def __init__(self, rebuilder: BatchRebuilder) -> None:
        """Begin without topics."""
        self.batch_bytes: dict[str, int] = {}
        self._rebuilder = rebuilder
        self._refused_in_a_row: Counter[TopicPartition] = Counter()

    def accepted(self, partition: TopicPartition) -> None:
        """Note that a partition has accepted a batch."""
        if self._refused_in_a_row:
            self._refused_in_a_row.pop(partition, None)

    def apply(
        self, partition: TopicPartition, batches: Sequence[Batch], answer: BatchRefusal
    ) -> tuple[list[Batch], list[Refusal]]:
        """
        Return the batches to send to a partition now, and the records that are set aside.

        Args:
            partition: The partition.
            batches: What was to be sent; the first batch is refused for good.
            answer: The refusal.
        """
        refused, *later = batches
        if answer.kind is RefusalKind.TIME:
            return [self._rebuilder.retimed(refused), *later], []
        topic, is_large = partition.topic, answer.code in RECORDS_TOO_LARGE
        if refused.count > 1:
            if is_large:
                self.batch_bytes[topic] = min(self.batch_bytes[topic], refused.size // 2)
            return [*self._rebuilder.halves(refused), *later], []
        (record,) = refused.records
        if is_large:
            return later, [Refusal(record, too_large(record, topic))]
        self._refused_in_a_row[partition] += 1
        set_aside = [Refusal(record, f"the topic {topic} refuses it: {answer}")]
        if self._refused_in_a_row[partition] < TRIED_IN_A_ROW:
            return later, set_aside
        # Each further one would cost requests for which all other topics wait.
        reason = f"not tried: the topic {topic} refused {TRIED_IN_A_ROW} or more records before it: {answer}"
        set_aside += [Refusal(each, reason) for each in chain.from_iterable(batch.records for batch in later)]
        return [], set_aside


def too_large(record: Record, topic: str) -> str:
    """Return the reason why a record is set aside that is larger than a topic takes."""
    return f"{len(record.value)} bytes, more than the topic {topic} takes"
