"""Control endpoints of the exchange under `/sandbox/`, for tests and operators outside the process."""

import inspect
from collections.abc import Callable
from typing import Any

from aiohttp import web

from hedgelock_ingest.sandbox.exchange.control_requests import call_by_name, signature, whole_number
from hedgelock_ingest.sandbox.exchange.faults.switches import FaultSwitches
from hedgelock_ingest.sandbox.exchange.ledger import Ledger
from hedgelock_ingest.sandbox.exchange.sockets.connection import ExchangeConnection

_NOT_SWITCHES = {"now_ms", "sent"}
"""Methods that only answer."""


class ControlEndpoints:
    """
    `GET /sandbox/state`, `GET /sandbox/ledger`, and `GET` and `POST /sandbox/faults`.

    Events of a ledger are [number, `ts`, identities, whether it was written to an open line].
    A fault is posted as `{"fault": "drop_lines", "category": "linear"}`: the name of a switch and its arguments.
    The answer of GET lists the switches with their arguments.
    """

    def __init__(self, exchange: FaultSwitches, ledger: Ledger) -> None:
        self._exchange = exchange
        self._ledger = ledger
        self._switches: dict[str, Callable[..., Any]] = {
            name: getattr(exchange, name)
            for name, method in inspect.getmembers(type(exchange))
            if _is_switch(name, method)
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these endpoints."""
        return [
            web.get("/sandbox/state", self._state),
            web.get("/sandbox/ledger", self._read_ledger),
            web.get("/sandbox/faults", self._list),
            web.post("/sandbox/faults", self._switch),
        ]

    async def _state(self, request: web.Request) -> web.Response:
        lines = self._exchange.lines
        return web.json_response(
            {
                "open": [line_state(connection) for connection in lines.open],
                "closed": [line_state(connection) for connection in lines.closed],
                "opened_count": lines.opened_count,
                "refused_count": lines.refused_count,
                "channels": [
                    {
                        "category": channel.category,
                        "channel": channel.name,
                        "events": channel.ledger.next_number,
                        "subscribers": len(channel.subscribers),
                    }
                    for channel in self._exchange.channels
                ],
                "injected": list(self._exchange.injected),
            }
        )

    async def _read_ledger(self, request: web.Request) -> web.Response:
        query = request.query
        category, channel = query.get("category", ""), query.get("channel", "")
        found = self._ledger.channels.get((category, channel))
        if found is None:
            raise web.HTTPNotFound(text="no such channel was ever subscribed to; pass category and channel")
        written = self._exchange.lines.written(category, channel)
        events = [
            [number, sent_ms, identities, number in written]
            for number, sent_ms, identities in found.events(
                whole_number(request, "since_ms") or 0, whole_number(request, "until_ms")
            )
        ]
        return web.json_response({"category": category, "channel": channel, "events": events})

    async def _list(self, request: web.Request) -> web.Response:
        faults = {
            name: {"arguments": signature("", switch), "description": inspect.getdoc(switch)}
            for name, switch in self._switches.items()
        }
        return web.json_response({"faults": faults})

    async def _switch(self, request: web.Request) -> web.Response:
        return await call_by_name(request, "fault", self._switches)


def _is_switch(name: str, method: object) -> bool:
    is_plain_function = inspect.isfunction(method) and not inspect.iscoroutinefunction(method)
    return is_plain_function and not name.startswith("_") and name not in _NOT_SWITCHES


def line_state(connection: ExchangeConnection) -> dict[str, Any]:
    """Describe a line: when it was open, how it ended, and which events of which channels were written to it."""
    return {
        "conn_id": connection.conn_id,
        "kind": connection.kind,
        "opened_ms": connection.opened_ms,
        "closed_ms": connection.closed_ms,
        "close_cause": connection.close_cause,
        "channels": sorted(connection.deliveries),
        "deliveries": [{"channel": one.channel, "runs": one.all_runs()} for one in connection.all_deliveries()],
    }
