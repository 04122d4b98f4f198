"""Closing a producer whose connections do not close: bounded in time, without cancelling the caller."""

import asyncio
from types import SimpleNamespace
from typing import Any

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.kafka.aiokafka_cluster import AiokafkaProducerSession
from hedgelock_ingest.kafka.timing import KafkaTiming


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
    session = AiokafkaProducerSession(producer, SystemClock(), KafkaTiming(stop_timeout_s=0.05))

    async with asyncio.timeout(30):
        await session.close()

    assert client.is_aborted
