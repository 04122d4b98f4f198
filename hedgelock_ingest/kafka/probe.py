"""Read-only probe of a Kafka cluster: its brokers, topics and round-trip time."""

import asyncio
import time
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.errors import KafkaError as AioKafkaError

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka.client import client_options
from hedgelock_ingest.settings import Settings


class KafkaAnswer(NamedTuple):
    """The description of a cluster, as `probe_kafka` received it."""

    brokers: int
    topics: frozenset[str]
    round_trip_s: float


async def probe_kafka(settings: Settings, timeout_s: float) -> KafkaAnswer:
    """
    Connect, log in, and fetch the cluster's description.

    Raises:
        KafkaUnavailable: No broker answers in time, or it refuses the connection.
    """
    client = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=int(timeout_s * 1000))
    try:
        async with asyncio.timeout(timeout_s):
            await client.start()
            began = time.monotonic()
            cluster = await client.describe_cluster()
            round_trip_s = time.monotonic() - began
            topics = await client.list_topics()
    except (AioKafkaError, OSError) as error:
        raise KafkaUnavailable(f"{settings.kafka_bootstrap_servers}: {_reason(error, timeout_s)}") from error
    finally:
        await client.close()
    return KafkaAnswer(len(cluster["brokers"]), frozenset(topics), round_trip_s)


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, KafkaConnectionError):
        return "no broker at this address"
    return str(error) or type(error).__name__
