"""
Notes when each frame's record can be read from Kafka.

It fetches like any consumer, but looks only for the frames' numbers in the batches instead of builder records of
them: what it costs must not weigh on what is measured.
"""

import json
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cramjam
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest

from benchmarks.board import Board, Slot
from benchmarks.children import parent_is_alive
from benchmarks.frames import NUMBER, STATE

_LONGEST_WAIT_MS = 100
_LARGEST_FETCH_BYTES = 32 * 1024 * 1024
_LARGEST_PARTITION_BYTES = 4 * 1024 * 1024

# Source: Apache Kafka, "Record Batch": base offset, length, epoch, magic, checksum, attributes, last offset delta.
_BATCH = struct.Struct(">qiibIhi")
_BATCH_LENGTH_STARTS_AT = 12
_RECORDS_AT = 61
_CODEC_MASK = 7
_LZ4 = 3


class Consumer:
    """Reads the topics of a round from their present ends on."""

    def __init__(self, board: Board, servers: str, topics: Sequence[str], topics_aside: Sequence[str]) -> None:
        self._board = board
        self._servers = servers
        self._topics = topics
        self._topics_aside = topics_aside
        self._positions: dict[str, dict[int, int]] = {}

    async def run(self) -> None:
        """Read until the round ends."""
        aside = sum((await self._ends(self._topics_aside)).values())
        for partition, offset in (await self._ends(self._topics)).items():
            self._positions.setdefault(partition.topic, {})[partition.partition] = offset
        client = AIOKafkaClient(bootstrap_servers=self._servers, client_id="benchmark-consumer")
        await client.bootstrap()
        try:
            node = client.cluster.leader_for_partition(await self._any_partition(client))
            self._board[Slot.CONSUMER_READY] = 1
            while not self._board[Slot.STOP] and parent_is_alive():
                self._read(await client.send(node, self._request()))
        finally:
            await client.close()
        self._board[Slot.ASIDE] = sum((await self._ends(self._topics_aside)).values()) - aside

    async def _ends(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers)
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
        wanted = [
            (topic, [(partition, offset, _LARGEST_PARTITION_BYTES) for partition, offset in offsets.items()])
            for topic, offsets in self._positions.items()
        ]
        return FetchRequest(_LONGEST_WAIT_MS, 1, _LARGEST_FETCH_BYTES, 0, wanted)

    def _read(self, response: object) -> None:
        now_ns = time.monotonic_ns()
        for topic, partitions in response.topics:  # type: ignore[attr-defined]
            for partition, error_code, *_, batches in partitions:
                if error_code:
                    raise RuntimeError(f"Kafka answered {error_code} to a fetch of {topic} {partition}")
                offsets = self._positions[topic]
                for next_offset, records in _batches(batches or b""):
                    # Kafka gives whole batches, also when a part of one was read before.
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
    """Give each whole batch of a fetched piece of a partition: the offset after it, its records uncompressed."""
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
    """Run as `python -m benchmarks.consumer BOARD CAPACITY SERVERS TOPICS TOPICS_ASIDE`, the topics as JSON."""
    path, capacity, servers, topics, aside = sys.argv[1:]
    board = Board(Path(path), int(capacity))
    uvloop.run(Consumer(board, servers, json.loads(topics), json.loads(aside)).run())


if __name__ == "__main__":
    main()
