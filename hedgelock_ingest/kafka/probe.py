"""Read-only probe of a Kafka cluster: its brokers, topics and round-trip time."""

import asyncio
import time
from typing import NamedTuple

from hedgelock_ingest.kafka.client import kafka_errors, new_admin
from hedgelock_ingest.settings import Settings


class KafkaAnswer(NamedTuple):
    """The description of a cluster, as `probe_kafka` received it; `unreached` is about brokers that do not answer."""

    brokers: int
    topics: frozenset[str]
    round_trip_s: float
    unreached: str | None = None


async def probe_kafka(settings: Settings, timeout_s: float) -> KafkaAnswer:
    """
    Connect, log in, fetch the cluster's description, and try every broker, which may take as long again.

    Raises:
        KafkaUnavailable: No broker answers in time, or it refuses the connection.
    """
    client = new_admin(settings, request_timeout_ms=int(timeout_s * 1000))
    try:
        with kafka_errors(settings, client):
            async with asyncio.timeout(timeout_s):
                await client.start()
                began = time.monotonic()
                cluster = await client.describe_cluster()
                round_trip_s = time.monotonic() - began
                topics = await client.list_topics()
            unreached = await client._client.reach_all()
    finally:
        await client.close()
    return KafkaAnswer(len(cluster["brokers"]), frozenset(topics), round_trip_s, unreached)
