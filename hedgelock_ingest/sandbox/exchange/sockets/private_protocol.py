"""
Answers of the private socket: authentication, acknowledgements, rejections and pongs.

Source: Bybit V5, Connect; texts of rejections as recorded by clients.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from hedgelock_ingest.sandbox.exchange.clock import ExchangeClock
from hedgelock_ingest.sandbox.exchange.keys import ApiKey, find_key

TOPICS = ("wallet", "position", "order", "execution")
_CATEGORIES = ("spot", "linear", "inverse", "option")
CHANNELS = frozenset(
    {*TOPICS, *(f"{topic}.{category}" for topic in TOPICS if topic != "wallet" for category in _CATEGORIES)}
)


@dataclass(frozen=True, slots=True)
class PrivateAnswer:
    """The reply to one request, and the channels to start or stop sending."""

    reply: dict[str, Any]
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()


@dataclass(slots=True)
class PrivateProtocol:
    """
    Decides on requests on `/v5/private`.

    `refuses_key` returns the text with which a key with a valid signature is refused, or None; `refusal` the text
    with which a channel is refused on purpose, or None.
    """

    conn_id: str
    clock: ExchangeClock
    refuses_key: Callable[[ApiKey], str | None]
    refusal: Callable[[str], str | None]
    key: ApiKey | None = field(default=None, init=False)

    def answer(self, text: str, subscribed: Collection[str]) -> PrivateAnswer:
        """Answer one request; `subscribed` are the channels that the connection has."""
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            return self._refused("", None, "Failed to decode incoming data")
        op, req_id, args = request.get("op"), request.get("req_id"), request.get("args")
        match op:
            case "ping":
                return PrivateAnswer(self._pong(req_id))
            case "auth":
                return self._authenticate(req_id, args)
            case "subscribe" | "unsubscribe" if isinstance(args, list) and all(isinstance(a, str) for a in args):
                return self._change(op, req_id, args, subscribed)
        return self._refused(str(op or ""), req_id, "error:invalid op")

    def _authenticate(self, req_id: object, args: object) -> PrivateAnswer:
        problem = self._key_problem(args)
        if problem is not None:
            return self._refused("auth", req_id, problem)
        return PrivateAnswer(self._reply("auth", req_id, is_success=True, ret_msg=""))

    def _key_problem(self, args: object) -> str | None:
        if not isinstance(args, list) or len(args) != 3 or not str(args[1]).isdigit():
            return "Params Error"
        api_key, expires, signature = map(str, args)
        if int(expires) <= self.clock.now_ms():
            return "Params Error"
        key = find_key(api_key)
        if key is None:
            return "API key is invalid."
        if not key.signs(f"GET/realtime{expires}", signature):
            return "Error sign, please check your signature generation algorithm."
        problem = self.refuses_key(key)
        if problem is None:
            self.key = key
        return problem

    def _change(self, op: str, req_id: object, args: list[str], subscribed: Collection[str]) -> PrivateAnswer:
        problem = self._problem(op, args, subscribed)
        if problem is not None:
            return self._refused(op, req_id, problem)
        reply = self._reply(op, req_id, is_success=True, ret_msg="")
        channels = tuple(dict.fromkeys(args))
        if op == "subscribe":
            return PrivateAnswer(reply, subscribe=channels)
        return PrivateAnswer(reply, unsubscribe=channels)

    def _problem(self, op: str, args: list[str], subscribed: Collection[str]) -> str | None:
        for channel in args:
            if self.key is None:
                return f"error:topic:{channel} needs auth first"
            refusal = self.refusal(channel) if op == "subscribe" else None
            if refusal is not None:
                return refusal
            topic, _, category = channel.partition(".")
            # Bybit allows a topic for all categories or by category, not both in one request.
            if channel not in CHANNELS or (category and topic in args):
                return f"error:handler not found,topic:{channel}"
            if op == "subscribe" and channel in subscribed:
                return f"error:already subscribed,topic:{channel}"
        return None

    def _pong(self, req_id: object) -> dict[str, Any]:
        pong = {"op": "pong", "args": [str(self.clock.now_ms())], "conn_id": self.conn_id}
        return {"req_id": req_id, **pong} if isinstance(req_id, str) and req_id else pong

    def _refused(self, op: str, req_id: object, ret_msg: str) -> PrivateAnswer:
        return PrivateAnswer(self._reply(op, req_id, is_success=False, ret_msg=ret_msg))

    def _reply(self, op: str, req_id: object, *, is_success: bool, ret_msg: str) -> dict[str, Any]:
        reply = {"success": is_success, "ret_msg": ret_msg, "op": op, "conn_id": self.conn_id}
        return {"req_id": req_id, **reply} if isinstance(req_id, str) and req_id else reply
