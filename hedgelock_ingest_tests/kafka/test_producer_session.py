"""The producer session: its requests compared with aiokafka's classes, and closing when connections do not close."""

import asyncio
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.kafka.producer_session import AiokafkaProducerSession, Produce, Produced
from hedgelock_ingest.settings import Settings

PRODUCE = 0
partitions = st.builds(TopicPartition, st.sampled_from(["market-data", "a", "ü.x"]), st.integers(0, 2**31 - 1))
int64 = st.integers(-(2**63), 2**63 - 1)


@given(
    batches=st.dictionaries(partitions, st.binary(max_size=50), max_size=9), answer_timeout_ms=st.integers(0, 2**31 - 1)
)
def test_request_is_what_aiokafka_would_send(batches: dict[TopicPartition, bytes], answer_timeout_ms: int) -> None:
    """The broker decodes it by the same schema."""
    request = Produce(batches, answer_timeout_ms=answer_timeout_ms).prepare({PRODUCE: (3, 13)})

    theirs = ProduceRequest_v7.decode(request.encode())
    found = {TopicPartition(topic, number): batch for topic, of_topic in theirs.topics for number, batch in of_topic}
    assert found == batches
    assert (theirs.transactional_id, theirs.required_acks, theirs.timeout) == (None, -1, answer_timeout_ms)
    assert (request.API_KEY, request.API_VERSION) == (PRODUCE, 7)


@given(
    answers=st.dictionaries(partitions, st.tuples(st.integers(-1, 100), int64), max_size=9), at_ms=int64, start=int64
)
def test_response_decodes_to_what_a_broker_encodes(
    answers: dict[TopicPartition, tuple[int, int]], at_ms: int, start: int
) -> None:
    """Every partition's error and offset, for any values of the other fields."""
    by_topic: dict[str, list[tuple[int, int, int, int, int]]] = {}
    for partition, (error, offset) in answers.items():
        by_topic.setdefault(partition.topic, []).append((partition.partition, error, offset, at_ms, start))
    content = ProduceResponse_v7(list(by_topic.items()), 0).encode()

    assert Produced.decode(BytesIO(content)).answers == Produced.decode(content).answers == answers


@pytest.mark.parametrize("versions", [(0, 6), (8, 13)])
def test_broker_without_version_7_is_refused_with_its_versions(versions: tuple[int, int]) -> None:
    """The broker could not decode the request."""
    with pytest.raises(IncompatibleBrokerVersion, match=f"versions {versions[0]} to {versions[1]} of Produce, not 7"):
        Produce({}, answer_timeout_ms=1).prepare({PRODUCE: versions})


class _StalledClient:
    """Stands in for aiokafka's client when a peer does not read: closing waits for futures that a timeout cancels."""

    def __init__(self) -> None:
        self.is_aborted = False
        self._closed = asyncio.get_running_loop().create_future()
        transport = SimpleNamespace(abort=self._abort)
        self.cluster = SimpleNamespace(leader_for_partition=None)
        self._conns = {0: SimpleNamespace(_writer=SimpleNamespace(transport=transport))}

    def _abort(self) -> None:
        self.is_aborted = True

    async def close(self) -> None:
        await asyncio.gather(self._closed)


async def test_connections_that_do_not_close_are_aborted_without_cancelling_the_caller() -> None:
    """A cancelled caller would end publishing for good, without an error."""
    client = _StalledClient()
    producer: Any = SimpleNamespace(client=client, stop=client.close, _sender=SimpleNamespace(sender_task=None))
    session = AiokafkaProducerSession(producer, Settings(), SystemClock(), KafkaTiming(stop_timeout_s=0.05))

    async with asyncio.timeout(30):
        await session.close()

    assert client.is_aborted
