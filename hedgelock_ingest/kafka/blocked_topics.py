"""Blocked topics: topics that accept nothing for now, while the others go on."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import structlog
from aiokafka import TopicPartition

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Blocked[Batch]:
    reason: str
    delay_s: float
    due_s: float
    batches: dict[TopicPartition, Batch | None]
    may_be_missing: bool = False


class BlockedTopics[Batch]:
    """
    The partitions that refuse their next batch for now, by topic, and when each topic is tried again.

    Nothing more is sent to a blocked partition before its batch is accepted, so that its records stay in order. The
    topic's other partitions go on. `now_s` is a monotonic clock.
    """

    def __init__(self, retry_s: tuple[float, float]) -> None:
        """Begin with no blocked topic; the pauses between tries grow from the first to the second."""
        self._initial_s, self._maximum_s = retry_s
        self._topics: dict[str, _Blocked[Batch]] = {}
        self.partitions: set[TopicPartition] = set()

    @property
    def names(self) -> Collection[str]:
        """The topics that are blocked."""
        return self._topics.keys()

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why a topic is blocked, by topic."""
        return {name: blocked.reason for name, blocked in sorted(self._topics.items())}

    def block(
        self, partition: TopicPartition, batch: Batch | None, reason: str, now_s: float, *, may_be_missing: bool = False
    ) -> None:
        """Block a partition whose next batch is refused; without one, until the topic can be read back."""
        blocked = self._topics.get(partition.topic)
        if blocked is None:
            log.error("topic_blocked", topic=partition.topic, reason=reason)
            blocked = _Blocked(reason, self._initial_s, now_s + self._initial_s, {})
            self._topics[partition.topic] = blocked
        blocked.reason, blocked.may_be_missing = reason, may_be_missing
        blocked.batches[partition] = batch
        self.partitions.add(partition)

    def due(self, now_s: float) -> list[str]:
        """Return the topics to be tried again; each is due again after a longer pause."""
        due = [name for name, blocked in self._topics.items() if blocked.due_s <= now_s]
        for name in due:
            blocked = self._topics[name]
            blocked.delay_s = min(2 * blocked.delay_s, self._maximum_s)
            blocked.due_s = now_s + blocked.delay_s
        return due

    def batches_of(self, topics: Iterable[str]) -> dict[TopicPartition, Batch]:
        """Return the refused batches of these topics."""
        found = [each for name in topics for each in self._topics[name].batches.items()]
        return {partition: batch for partition, batch in found if batch is not None}

    def need_survey(self, topics: Iterable[str]) -> bool:
        """Return whether one of these topics may be missing, or has to be read back first."""
        found = [self._topics[name] for name in topics]
        return any(blocked.may_be_missing or None in blocked.batches.values() for blocked in found)

    def remove(self, partition: TopicPartition) -> None:
        """Note that a partition is no longer blocked."""
        blocked = self._topics[partition.topic]
        del blocked.batches[partition]
        self.partitions.discard(partition)
        if not blocked.batches:
            log.warning("topic_unblocked", topic=partition.topic)
            del self._topics[partition.topic]

    def clear(self) -> None:
        """Forget all: a new producer tries everything."""
        self._topics.clear()
        self.partitions.clear()
