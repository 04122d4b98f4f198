"""A producer whose connections do not close is given up in bounded time, and its end is nobody else's."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hedgelock_ingest.errors import KafkaUnavailable
from hedgelock_ingest.kafka import publisher as publisher_module
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.settings import Settings


class _Unread:
    """As aiokafka's client is when a peer does not read: closing waits for futures that a time-out cancels."""

    def __init__(self) -> None:
        self.is_aborted = False
        self._closed = asyncio.get_running_loop().create_future()
        transport = SimpleNamespace(abort=self._abort)
        self._conns = {0: SimpleNamespace(_writer=SimpleNamespace(transport=transport))}

    def _abort(self) -> None:
        self.is_aborted = True

    async def close(self) -> None:
        await asyncio.gather(self._closed)


async def test_connections_that_do_not_close_are_cut_and_cancel_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ended cancelled is missed by nobody: publishing would be over for good, without a word."""
    monkeypatch.setattr(publisher_module, "STOP_TIMEOUT_S", 0.05)
    client = _Unread()
    publisher = Publisher(Settings(), "0" * 32)
    producer: Any = SimpleNamespace(client=client, stop=client.close, _sender=SimpleNamespace(sender_task=None))
    publisher._producer = producer

    async with asyncio.timeout(30):
        await publisher.close()

    assert client.is_aborted
    with pytest.raises(KafkaUnavailable):
        await publisher.publish([])
