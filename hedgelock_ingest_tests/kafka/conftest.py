"""Cluster fixtures: each test that uses one runs on the real cluster and on the simulated one."""

from collections.abc import Iterator
from random import Random

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.conftest import NO_RETENTION
from hedgelock_ingest_tests.kafka.clusters import KafkaUnderTest, MemoryKafka, RealKafka


@pytest.fixture(scope="module")
def killable_broker() -> Iterator[EmbeddedKafka]:
    """Start a broker for one module, whose tests freeze and kill it and leave it running."""
    with EmbeddedKafka(settings=NO_RETENTION) as broker:
        yield broker


@pytest.fixture
def memory_kafka(topic_prefix: str, moments: Random) -> MemoryKafka:
    """Return the simulated cluster."""
    return MemoryKafka(topic_prefix, moments)


@pytest.fixture(params=["memory", "real"])
def kafka_under_test(request: pytest.FixtureRequest, topic_prefix: str, moments: Random) -> Iterator[KafkaUnderTest]:
    """Return a cluster with a running broker; the real one is shared, so tests must not freeze or kill it."""
    if request.param == "memory":
        yield MemoryKafka(topic_prefix, moments)
    else:
        yield RealKafka(topic_prefix, request.getfixturevalue("kafka"))


@pytest.fixture(params=["memory", "real"])
def killable_kafka(request: pytest.FixtureRequest, topic_prefix: str, moments: Random) -> Iterator[KafkaUnderTest]:
    """Return a cluster whose broker tests may freeze and kill."""
    if request.param == "memory":
        yield MemoryKafka(topic_prefix, moments)
        return
    broker: EmbeddedKafka = request.getfixturevalue("killable_broker")
    try:
        yield RealKafka(topic_prefix, broker)
    finally:
        broker.thaw() if broker.is_running else broker.restart()
