"""
The consumer of a round: records when each frame's record can be read from Kafka.

It fetches like any consumer, but only searches the batches for the frames' numbers and does not decode records, so that
its own cost does not affect the measurement.
"""

import json
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cramjam
import uvloop
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from benchmarks.board import Board, Slot
from benchmarks.children import parent_is_alive
from benchmarks.frames import NUMBER, STATE
from hedgelock_ingest.kafka.broker_client import BrokerClient
from hedgelock_ingest.kafka.client import new_consumer
from hedgelock_ingest.settings import Settings

_FETCH_MAX_WAIT_MS = 100
_MAX_FETCH_BYTES = 32 * 1024 * 1024
_MAX_PARTITION_BYTES = 4 * 1024 * 1024

# Source: Apache Kafka, "Record Batch": base offset, length, epoch, magic, checksum, attributes, last offset delta.
_BATCH = struct.Struct(">qiibIhi")
_BATCH_LENGTH_STARTS_AT = 12
_RECORDS_AT = 61
_CODEC_MASK = 7
_LZ4 = 3


class Consumer:
    """Reads the topics of a round, starting at their present ends."""

    def __init__(self, board: Board, servers: str, topics: Sequence[str], side_topics: Sequence[str]) -> None:
        self._board = board
        self._servers = servers
        self._topics = topics
        self._side_topics = side_topics
        self._positions: dict[str, dict[int, int]] = {}

    async def run(self) -> None:
        """Read until the round ends."""
        side_records_before = sum((await self._ends(self._side_topics)).values())
        for partition, offset in (await self._ends(self._topics)).items():
            self._positions.setdefault(partition.topic, {})[partition.partition] = offset
        client = BrokerClient.adopt(AIOKafkaClient(bootstrap_servers=self._servers, client_id="benchmark-consumer"))
        await client.bootstrap()
        try:
            node = client.cluster.leader_for_partition(await self._any_partition(client))
            self._board[Slot.CONSUMER_READY] = 1
            while not self._board[Slot.STOP] and parent_is_alive():
                self._read(await client.send(node, self._request()))
        finally:
            await client.close()
        self._board[Slot.SIDE_RECORDS] = sum((await self._ends(self._side_topics)).values()) - side_records_before

    async def _ends(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        consumer = new_consumer(Settings(kafka_bootstrap_servers=self._servers))
        await consumer.start()
        try:
            await consumer._client.set_topics(topics)
            partitions = [TopicPartition(t, n) for t in topics for n in consumer.partitions_for_topic(t) or ()]
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            return ends
        finally:
            await consumer.stop()

    async def _any_partition(self, client: AIOKafkaClient) -> TopicPartition:
        await client.set_topics(self._topics)
        return TopicPartition(self._topics[0], 0)

    def _request(self) -> FetchRequest:
        positions = [
            (topic, [(partition, offset, _MAX_PARTITION_BYTES) for partition, offset in offsets.items()])
            for topic, offsets in self._positions.items()
        ]
        return FetchRequest(_FETCH_MAX_WAIT_MS, 1, _MAX_FETCH_BYTES, 0, positions)

    def _read(self, response: object) -> None:
        now_ns = time.monotonic_ns()
        for topic, partitions in response.topics:  # type: ignore[attr-defined]
            for partition, error_code, *_, batches in partitions:
                if error_code:
                    raise RuntimeError(f"Kafka answered {error_code} to a fetch of {topic} {partition}")
                offsets = self._positions[topic]
                for next_offset, records in _batches(batches or b""):
                    # Kafka returns complete batches, even if a part of one was read before.
                    if next_offset > offsets[partition]:
                        offsets[partition] = next_offset
                        self._note(records, now_ns)

    def _note(self, records: bytes, now_ns: int) -> None:
        board, arrived_ns = self._board, self._board.arrived_ns
        numbers = [int(text) for text in NUMBER.findall(records)]
        new = 0
        for number in numbers:
            if number >= board.capacity:
                board[Slot.UNEXPECTED] += 1
            elif not arrived_ns[number]:
                arrived_ns[number] = now_ns
                new += 1
        states = len(STATE.findall(records))
        board[Slot.STATES] += states
        board[Slot.REPEATED] += len(numbers) - new - states
        board[Slot.RECEIVED] += new


def _batches(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each complete batch of fetched bytes: the offset after it, and its uncompressed records."""
    at = 0
    while at + _RECORDS_AT <= len(content):
        base, length, _, _, _, attributes, last_delta = _BATCH.unpack_from(content, at)
        end = at + _BATCH_LENGTH_STARTS_AT + length
        if end > len(content):
            return
        records = content[at + _RECORDS_AT : end]
        match attributes & _CODEC_MASK:
            case 0:
                yield base + last_delta + 1, records
            case 3:
                yield base + last_delta + 1, bytes(cramjam.lz4.decompress(records))
            case codec:
                raise RuntimeError(f"a batch is compressed by codec {codec}, expected none or lz4")
        at = end


def main() -> None:
    """Run as `python -m benchmarks.consumer BOARD CAPACITY SERVERS TOPICS SIDE_TOPICS`, the topics as JSON."""
    path, capacity, servers, topics, side_topics = sys.argv[1:]
    board = Board(Path(path), int(capacity))
    uvloop.run(Consumer(board, servers, json.loads(topics), json.loads(side_topics)).run())


if __name__ == "__main__":
    main()
