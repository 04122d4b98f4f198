"""
The Produce request and its response, with a faster encoding than aiokafka's.

aiokafka's classes walk a schema field by field, and copy the batches at each level: 110 µs for 15 batches, instead of
25 µs.

Source: Apache Kafka, "Protocol", Produce API, version 7.
"""

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Self

from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7

_ALL_REPLICAS = -1
_NO_TRANSACTIONAL_ID = b"\xff\xff"
_HEAD = struct.Struct(">hii")  # acknowledgements wanted, milliseconds to wait for them, topics
_BATCH = struct.Struct(">ii")  # partition, bytes that follow
_ANSWER = struct.Struct(">ihqqq")  # partition, error, first offset, time of appending, first offset of the log
_LENGTH = struct.Struct(">h")
_COUNT = struct.Struct(">i")


class Produced(ProduceResponse_v7):  # type: ignore[misc]  # aiokafka has no types
    """A broker's response: for each batch an error code, 0 for none, and the offset of its first record."""

    answers: dict[TopicPartition, tuple[int, int]]

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> Self:
        """
        Decode a response whose header is already read.

        Raises:
            struct.error: The response is truncated; aiokafka then closes the connection.
        """
        content = data if isinstance(data, bytes) else data.read()
        produced = cls()
        produced.answers = answers = {}
        (topics,) = _COUNT.unpack_from(content)
        at = _COUNT.size
        for _ in range(topics):
            (length,) = _LENGTH.unpack_from(content, at)
            at += _LENGTH.size
            topic = content[at : at + length].decode()
            (partitions,) = _COUNT.unpack_from(content, at + length)
            at += length + _COUNT.size
            for _ in range(partitions):
                partition, error, offset, _, _ = _ANSWER.unpack_from(content, at)
                answers[TopicPartition(topic, partition)] = error, offset
                at += _ANSWER.size
        return produced

    def __repr__(self) -> str:
        """Return the answers as text."""
        return f"Produced({self.answers})"


class _Encoded(ProduceRequest_v7):  # type: ignore[misc]
    RESPONSE_TYPE = Produced

    topics: list[tuple[str, list[tuple[int, bytes]]]]
    timeout: int

    def encode(self) -> bytes:
        parts = [_NO_TRANSACTIONAL_ID, _HEAD.pack(_ALL_REPLICAS, self.timeout, len(self.topics))]
        for topic, batches in self.topics:
            name = topic.encode()
            parts += (_LENGTH.pack(len(name)), name, _COUNT.pack(len(batches)))
            for partition, batch in batches:
                parts += (_BATCH.pack(partition, len(batch)), batch)
        return b"".join(parts)


class Produce(ProduceRequest):  # type: ignore[misc]
    """The request to append batches, acknowledged by all replicas."""

    def __init__(self, batches: Mapping[TopicPartition, bytes], *, ask_ms: int) -> None:
        """
        Build the request to one broker.

        Args:
            batches: One per partition that the broker leads.
            ask_ms: Milliseconds until all replicas must have them.
        """
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for partition, batch in batches.items():
            topics.setdefault(partition.topic, []).append((partition.partition, batch))
        super().__init__(None, _ALL_REPLICAS, ask_ms, list(topics.items()))

    def prepare(self, versions: dict[int, tuple[int, int]]) -> ProduceRequest_v7:
        """
        Return the request for a broker that supports these versions.

        Raises:
            IncompatibleBrokerVersion: It is older than Kafka 2.1, or no longer supports version 7.
        """
        lowest, highest = versions[self.API_KEY]
        if not lowest <= _Encoded.API_VERSION <= highest:
            raise IncompatibleBrokerVersion(f"the broker supports versions {lowest} to {highest} of Produce, not 7")
        return self.build(_Encoded)
