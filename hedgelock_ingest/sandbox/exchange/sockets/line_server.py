"""The common part of public and private WebSockets: accept or refuse a line, read from it, remove it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from aiohttp import WSMsgType, web

from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection, reset_connection
from hedgelock_ingest.sandbox.exchange.sockets.lines import Lines


class LineSession(Protocol):
    """The exchange's side of one line: its requests and their answers."""

    def receive(self, text: str) -> None:
        """Answer one text message of the client."""

    def end(self) -> None:
        """Remove the line after its end."""


async def serve_line(
    request: web.Request,
    lines: Lines,
    kind: str,
    *,
    answer_delay_s: float,
    begin: Callable[[ExchangeConnection], LineSession],
) -> web.StreamResponse:
    """
    Serve one line from its handshake to its end.

    Pings of the WebSocket protocol are answered here, so that a stalled line can leave them unanswered.
    """
    refusal = lines.refusal()
    transport = request.transport
    if transport is None or refusal == "reset":
        if transport is not None:
            reset_connection(transport)
        return web.Response(status=503)
    if refusal is not None:
        return web.Response(status=int(refusal))
    socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)
    await socket.prepare(request)
    connection = lines.add(kind, transport)
    session = begin(connection)
    try:
        async for message in socket:
            if message.type is WSMsgType.PING and connection.answers_pings:
                connection.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                await asyncio.sleep(answer_delay_s)
                session.receive(message.data)
            connection.flush()
    finally:
        session.end()
        lines.remove(connection)
        transport.close()
    return socket
