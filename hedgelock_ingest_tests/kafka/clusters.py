"""The real and the simulated cluster for tests, with the same switches for faults."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from aiokafka.admin import AIOKafkaAdminClient

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaCluster
from hedgelock_ingest.kafka.headers import Headers
from hedgelock_ingest.kafka.ports import Cluster, KafkaTiming
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.read_topic import read_topic
from hedgelock_ingest_tests.kafka.topics import alter_largest_age, alter_largest_message, create_topic, is_missing
from hedgelock_ingest_tests.processes.stage import eventually
from hedgelock_ingest_tests.simulation.broker import MemoryBroker

CLOCK = SystemClock()
TIMING = KafkaTiming(stop_timeout_s=0.2)


class FoundRecord(Protocol):
    """A record read from a topic."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class KafkaUnderTest(Protocol):
    """A cluster under test, with switches for faults."""

    settings: Settings

    def cluster(self) -> Cluster:
        """Return the cluster port."""
        ...

    async def create_topic(self, topic: str, *, limit_bytes: int | None = None) -> None:
        """Create a topic of one partition."""
        ...

    async def recreate_topic(self, topic: str, partitions: int, limit_bytes: int) -> None:
        """Delete a topic and create it again, so that the broker has lost its producer state."""
        ...

    async def limit_bytes(self, topic: str, limit_bytes: int) -> None:
        """Change a topic's `max.message.bytes`; the real broker may get records without headers to see it."""
        ...

    async def refuse_older(self, topic: str, age_ms: int) -> None:
        """Set a topic's `message.timestamp.before.max.ms`."""
        ...

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        ...

    async def freeze(self) -> None:
        """Make requests wait."""
        ...

    async def thaw(self) -> None:
        """Serve the waiting requests."""
        ...

    async def kill(self) -> None:
        """Kill the broker; its data stay."""
        ...

    async def restart(self) -> None:
        """Start the broker again on its data."""
        ...

    async def records(self, topic: str) -> Sequence[FoundRecord]:
        """Read a topic to its end, partition by partition in offset order."""
        ...


def publisher_of(kafka_under_test: KafkaUnderTest, timing: KafkaTiming = TIMING) -> Publisher:
    """Create a publisher for the journal whose id is all zeros."""
    return Publisher(
        kafka_under_test.settings, "0" * 32, cluster=kafka_under_test.cluster(), clock=CLOCK, timing=timing
    )


@dataclass(slots=True)
class _EndlessLifetime:
    is_dead: bool = False


class MemoryKafka:
    """The simulated broker, in real time."""

    def __init__(self, prefix: str, random: Random) -> None:
        """Start an empty broker."""
        self.settings = _settings("nowhere:1", prefix)
        self.broker = MemoryBroker(CLOCK, random)

    def cluster(self) -> Cluster:
        """Return the cluster port."""
        return self.broker.cluster(self.settings, _EndlessLifetime())

    async def create_topic(self, topic: str, *, limit_bytes: int | None = None) -> None:
        """Create a topic of one partition."""
        self.broker.create_topic(topic, 1, limit_bytes)

    async def recreate_topic(self, topic: str, partitions: int, limit_bytes: int) -> None:
        """Create a topic in place of the old one, without producer state."""
        self.broker.create_topic(topic, partitions, limit_bytes)

    async def limit_bytes(self, topic: str, limit_bytes: int) -> None:
        """Change a topic's `max.message.bytes`."""
        self.broker.limit_bytes(topic, limit_bytes)

    async def refuse_older(self, topic: str, age_ms: int) -> None:
        """Set the largest age of a topic's records."""
        self.broker.refuse_older(topic, age_ms)

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic."""
        self.broker.delete_topic(topic)

    async def freeze(self) -> None:
        """Make requests wait."""
        self.broker.freeze()

    async def thaw(self) -> None:
        """Serve the waiting requests."""
        self.broker.thaw()

    async def kill(self) -> None:
        """Kill the broker."""
        self.broker.go_away()

    async def restart(self) -> None:
        """Start the broker again."""
        self.broker.come_back()

    async def records(self, topic: str) -> Sequence[FoundRecord]:
        """Read a topic to its end."""
        return self.broker.records(topic)


class RealKafka:
    """An embedded broker that no other test uses at the same time."""

    def __init__(self, prefix: str, broker: EmbeddedKafka) -> None:
        """Use a running broker."""
        self.settings = _settings(broker.bootstrap_servers, prefix)
        self.broker = broker

    def cluster(self) -> Cluster:
        """Return the cluster port."""
        return AiokafkaCluster(self.settings, CLOCK, TIMING)

    async def create_topic(self, topic: str, *, limit_bytes: int | None = None) -> None:
        """Create a topic of one partition."""
        await create_topic(self.broker.bootstrap_servers, topic, limit_bytes=limit_bytes)

    async def recreate_topic(self, topic: str, partitions: int, limit_bytes: int) -> None:
        """Delete a topic, wait until it is gone, and create it."""
        await self.delete_topic(topic)
        await create_topic(self.broker.bootstrap_servers, topic, partitions=partitions, limit_bytes=limit_bytes)

    async def limit_bytes(self, topic: str, limit_bytes: int) -> None:
        """Change a topic's `max.message.bytes`, and wait until the broker applies it."""
        await alter_largest_message(self.broker.bootstrap_servers, topic, limit_bytes)

    async def refuse_older(self, topic: str, age_ms: int) -> None:
        """Set `message.timestamp.before.max.ms`, and wait until the broker applies it."""
        await alter_largest_age(self.broker.bootstrap_servers, topic, age_ms)

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_topics([topic])
            await eventually(f"{topic} is gone", lambda: is_missing(admin, topic))
        finally:
            await admin.close()

    async def freeze(self) -> None:
        """Stop the process, as SIGSTOP does."""
        self.broker.freeze()

    async def thaw(self) -> None:
        """Let the process continue."""
        self.broker.thaw()

    async def kill(self) -> None:
        """Kill the process."""
        await asyncio.to_thread(self.broker.kill)

    async def restart(self) -> None:
        """Start the broker again."""
        await asyncio.to_thread(self.broker.restart)

    async def records(self, topic: str) -> Sequence[FoundRecord]:
        """Read a topic to its end."""
        return await read_topic(self.broker.bootstrap_servers, topic)


def _settings(bootstrap_servers: str, prefix: str) -> Settings:
    names: dict[str, Any] = {topic.setting: prefix + topic.value for topic in Topic}
    return Settings(kafka_bootstrap_servers=bootstrap_servers, **names)
