"""Whatever aiokafka raises becomes an error of ours that is retried: none may end the stream."""

import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError, UnknownError

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import KafkaDenied, KafkaUnavailable
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaCluster, AiokafkaTailReader
from hedgelock_ingest.kafka.broker_client import BrokerClient
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.settings import Settings

PARTITION = TopicPartition("t", 0)
CLUSTER = AiokafkaCluster(Settings(), SystemClock(), KafkaTiming())
ERRORS = [
    AssertionError("no connection"), KeyError("cleanup.policy"), struct.error("unpack requires 4 bytes"),
    ValueError("not enough values"), IndexError(), TypeError(), AttributeError("nodeId"), NotImplementedError(),
    EOFError(), TimeoutError(), ConnectionResetError(), UnknownError(), ExceptionGroup("two", [KeyError("one")]),
]  # fmt: skip


async def topics() -> None:
    """Ask for the topics."""
    await CLUSTER.topics()


async def open_producer() -> None:
    """Open a producer."""
    session = CLUSTER.producer()
    try:
        await session.open(["t"])
    finally:
        await session.close()


def with_reader(step: Callable[[AiokafkaTailReader], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
    """Return a step of a reader, which is then closed."""

    async def taken() -> None:
        reader = CLUSTER.reader()
        try:
            await step(reader)
        finally:
            await reader.close()

    return taken


async def read(reader: AiokafkaTailReader) -> None:
    """Read one record."""
    async for _ in reader.read({PARTITION: 0}, {PARTITION: 1}):
        pass


CALLS: dict[str, tuple[object, str, Callable[[], Awaitable[None]]]] = {
    "topics": (BrokerClient, "bootstrap", topics),
    "producer": (BrokerClient, "bootstrap", open_producer),
    "stop": (AIOKafkaConsumer, "stop", with_reader(lambda reader: reader.close())),
    "open": (BrokerClient, "bootstrap", with_reader(lambda reader: reader.open([PARTITION]))),
    "begins": (AIOKafkaConsumer, "beginning_offsets", with_reader(lambda reader: reader.begins([PARTITION]))),
    "ends": (AIOKafkaConsumer, "end_offsets", with_reader(lambda reader: reader.ends([PARTITION]))),
    "read": (AIOKafkaConsumer, "seek", with_reader(read)),
    "fetch": (AIOKafkaConsumer, "getmany", with_reader(read)),
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", CALLS)
async def test_every_exception_is_retried(monkeypatch: pytest.MonkeyPatch, call: str, error: Exception) -> None:
    """Its type and text are kept, since they are all that explains it."""
    owner, method, take = CALLS[call]

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(AIOKafkaConsumer, "seek", lambda *_: None)
    monkeypatch.setattr(AIOKafkaProducer, "stop", _stopped)
    monkeypatch.setattr(owner, method, fail)
    with pytest.raises(KafkaUnavailable) as failed:
        await take()
    assert failed.value.transient
    assert type(error).__name__ in str(failed.value) or isinstance(error, TimeoutError)
    assert str(error) in str(failed.value)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("topics", TopicAuthorizationFailedError("t"), "Describe on the topic t;"),
        ("open", TopicAuthorizationFailedError({"t", "u"}), "Read on 2 topics;"),
        ("producer", ClusterAuthorizationFailedError(), "IdempotentWrite on the cluster;"),
    ],
)
async def test_denied_operation_is_named(
    monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, words: str
) -> None:
    """It is retried: an operator may allow it meanwhile."""

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(BrokerClient, "bootstrap", fail)
    with pytest.raises(KafkaDenied, match=words) as failed:
        await CALLS[call][2]()
    assert failed.value.transient


async def _stopped(_: AIOKafkaProducer) -> None:
    """End at once."""
