"""The sockets under `/v5/public/{category}`: answer requests and subscribe lines to channels."""

import asyncio
import json
from random import Random

from aiohttp import web

from hedgelock_ingest.sandbox.exchange.faults.switches import FaultSwitches
from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection
from hedgelock_ingest.sandbox.exchange.sockets.line_server import serve_line
from hedgelock_ingest.sandbox.exchange.sockets.public_protocol import PublicProtocol

CATEGORIES = ("spot", "linear")


class PublicSockets:
    """All public sockets; `subscribed` is set at the first subscription to anything."""

    def __init__(self, exchange: FaultSwitches, *, random: Random) -> None:
        self.subscribed = asyncio.Event()
        self._exchange = exchange
        self._random = random

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the sockets."""
        return [web.get(f"/v5/public/{{category:{'|'.join(CATEGORIES)}}}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        return await serve_line(
            request,
            self._exchange.lines,
            request.match_info["category"],
            answer_delay_s=self._exchange.scenario.answer_delay_s,
            begin=lambda line: _PublicSession(self._exchange, line, random=self._random, subscribed=self.subscribed),
        )


class _PublicSession:
    """One public line and its subscriptions."""

    def __init__(
        self, exchange: FaultSwitches, line: ExchangeConnection, *, random: Random, subscribed: asyncio.Event
    ) -> None:
        self._exchange = exchange
        self._line = line
        self._random = random
        self._subscribed = subscribed
        self._protocol = PublicProtocol(
            category=line.kind,
            conn_id=line.conn_id,
            knows=lambda channel: exchange.channels.knows(line.kind, channel),
            refusal=exchange.refused_channels.get,
            random=random,
        )

    def receive(self, text: str) -> None:
        answer = self._protocol.answer(text, self._line.deliveries)
        if answer.reply["op"] == "ping" and not self._line.answers_pings:
            return
        reply = json.dumps(answer.reply, separators=(",", ":"))
        for name in answer.unsubscribe:
            channel = self._exchange.channels.live(self._line.kind, name)
            if channel is not None:
                channel.unsubscribe(self._line)
        if not answer.subscribe:
            self._line.send_text(reply)
            return
        self._confirm(reply, answer.subscribe)

    def end(self) -> None:
        for channel in self._exchange.channels:
            channel.unsubscribe(self._line)

    def _confirm(self, reply: str, channels: tuple[str, ...]) -> None:
        # Data may come before the acknowledgement, and with a delay it always does.
        delay_s = self._exchange.ack_delay_s
        is_data_first = delay_s > 0 or self._random.random() < self._exchange.scenario.data_before_ack
        if not is_data_first:
            self._line.send_text(reply)
        for name in channels:
            self._subscribe(name)
        if delay_s > 0:
            asyncio.get_running_loop().call_later(delay_s, self._send_now, reply)
        elif is_data_first:
            self._line.send_text(reply)

    def _subscribe(self, name: str) -> None:
        channel = self._exchange.channels.open(self._line.kind, name)
        first = channel.stream.snapshot(self._exchange.now_ms())
        if first is not None and not self._line.is_silent and not channel.is_withheld:
            self._line.send_text(first.text)
        channel.subscribe(self._line)
        self._subscribed.set()

    def _send_now(self, text: str) -> None:
        self._line.send_text(text)
        self._line.flush()
