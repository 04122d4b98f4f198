"""Clients of the simulated account: signed requests, and private lines."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yarl

from hedgelock_ingest.sandbox.exchange import KEYS, SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import ApiKey
from hedgelock_ingest_tests.sandbox.exchange_fixtures import Client, connected

PRIVATE_CHANNELS = ("wallet", "position", "order", "execution")
LOANS = "/v5/crypto-loan"
_SAMPLES = Path(__file__).parents[1] / "samples" / "private.jsonl"


@dataclass(frozen=True)
class HttpAnswer:
    """One answer of REST."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> dict[str, Any]:
        """The envelope."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def result(self) -> dict[str, Any]:
        """The result in the envelope."""
        assert self.body["retCode"] == 0, self.text
        found: dict[str, Any] = self.body["result"]
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the result."""
        found: list[dict[str, Any]] = self.result["list"]
        return found


def signed_headers(exchange: SimulatedExchange, query: str, key: ApiKey, *, timestamp_ms: int | None = None) -> Any:
    """Sign a query as Bybit wants it."""
    timestamp = str(exchange.now_ms() if timestamp_ms is None else timestamp_ms)
    return {
        "X-BAPI-API-KEY": key.api_key,
        "X-BAPI-TIMESTAMP": timestamp,
        "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": key.signature(f"{timestamp}{key.api_key}5000{query}"),
    }


async def send(exchange: SimulatedExchange, path: str, query: str, headers: Mapping[str, str]) -> HttpAnswer:
    """Send a request unchanged."""
    address = yarl.URL(f"{exchange.rest_url}{path}{'?' if query else ''}{query}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as answer:
        return HttpAnswer(answer.status, dict(answer.headers), await answer.text())


async def ask(exchange: SimulatedExchange, path: str, *, key: str = "read-only", **query: Any) -> HttpAnswer:
    """Send a signed request."""
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return await send(exchange, path, text, signed_headers(exchange, text, KEYS[key]))


async def page_through(exchange: SimulatedExchange, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Follow the cursor to its end; return the pages that have rows."""
    pages, cursor = [], ""
    while True:
        answer = await ask(exchange, path, **query, **({"cursor": cursor} if cursor else {}))
        cursor = answer.result["nextPageCursor"]
        if answer.rows:
            pages.append(answer.rows)
        if not cursor:
            return pages


def auth_request(exchange: SimulatedExchange, key: ApiKey, *, ahead_ms: int = 5_000) -> dict[str, Any]:
    """Build the authentication request of a key."""
    expires = exchange.now_ms() + ahead_ms
    return {"op": "auth", "req_id": "7", "args": [key.api_key, expires, key.signature(f"GET/realtime{expires}")]}


@asynccontextmanager
async def private_line(
    exchange: SimulatedExchange, *channels: str, key: str = "read-only", query: str = ""
) -> AsyncIterator[Client]:
    """Connect, authenticate, and subscribe to channels one by one."""
    async with connected(exchange.private_ws_url.removesuffix("/private"), f"private{query}") as client:
        assert (await client.ask(**auth_request(exchange, KEYS[key])))["success"]
        for channel in channels:
            assert (await client.subscribe(channel))["success"]
        yield client


async def settled(client: Client) -> None:
    """Wait until all that was sent before has been received: the pong follows it."""
    await asyncio.sleep(0.01)
    await client.ask(op="ping", req_id="settled")


def samples(topic: str) -> list[dict[str, Any]]:
    """Return the real frames of a topic; an empty topic means acknowledgements."""
    messages = [json.loads(line) for line in _SAMPLES.read_text().splitlines()]
    return [message for message in messages if message.get("topic", "") == topic]
