"""
A Kafka broker in memory, in the event loop's time.

It is a second implementation of the port in `hedgelock_ingest/kafka/ports.py`; `kafka/test_cluster_conformance.py`
checks that it behaves as a real broker does.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from random import Random

from aiokafka import TopicPartition

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.kafka.headers import JOURNAL_POSITION
from hedgelock_ingest.kafka.ports import Cluster
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.simulation.broker_network import Network
from hedgelock_ingest_tests.simulation.broker_storage import BrokerStorage
from hedgelock_ingest_tests.simulation.lifetime import Lifetime
from hedgelock_ingest_tests.simulation.memory_cluster import MemoryCluster
from hedgelock_ingest_tests.simulation.partition_log import StoredRecord

LATENCY_S = 0.000_2, 0.002
"""The shortest and the longest time of one way over a connection."""


class MemoryBroker:
    """The one broker of a simulated world: it leads all partitions, and has switches for faults."""

    def __init__(self, clock: Clock, random: Random, *, latency_s: tuple[float, float] = LATENCY_S) -> None:
        """
        Begin with no topics.

        Args:
            clock: The world's; the broker refuses records of more than an hour ahead of it.
            random: Draws latencies, and which requests a broker that is killed has still served.
            latency_s: The shortest and the longest time of one way over a connection.
        """
        self._clock = clock
        self._storage = BrokerStorage(clock)
        self._network = Network(random, latency_s)

    def cluster(self, settings: Settings, lifetime: Lifetime, clock: Clock | None = None) -> Cluster:
        """Return the cluster of a process, with the process's own clock if it has one."""
        return MemoryCluster(self._storage, self._network, clock or self._clock, settings, lifetime)

    # Faults

    @property
    def is_frozen(self) -> bool:
        """Whether requests wait."""
        return self._network.is_frozen

    @property
    def is_slow(self) -> bool:
        """Whether each way takes longer than normal."""
        return self._network.slow_s > 0

    @property
    def is_away(self) -> bool:
        """Whether the broker is down."""
        return self._network.is_away

    @property
    def has_bytes_under_way(self) -> bool:
        """Whether batches of a running process are under way."""
        return self._network.has_bytes_under_way

    def freeze(self) -> None:
        """Let requests wait in the sockets; only requests that were already served are answered."""
        self._network.is_frozen = True

    def thaw(self) -> None:
        """Serve the waiting requests, also those of ended clients; call it in the event loop."""
        self._network.thaw()

    def go_away(self) -> None:
        """Kill the broker, frozen or not: connections are cut and fail at once from then on; its data stay."""
        self._network.go_away()

    def come_back(self) -> None:
        """Start the broker again on its data."""
        self._storage.start()
        self._network.is_away = False

    def lose_answers(self, count: int) -> None:
        """Cut the connection instead of answering to the next `count` produce requests, which are served."""
        self._network.answers_to_lose += count

    def slow(self, delay_s: float) -> None:
        """Add a delay to each way; 0 ends it."""
        self._network.slow_s = delay_s

    def delay_last_bytes(self, delay_s: float) -> None:
        """Delay the last bytes of connections whose process has ended; 0 ends it."""
        self._network.late_s = delay_s

    def leaderless(self, *partitions: TopicPartition) -> None:
        """Remove the leaders of these partitions; clients find out when they are refused."""
        self._storage.leaderless |= set(partitions)

    def lead_again(self, *partitions: TopicPartition) -> None:
        """Restore the leaders of these partitions; of all, if none is named."""
        self._storage.leaderless -= set(partitions or self._storage.leaderless)

    def limit_bytes(self, topic: str, limit_bytes: int, *, is_reported: bool = True) -> None:
        """Change a topic's `max.message.bytes`, or the broker's actual limit without reporting it."""
        self._storage.limit(topic, limit_bytes, is_reported=is_reported)

    def refuse(self, topic: str, code: int | None) -> None:
        """Answer with an error code to all batches for a topic; None ends it."""
        if code is None:
            self._storage.refusals.pop(topic, None)
        else:
            self._storage.refusals[topic] = code

    def refuse_older(self, topic: str, age_ms: int) -> None:
        """Refuse batches with records of an older time, as `message.timestamp.before.max.ms` does."""
        self._storage.largest_age_ms[topic] = age_ms

    def refuse_value(self, topic: str, part: bytes) -> None:
        """Refuse batches in which a record's value has this part, as a broker that validates records does."""
        self._storage.refused_values[topic] = part

    def refuses_value(self, topic: str, value: bytes) -> bool:
        """Return whether `refuse_value` concerns a record's value."""
        return topic in self._storage.refused_values and self._storage.refused_values[topic] in value

    def refuse_nothing(self) -> None:
        """End all refusals by topic and by age."""
        self._storage.refusals.clear()
        self._storage.largest_age_ms.clear()

    def compact(self, topic: str) -> None:
        """Hide from readers all but the last record of each key; `records` still returns all."""
        self._storage.compact(topic)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its records."""
        self._storage.delete(topic)

    def create_topic(self, topic: str, partitions: int, limit_bytes: int | None = None) -> None:
        """Create an empty topic; one of the same name is deleted with its records and its producer state."""
        options = {} if limit_bytes is None else {"limit_bytes": limit_bytes}
        self._storage.create(topic, partitions, **options)

    # Contents

    @property
    def counts(self) -> Mapping[str, int]:
        """How many batches were `appended`, `repeated`, `refused_` with an error's number, `producers_forgotten`."""
        return Counter(self._storage.counts)

    @property
    def topics(self) -> Collection[str]:
        """The topics that exist."""
        return self._storage.topics.keys()

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic."""
        return [TopicPartition(topic, number) for number in range(self._storage.topics[topic].partitions)]

    def last_position(self) -> int:
        """Return the highest journal position of all records; 0 if there is none."""
        positions = (
            int(dict(record.headers)[JOURNAL_POSITION]) for topic in self.topics for record in self.records(topic)
        )
        return max(positions, default=0)

    def records(self, topic: str) -> list[StoredRecord]:
        """Decode all records of a topic, partition by partition in offset order."""
        return [
            record
            for partition in self.partitions(topic)
            for batch in self._storage.logs[partition].batches
            for record in batch.records(*partition)
        ]
