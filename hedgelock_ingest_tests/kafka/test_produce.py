"""The Produce request and its response, compared with aiokafka's own classes."""

from io import BytesIO

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.kafka.produce import Produce, Produced

PRODUCE = 0
partitions = st.builds(TopicPartition, st.sampled_from(["market-data", "a", "ü.x"]), st.integers(0, 2**31 - 1))
int64 = st.integers(-(2**63), 2**63 - 1)


@given(batches=st.dictionaries(partitions, st.binary(max_size=50), max_size=9), ask_ms=st.integers(0, 2**31 - 1))
def test_request_is_what_aiokafka_would_send(batches: dict[TopicPartition, bytes], ask_ms: int) -> None:
    """The broker decodes it by the same schema."""
    request = Produce(batches, ask_ms=ask_ms).prepare({PRODUCE: (3, 13)})

    theirs = ProduceRequest_v7.decode(request.encode())
    found = {TopicPartition(topic, number): batch for topic, of_topic in theirs.topics for number, batch in of_topic}
    assert found == batches
    assert (theirs.transactional_id, theirs.required_acks, theirs.timeout) == (None, -1, ask_ms)
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
        Produce({}, ask_ms=1).prepare({PRODUCE: versions})
