"""What every test may ask for: a broker of the session, a broker of one's own, topics of one's own."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from hedgelock_ingest.sandbox.kafka import EmbeddedKafka

NO_RETENTION = {"log.initial.task.delay.ms": 0, "log.retention.check.interval.ms": 86_400_000}
"""After half a minute, then each five, Kafka deletes what is older than a topic keeps: here records of years ago."""


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """The broker that all tests share, started with the first; never stop, freeze or kill it."""
    with EmbeddedKafka(settings=NO_RETENTION) as broker:
        yield broker


@pytest.fixture
def own_kafka() -> Iterator[Callable[..., EmbeddedKafka]]:
    """Start a broker that only this test uses; takes the arguments of EmbeddedKafka."""
    with ExitStack() as brokers:

        def start(*arguments: Any, **options: Any) -> EmbeddedKafka:
            return brokers.enter_context(EmbeddedKafka(*arguments, **options))

        yield start


@pytest.fixture
def topic_prefix() -> str:
    """Begin topic names with this, so that tests on the shared broker do not meet."""
    return f"t{uuid.uuid4().hex[:12]}-"
