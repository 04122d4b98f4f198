"""A WebSocket server scripted by a test, for frames that no exchange would send on purpose."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class ScriptedServer:
    """Confirms subscriptions and answers pings as Bybit's linear socket does, unless a test changes that."""

    def __init__(self) -> None:
        self.url = ""
        self.connections: list[ServerConnection] = []
        self.requests: list[dict[str, Any]] = []
        self.pinged: list[int] = []
        self.refused_channels: set[str] = set()
        self.answers = True
        self.opened = 0

    def asked(self, op: str) -> list[dict[str, Any]]:
        """All requests of one kind, oldest first."""
        return [request for request in self.requests if request["op"] == op]

    async def send(self, *frames: str | bytes) -> None:
        """Send frames, as text, on every connection."""
        for connection in self.connections:
            for frame in frames:
                await connection.send(frame, text=True)

    def cut(self) -> None:
        """Drop every connection without a close frame."""
        for connection in self.connections:
            connection.transport.abort()

    async def serve_connection(self, connection: ServerConnection) -> None:
        """Serve one client."""
        self.opened += 1
        number = self.opened
        self.connections.append(connection)
        try:
            async for text in connection:
                request = json.loads(text)
                self.requests.append(request)
                if request["op"] == "ping":
                    self.pinged.append(number)
                if self.answers:
                    await connection.send(json.dumps(self._answer(request)))
        except ConnectionClosed:
            pass
        finally:
            self.connections.remove(connection)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = {"success": True, "ret_msg": "", "conn_id": "c", "req_id": request["req_id"], "op": request["op"]}
        if request["op"] == "ping":
            answer["ret_msg"] = "pong"
        elif self.refused_channels.intersection(request["args"]):
            answer |= {"success": False, "ret_msg": f"error:handler not found,topic:{request['args'][0]}"}
        return answer


@asynccontextmanager
async def scripted_server(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Run a scripted server on a free port, or on this one; with TLS if a context is given."""
    scripted = ScriptedServer()
    server: Server
    async with serve(
        scripted.serve_connection, "127.0.0.1", port, max_size=None, close_timeout=0.2, ping_interval=None, ssl=tls
    ) as server:
        host, bound_port = next(iter(server.sockets)).getsockname()[:2]
        scripted.url = f"{'wss' if tls else 'ws'}://{host}:{bound_port}/v5/public/linear"
        yield scripted
        scripted.cut()
        await asyncio.sleep(0)
