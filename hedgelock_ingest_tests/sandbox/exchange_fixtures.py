"""A simulated exchange for tests, in the test's loop or as a process, and a plain WebSocket client."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from hedgelock_ingest.sandbox.exchange import Scenario, SimulatedExchange


@asynccontextmanager
async def running_exchange(**fields: Any) -> AsyncIterator[SimulatedExchange]:
    """Run an exchange in this loop; the arguments are those of `Scenario`."""
    async with SimulatedExchange(Scenario(**fields)) as exchange:
        yield exchange


async def eventually(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  any condition, without an event to wait for
            await asyncio.sleep(0.005)


@dataclass
class Client:
    """A client that keeps everything it receives, raw and, where it is a JSON object, decoded."""

    socket: ClientConnection
    received: list[str | bytes] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    close_code: int | None = None

    @property
    def replies(self) -> list[dict[str, Any]]:
        """Acknowledgements, rejections and pongs."""
        return [message for message in self.messages if "topic" not in message]

    def data(self, channel: str) -> list[dict[str, Any]]:
        """Return the messages of one channel."""
        return [message for message in self.messages if message.get("topic") == channel]

    async def send(self, **request: Any) -> None:
        """Send a request."""
        await self.socket.send(json.dumps(request))

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the reply to it."""
        count = len(self.replies)
        await self.send(**request)
        await eventually(lambda: len(self.replies) > count)
        return self.replies[count]

    async def subscribe(self, *channels: str) -> dict[str, Any]:
        """Subscribe to channels and return the acknowledgement."""
        return await self.ask(op="subscribe", req_id="1", args=list(channels))

    async def read(self) -> None:
        """Read until the connection ends."""
        try:
            async for text in self.socket:
                self.received.append(text)
                with suppress(ValueError):
                    message = json.loads(text)
                    if isinstance(message, dict):
                        self.messages.append(message)
        finally:
            self.close_code = self.socket.close_code


@asynccontextmanager
async def connected(public_ws_url: str, category: str, *channels: str, **options: Any) -> AsyncIterator[Client]:
    """Connect a client to a public socket and subscribe it to channels; options are those of `connect`."""
    options = {"ping_interval": None, "max_size": None, **options}
    async with connect(f"{public_ws_url}/{category}", **options) as socket:
        client = Client(socket)
        reading = asyncio.create_task(_read_to_the_end(client))
        try:
            if channels:
                await client.subscribe(*channels)
            yield client
        finally:
            await socket.close()
            await reading


@dataclass(frozen=True)
class ExchangeProcess:
    """An exchange in a separate process, controlled through its `/sandbox/` endpoints."""

    public_ws_url: str
    private_ws_url: str
    rest_url: str
    pid: int
    api_key: str = ""
    api_secret: str = ""

    async def fault(self, name: str, **arguments: Any) -> Any:
        """Switch a fault on, such as `await exchange.fault("drop_lines", category="linear")`."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.rest_url}/sandbox/faults", json={"fault": name, **arguments}) as answer,
        ):
            if answer.status != 200:
                raise ValueError(await answer.text())
            return (await answer.json())["result"]

    async def act(self, action: str, **arguments: Any) -> Any:
        """Call an action of the account, such as `await exchange.act("deposit", coin="USDT", amount="1")`."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.rest_url}/sandbox/account", json={"action": action, **arguments}) as answer,
        ):
            if answer.status != 200:
                raise ValueError(await answer.text())
            return (await answer.json())["result"]

    async def account(self, *, since_ms: int = 0) -> dict[str, Any]:
        """Return the account's books, and its frames, answers and states from a time on."""
        return await self._get("account", since_ms=str(since_ms))

    async def state(self) -> dict[str, Any]:
        """Return lines, channels and injected frames."""
        return await self._get("state")

    async def sent(
        self, category: str, channel: str, *, since_ms: int = 0, until_ms: int | None = None, delivered: bool = True
    ) -> list[Any]:
        """
        Return the identities of what was sent on a channel, in order.

        With `delivered`, only of what was written to at least one open line.
        """
        query = {"category": category, "channel": channel, "since_ms": str(since_ms)}
        if until_ms is not None:
            query["until_ms"] = str(until_ms)
        events = (await self._get("ledger", **query))["events"]
        return [
            identity
            for _, _, identities, was_written in events
            if was_written or not delivered
            for identity in identities
        ]

    async def _get(self, path: str, **query: str) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.rest_url}/sandbox/{path}", params=query) as answer,
        ):
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found


@asynccontextmanager
async def exchange_process(**fields: Any) -> AsyncIterator[ExchangeProcess]:
    """Run an exchange in a separate process, for heavy use; the arguments are those of `Scenario`."""
    command = [sys.executable, "-m", "hedgelock_ingest.sandbox.exchange", "--scenario", json.dumps(fields)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
        yield ExchangeProcess(**json.loads(line))
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


async def _read_to_the_end(client: Client) -> None:
    try:
        await client.read()
    except Exception:  # noqa: BLE001  tests check how a line ends; the client keeps the close code
        client.close_code = client.socket.close_code
