"""The sockets under `/v5/public/{category}`: reads requests, answers them, subscribes lines to channels."""

import asyncio
import json
from random import Random

from aiohttp import WSMsgType, web

from hedgelock_ingest.sandbox.exchange.connection import Connection
from hedgelock_ingest.sandbox.exchange.faults import FaultSwitches
from hedgelock_ingest.sandbox.exchange.public_protocol import Answer, PublicProtocol

CATEGORIES = ("spot", "linear")


class PublicSocket:
    """Serves public lines; each request is answered before the next one is read."""

    def __init__(self, exchange: FaultSwitches, *, random: Random) -> None:
        self._exchange = exchange
        self._random = random
        self.subscribed = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the sockets."""
        return [web.get(f"/v5/public/{{category:{'|'.join(CATEGORIES)}}}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        lines = self._exchange.lines
        refusal = lines.refusal()
        transport = request.transport
        if transport is None or refusal == "reset":
            if transport is not None:
                transport.abort()
            return web.Response(status=503)
        if refusal is not None:
            return web.Response(status=int(refusal))
        socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)
        await socket.prepare(request)
        connection = lines.add(request.match_info["category"], transport)
        try:
            await self._read(socket, connection)
        finally:
            for channel in self._exchange.channels:
                channel.unsubscribe(connection)
            lines.remove(connection)
            transport.close()
        return socket

    async def _read(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        exchange = self._exchange
        protocol = PublicProtocol(
            category=connection.kind,
            conn_id=connection.conn_id,
            knows=lambda channel: exchange.channels.knows(connection.kind, channel),
            refusal=exchange.refused_channels.get,
            random=self._random,
        )
        async with asyncio.TaskGroup() as late_acks:
            async for message in socket:
                if message.type is WSMsgType.PING:
                    if connection.answers_pings:
                        connection.pong(message.data)
                        connection.flush()
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await asyncio.sleep(exchange.scenario.answer_delay_s)
                    text = message.data if isinstance(message.data, str) else message.data.decode(errors="replace")
                    answer = protocol.answer(text, connection.deliveries)
                    self._act(connection, answer, late_acks)

    def _act(self, connection: Connection, answer: Answer, late_acks: asyncio.TaskGroup) -> None:
        reply = json.dumps(answer.reply, separators=(",", ":"))
        if answer.reply["op"] == "ping" and not connection.answers_pings:
            return
        for name in answer.unsubscribe:
            channel = self._exchange.channels.live(connection.kind, name)
            if channel is not None:
                channel.unsubscribe(connection)
        delay_s = self._exchange.ack_delay_s if answer.subscribe else 0.0
        data_first = self._random.random() < self._exchange.scenario.data_before_ack
        if not delay_s and not (answer.subscribe and data_first):
            connection.send_text(reply)
        for name in answer.subscribe:
            self._subscribe(connection, name)
        if delay_s:
            late_acks.create_task(_send_later(connection, reply, delay_s))
        elif answer.subscribe and data_first:
            connection.send_text(reply)
        connection.flush()

    def _subscribe(self, connection: Connection, name: str) -> None:
        channel = self._exchange.channels.open(connection.kind, name)
        first = channel.stream.snapshot(self._exchange.now_ms())
        if first is not None and not connection.is_silent:
            connection.send_text(first.text)
        channel.subscribe(connection)
        self.subscribed.set()


async def _send_later(connection: Connection, reply: str, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    connection.send_text(reply)
    connection.flush()
