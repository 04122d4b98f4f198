"""
Answers of a public socket: acknowledgements, rejections and pongs, in the shapes of its category.

Source: Bybit V5, Connect; texts of rejections as recorded by clients.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random
from typing import Any

_ARGS_LIMIT = 21_000
_SPOT_ARGS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one request, and the channels to start or stop sending."""

    reply: dict[str, Any]
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublicProtocol:
    """
    Decides on requests on `/v5/public/{category}`.

    `knows` returns whether a channel exists; `refusal` the text with which a channel is refused on purpose, or None.
    """

    category: str
    conn_id: str
    knows: Callable[[str], bool]
    refusal: Callable[[str], str | None]
    random: Random

    def answer(self, text: str, subscribed: Collection[str]) -> Answer:
        """Answer one request; `subscribed` are the channels that the connection has."""
        try:
            request = json.loads(text)
        except ValueError:
            return Answer(self._reply("", None, is_success=False, ret_msg=_undecodable(text)))
        if not isinstance(request, dict):
            return Answer(self._reply("", None, is_success=False, ret_msg=_undecodable(text)))
        op, req_id = request.get("op"), request.get("req_id")
        args = request.get("args")
        match op:
            case "ping":
                return Answer(self._reply("ping", req_id, is_success=True, ret_msg="pong"))
            case "subscribe" | "unsubscribe" if isinstance(args, list) and all(isinstance(a, str) for a in args):
                return self._change(op, req_id, args, subscribed)
        return Answer(self._reply(str(op or ""), req_id, is_success=False, ret_msg="error:invalid op"))

    def _change(self, op: str, req_id: object, args: list[str], subscribed: Collection[str]) -> Answer:
        problem = self._problem(op, args, subscribed)
        if problem is not None:
            forgets_id = problem.startswith("Invalid symbol") and self.random.random() < 0.5
            return Answer(self._reply(op, None if forgets_id else req_id, is_success=False, ret_msg=problem))
        ret_msg = op if self.category == "spot" else ""
        reply = self._reply(op, req_id, is_success=True, ret_msg=ret_msg)
        channels = tuple(dict.fromkeys(args))
        return Answer(reply, subscribe=channels) if op == "subscribe" else Answer(reply, unsubscribe=channels)

    def _problem(self, op: str, args: list[str], subscribed: Collection[str]) -> str | None:
        if self.category == "spot" and len(args) > _SPOT_ARGS:
            return f"args size >{_SPOT_ARGS}"
        if len("".join([*subscribed, *args])) > _ARGS_LIMIT and op == "subscribe":
            return f"error:args length >{_ARGS_LIMIT}"
        for channel in args:
            refusal = self.refusal(channel) if op == "subscribe" else None
            if refusal is not None:
                return refusal
            if not self.knows(channel):
                if self.category == "spot":
                    return f"Invalid symbol :[{channel}]"
                return f"error:handler not found,topic:{channel}"
            if op == "subscribe" and channel in subscribed:
                return f"error:already subscribed,topic:{channel}"
        return None

    def _reply(self, op: str, req_id: object, *, is_success: bool, ret_msg: str) -> dict[str, Any]:
        reply: dict[str, Any] = {"success": is_success, "ret_msg": ret_msg, "conn_id": self.conn_id}
        # Spot omits req_id unless the request has one; linear always includes it.
        if isinstance(req_id, str) and req_id:
            reply["req_id"] = req_id
        elif self.category != "spot":
            reply["req_id"] = ""
        return {**reply, "op": op}


def _undecodable(text: str) -> str:
    found = text[:1]
    return (
        f"Failed to decode incoming data:readObjectStart: expect {{ or n, but found {found}, "
        f"error found in #1 byte of ...|{text[:10]}|..., bigger context ...|{text[:100]}|..."
    )
