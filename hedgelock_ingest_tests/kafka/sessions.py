"""Producer sessions on a real cluster, open for the length of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaCluster
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.kafka.producer_session import AiokafkaProducerSession
from hedgelock_ingest.settings import Settings


@asynccontextmanager
async def producing(bootstrap_servers: str, *topics: str) -> AsyncIterator[AiokafkaProducerSession]:
    """Connect a new idempotent producer that has the leaders of some topics."""
    settings = Settings(kafka_bootstrap_servers=bootstrap_servers)
    session = AiokafkaCluster(settings, SystemClock(), KafkaTiming()).producer()
    try:
        await session.open(topics)
        yield session
    finally:
        await session.close()
