"""Stands: each test that takes one runs on the real cluster and on that of the simulation."""

from collections.abc import Iterator
from random import Random

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest_tests.conftest import NO_RETENTION
from hedgelock_ingest_tests.kafka.stands import MemoryStand, RealStand, Stand


@pytest.fixture(scope="module")
def troubled_kafka() -> Iterator[EmbeddedKafka]:
    """Start a broker for the tests of one module that freeze and kill it, and leave it running."""
    with EmbeddedKafka(settings=NO_RETENTION) as broker:
        yield broker


@pytest.fixture(params=["memory", "real"])
def stand(request: pytest.FixtureRequest, topic_prefix: str, moments: Random) -> Iterator[Stand]:
    """Give a cluster whose broker runs; `kafka` is shared, so it may not be frozen or killed."""
    if request.param == "memory":
        yield MemoryStand(topic_prefix, moments)
    else:
        yield RealStand(topic_prefix, request.getfixturevalue("kafka"))


@pytest.fixture(params=["memory", "real"])
def troubled(request: pytest.FixtureRequest, topic_prefix: str, moments: Random) -> Iterator[Stand]:
    """Give a cluster whose broker may be frozen and killed."""
    if request.param == "memory":
        yield MemoryStand(topic_prefix, moments)
        return
    broker: EmbeddedKafka = request.getfixturevalue("troubled_kafka")
    try:
        yield RealStand(topic_prefix, broker)
    finally:
        broker.thaw() if broker.is_running else broker.restart()
