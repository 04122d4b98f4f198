"""
The bare loop: receive with `websockets`, send the same bytes with aiokafka, idempotent and acks=all; nothing else.

It has every advantage: uvloop, no compression, keys and partitions computed before, metadata fetched before, no linger,
no journal, and no decoding beyond the first bytes, which name the channel.
"""

import asyncio
import json
import signal
import sys

import uvloop
from aiokafka import AIOKafkaProducer
from websockets.asyncio.client import connect

from benchmarks.frames import CATEGORIES, CHANNELS, SYMBOLS, TOPIC_BY_FEED
from hedgelock_ingest.kafka.addresses import partition_for

type Route = tuple[str, bytes, int]

_BATCH_BYTES = 256 * 1024


async def run(url: str, servers: str, partitions: int) -> None:
    """Carry frames until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_batch_size=_BATCH_BYTES,
        max_request_size=64 * 1024 * 1024,
    )
    await producer.start()
    try:
        for topic in TOPIC_BY_FEED.values():
            await producer.partitions_for(topic)
        lines = [asyncio.create_task(carry(producer, url, each, partitions)) for each in CATEGORIES]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*lines, stopped], return_when=asyncio.FIRST_COMPLETED)
        for line in lines:
            line.cancel()
        await asyncio.wait(lines)
    finally:
        await producer.stop()


async def carry(producer: AIOKafkaProducer, url: str, category: str, partitions: int) -> None:
    """Send the frames of one connection to Kafka."""
    routes = _routes(category, partitions)
    async with connect(f"{url}/{category}", compression=None, ping_interval=None, max_queue=None) as connection:
        for number, channel in enumerate(CHANNELS):
            request = {"req_id": str(number), "op": "subscribe", "args": [channel]}
            await connection.send(json.dumps(request))
        while True:
            frame = await connection.recv(decode=False)
            route = routes.get(frame[10 : frame.find(b'"', 10)])
            if route is not None:  # not an answer to a request
                topic, key, partition = route
                await producer.send(topic, frame, key, partition)


def _routes(category: str, partitions: int) -> dict[bytes, Route]:
    routes = {}
    for channel in CHANNELS:
        feed, symbol = channel.partition(".")[0], channel.rpartition(".")[2]
        key = f"{category}:{symbol}".encode()
        routes[channel.encode()] = TOPIC_BY_FEED[feed], key, partition_for(key, partitions)
    assert len(routes) == len(SYMBOLS) * len(TOPIC_BY_FEED)
    return routes


def main() -> None:
    """Run as `python -m benchmarks.bare URL SERVERS PARTITIONS`."""
    uvloop.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))


if __name__ == "__main__":
    main()
