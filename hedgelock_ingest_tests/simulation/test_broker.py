"""Faults of the simulated broker that a real one cannot show on demand; see also kafka/test_cluster_conformance.py."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.batch_format import Codec, RecordBatch, with_length
from hedgelock_ingest.kafka.ports import ProduceAnswer, ProducerSession
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.kafka.batches import NO_HEADERS
from hedgelock_ingest_tests.simulation.broker import MemoryBroker
from hedgelock_ingest_tests.simulation.broker_network import Network

PARTITION = TopicPartition("topic", 0)
PROCESS: ContextVar[str] = ContextVar("PROCESS", default="none")
BATCHES = 6


@dataclass(slots=True)
class EndableLifetime:
    """A process lifetime that a test ends."""

    is_dead: bool = False


def a_broker(seed: int = 1) -> MemoryBroker:
    """Return a broker with a topic of one partition."""
    broker = MemoryBroker(SystemClock(), Random(seed), latency_s=(0.0, 0.001))
    broker.create_topic(PARTITION.topic, 1)
    return broker


async def send_all(session: ProducerSession) -> list[ProduceAnswer | BaseException]:
    """Send batches one after the other without waiting for answers, and return the result of each."""
    requests = []
    for number in range(BATCHES):
        batch = RecordBatch(1_000, Codec.NONE)
        batch.append(SystemClock().wall_ns() // 1_000_000, with_length(b"k"), b"%d" % number, NO_HEADERS)
        content = batch.content(producer_id=session.producer_id, epoch=session.epoch, sequence=number)
        requests.append(session.produce(1, {PARTITION: content}, answer_timeout_ms=1_000))
    answers = await asyncio.gather(*requests, return_exceptions=True)
    return [each if isinstance(each, BaseException) else each[PARTITION] for each in answers]


async def opened(broker: MemoryBroker, lifetime: EndableLifetime) -> ProducerSession:
    """Connect a producer."""
    session = broker.cluster(Settings(), lifetime).producer()
    await session.open([PARTITION.topic])
    return session


def values(broker: MemoryBroker) -> list[bytes | None]:
    """Read the values of the topic."""
    return [record.value for record in broker.records(PARTITION.topic)]


def first(count: int) -> list[bytes]:
    """Return the values of the first batches."""
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("seed", range(20))
async def test_killed_broker_has_served_a_first_part_of_the_requests_under_way(seed: int) -> None:
    """No batch is stored without the earlier ones, and none of them is answered."""
    broker = a_broker(seed)
    session = await opened(broker, EndableLifetime())
    sending = asyncio.ensure_future(send_all(session))
    await asyncio.sleep(Random(seed).uniform(0, 0.006))
    broker.go_away()
    answers = await sending
    broker.come_back()

    found = values(broker)
    assert found == first(len(found))
    answered = [each for each in answers if not isinstance(each, BaseException)]
    assert answered == [(0, offset) for offset in range(len(answered))]
    assert all(isinstance(each, AiokafkaError) for each in answers[len(answered) :])
    assert len(answered) <= len(found)
    await send_all(session)
    assert values(broker) == first(BATCHES)


async def test_broker_killed_while_frozen_has_read_nothing() -> None:
    """The bytes in its sockets are lost."""
    broker = a_broker()
    session = await opened(broker, EndableLifetime())
    broker.freeze()
    sending = asyncio.ensure_future(send_all(session))
    await asyncio.sleep(0.05)
    broker.go_away()

    assert all(isinstance(each, AiokafkaError) for each in await sending)
    broker.come_back()
    await asyncio.sleep(0.05)
    assert values(broker) == []


async def test_bytes_of_killed_processes_are_served_at_the_thaw_in_order() -> None:
    """The bytes of a killed process stay under way; connections do not wait for one another."""
    broker, lifetime = a_broker(), EndableLifetime()
    session = await opened(broker, lifetime)
    broker.freeze()
    sending = asyncio.ensure_future(send_all(session))
    await asyncio.sleep(0.05)
    lifetime.is_dead = True
    sending.cancel()
    await session.close()
    assert values(broker) == []
    broker.thaw()
    await asyncio.sleep(0.1)

    assert values(broker) == first(BATCHES)


async def test_slow_broker_answers_later() -> None:
    """Each way takes longer."""
    broker = a_broker()
    session = await opened(broker, EndableLifetime())
    broker.slow(0.1)
    sending = asyncio.ensure_future(send_all(session))
    await asyncio.sleep(0.05)
    assert values(broker) == []
    broker.slow(0)
    assert await sending == [(0, offset) for offset in range(BATCHES)]


async def test_work_of_the_broker_belongs_to_no_process() -> None:
    """The simulation kills a process by dropping what runs in its context, and the broker must continue."""
    network = Network(Random(1), (0.0, 0.0))
    PROCESS.set("stream")
    ask: Callable[..., asyncio.Future[str]] = network.connect(EndableLifetime()).ask

    assert [await ask(PROCESS.get) for _ in range(2)] == ["none", "none"]
