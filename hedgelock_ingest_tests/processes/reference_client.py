"""An independent client of the exchange that records every frame, as the reference for the stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

type Channel = tuple[str, str]
"""Category and Bybit's name, such as `("linear", "publicTrade.BTCUSDT")`."""


class ReferenceClient:
    """Keeps every frame of some channels as received; it shares no decoder with the service."""

    def __init__(self) -> None:
        self.connection_ids: set[str] = set()
        self._texts: list[tuple[str, bytes]] = []

    def frames(self) -> dict[Channel, list[dict[str, Any]]]:
        """Return the decoded frames by channel, in order; the first of a book or a ticker is its snapshot."""
        found: dict[Channel, list[dict[str, Any]]] = {}
        for category, text in self._texts:
            try:
                message = json.loads(text)
            except ValueError:
                continue
            if isinstance(message, dict) and isinstance(message.get("topic"), str):
                found.setdefault((category, message["topic"]), []).append(message)
        return found

    async def read(self, category: str, socket: ClientConnection, answered: asyncio.Semaphore) -> None:
        """Keep all frames until the exchange ends."""
        while True:
            text = await socket.recv(decode=False)
            if text.startswith(b'{"success":true'):
                self.connection_ids.add(json.loads(text)["conn_id"])
                answered.release()
            self._texts.append((category, text))


@asynccontextmanager
async def connected_reference(
    public_ws_url: str, channels: Mapping[str, Sequence[str]]
) -> AsyncIterator[ReferenceClient]:
    """Record channels by category for the duration of the block."""
    client = ReferenceClient()
    async with AsyncExitStack() as sockets:
        readers: list[asyncio.Task[None]] = []
        for category, names in channels.items():
            socket = await sockets.enter_async_context(
                connect(
                    f"{public_ws_url}/{category}", ping_interval=None, max_size=None, max_queue=None, compression=None
                )
            )
            answered = asyncio.Semaphore(0)
            readers.append(asyncio.create_task(client.read(category, socket, answered)))
            async with asyncio.timeout(10):
                for number, name in enumerate(names):
                    await socket.send(json.dumps({"op": "subscribe", "req_id": str(number), "args": [name]}))
                for _ in names:
                    await answered.acquire()
        try:
            yield client
        finally:
            died = [reader for reader in readers if reader.done()]
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            assert not died, f"the reference client lost a connection: {died}"
