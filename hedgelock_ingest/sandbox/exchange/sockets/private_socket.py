"""The sockets under `/v5/private`: authenticate keys, and send the same frames to all lines of the account."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from hedgelock_ingest.sandbox.exchange.faults.switches import FaultSwitches
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelEvent
from hedgelock_ingest.sandbox.exchange.rest.access_control import AccessControl
from hedgelock_ingest.sandbox.exchange.rest.envelope import compact
from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection
from hedgelock_ingest.sandbox.exchange.sockets.line_server import serve_line
from hedgelock_ingest.sandbox.exchange.sockets.private_protocol import PrivateProtocol

KIND = "private"
_MAX_IDLE_S = 600.0
_MIN_IDLE_S = 30.0
_NORMAL_CLOSURE = 1000


class PrivateSockets:
    """All private sockets."""

    def __init__(self, exchange: FaultSwitches, access: AccessControl) -> None:
        self._exchange = exchange
        self._access = access
        self._sessions: set[_PrivateSession] = set()

    def routes(self) -> list[web.RouteDef]:
        """Return the route of the sockets."""
        return [web.get("/v5/private", self._serve)]

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        """Send a message to the lines subscribed to the topic, for all categories or by category."""
        rows = message["data"]
        category = rows[0].get("category") if topic != "wallet" else None
        for name in (topic, f"{topic}.{category}") if category else (topic,):
            channel = self._exchange.channels.open_recorded(KIND, name)
            text = compact({**message, "topic": name})
            channel.publish(ChannelEvent(text, _identities(message)), self._exchange.now_ms())

    async def cut_idle_lines(self) -> None:
        """Scan for lines without a ping and without data for too long, and end them, as Bybit does."""
        while True:
            await asyncio.sleep(self._exchange.scenario.idle_scan_s)
            now_s = asyncio.get_running_loop().time()
            for session in tuple(self._sessions):
                if session.is_idle(now_s):
                    self._exchange.lines.close(session.line, _NORMAL_CLOSURE)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        idle_s = _idle_s(request.query.get("max_active_time", ""), self._exchange.scenario.max_active_s)

        def begin(line: ExchangeConnection) -> _PrivateSession:
            session = _PrivateSession(self._exchange, line, self._refusal_of(request.remote), idle_s, self._sessions)
            self._sessions.add(session)
            return session

        return await serve_line(
            request, self._exchange.lines, KIND, answer_delay_s=self._exchange.scenario.answer_delay_s, begin=begin
        )

    def _refusal_of(self, address: str | None) -> "_RefusesKey":
        return _RefusesKey(self._access, address)


class _RefusesKey:
    """Returns why a key with a valid signature is refused from an address; None accepts it."""

    def __init__(self, access: AccessControl, address: str | None) -> None:
        self._access = access
        self._address = address

    def __call__(self, key: ApiKey) -> str | None:
        if self._access.has_expired(key):
            return "Your api key has expired."
        if not key.accepts(self._address):
            return "Unmatched IP, please check your API key's bound IP addresses."
        return None


class _PrivateSession:
    """One private line: its authentication and its subscriptions."""

    def __init__(
        self,
        exchange: FaultSwitches,
        line: ExchangeConnection,
        refuses_key: _RefusesKey,
        idle_s: float,
        sessions: "set[_PrivateSession]",
    ) -> None:
        self.line = line
        self._exchange = exchange
        self._idle_s = idle_s
        self._sessions = sessions
        self._active_s = asyncio.get_running_loop().time()
        self._sent_count = 0
        self._protocol = PrivateProtocol(
            conn_id=line.conn_id,
            clock=exchange.clock,
            refuses_key=refuses_key,
            refusal=exchange.refused_channels.get,
        )

    def receive(self, text: str) -> None:
        self._active_s = asyncio.get_running_loop().time()
        answer = self._protocol.answer(text, self.line.deliveries)
        op = answer.reply["op"]
        if op == "pong" and not self.line.answers_pings:
            return
        if op == "auth" and answer.reply["success"] and self._exchange.drops_after_auth:
            self._exchange.drops_after_auth -= 1
            self._reply(answer.reply)
            self.line.reset("dropped after auth")
            return
        for name in answer.unsubscribe:
            self._exchange.channels.open_recorded(KIND, name).unsubscribe(self.line)
        for name in answer.subscribe:
            self._exchange.channels.open_recorded(KIND, name).subscribe(self.line)
        delay_s = self._exchange.ack_delay_s
        if delay_s > 0 and op != "pong":
            asyncio.get_running_loop().call_later(delay_s, self._reply, answer.reply)
        else:
            self._reply(answer.reply)

    def is_idle(self, now_s: float) -> bool:
        """Return whether nothing was received or sent for too long."""
        sent_count = sum(delivery.next_number for delivery in self.line.all_deliveries())
        if sent_count != self._sent_count:
            self._sent_count = sent_count
            self._active_s = now_s
        return now_s - self._active_s > self._idle_s

    def end(self) -> None:
        self._sessions.discard(self)
        for channel in self._exchange.channels:
            channel.unsubscribe(self.line)

    def _reply(self, reply: dict[str, Any]) -> None:
        self.line.send_text(compact(reply))
        self.line.flush()


def _identities(message: Mapping[str, Any]) -> tuple[str, ...]:
    if message["topic"] == "execution":
        return tuple(row["execId"] for row in message["data"])
    return (message["id"],)


def _idle_s(requested: str, usual_s: float) -> float:
    found = re.fullmatch(r"(\d+)([sm])", requested)
    if found is None:
        return usual_s
    idle_s = float(found[1]) * (60 if found[2] == "m" else 1)
    return min(max(idle_s, _MIN_IDLE_S), _MAX_IDLE_S)
