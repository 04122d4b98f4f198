"""The simulated exchange: one server on one port, its markets, its lines and its faults."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange.account.account import SimulatedAccount
from hedgelock_ingest.sandbox.exchange.account.setup import AccountInterface
from hedgelock_ingest.sandbox.exchange.faults.control_endpoints import ControlEndpoints
from hedgelock_ingest.sandbox.exchange.faults.switches import FaultSwitches
from hedgelock_ingest.sandbox.exchange.ledger import Ledger
from hedgelock_ingest.sandbox.exchange.market.channels import Channels
from hedgelock_ingest.sandbox.exchange.recording import RecordedFrame, read_recording
from hedgelock_ingest.sandbox.exchange.rest.market import MarketEndpoints
from hedgelock_ingest.sandbox.exchange.rest.middleware import AddressLimit, RestMiddleware
from hedgelock_ingest.sandbox.exchange.scenario import Scenario
from hedgelock_ingest.sandbox.exchange.sockets.lines import Lines
from hedgelock_ingest.sandbox.exchange.sockets.pace import Pace
from hedgelock_ingest.sandbox.exchange.sockets.public_socket import PublicSockets

_TICK_S = 0.002
_REPLAY_LEAD_S = 0.5  # so that a client's other subscriptions are in place


class SimulatedExchange(FaultSwitches):
    """
    A simulated Bybit v5 that listens on one port.

    Use it as `async with SimulatedExchange(Scenario(rate=1000)) as exchange:`, or with `start` and `stop`. After
    another start it continues where it stopped, on the same port. Call all methods in the loop that started it.
    """

    def __init__(self, scenario: Scenario | None = None) -> None:
        scenario = scenario or Scenario()
        random = Random(f"{scenario.seed}:lines")
        self.ledger = Ledger(scenario.ledger_size)
        super().__init__(
            scenario,
            Channels(scenario, self.ledger),
            Lines(
                unsent_limit=scenario.unsent_bytes,
                per_window=scenario.connections_per_5_minutes,
                random=random,
            ),
        )
        self.port = scenario.port
        self._pace = Pace(self.channels, rate=scenario.rate, random=Random(f"{scenario.seed}:pace"))
        self._sockets = PublicSockets(self, random=random)
        self._account_interface = AccountInterface(self)
        self._runner: web.AppRunner | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def account(self) -> SimulatedAccount:
        """The account that all keys belong to."""
        return self._account_interface.account

    @property
    def rest_url(self) -> str:
        """The base of all REST paths."""
        return f"http://{self.scenario.host}:{self.port}"

    @property
    def public_ws_url(self) -> str:
        """The base to which a category is appended."""
        return f"ws://{self.scenario.host}:{self.port}/v5/public"

    @property
    def private_ws_url(self) -> str:
        """The address of the private socket."""
        return f"ws://{self.scenario.host}:{self.port}/v5/private"

    async def start(self) -> None:
        """
        Start to listen.

        Raises:
            SandboxError: The port is taken, or the recording cannot be read.
        """
        recording = read_recording(self.scenario.replay) if self.scenario.replay else []
        rest = RestMiddleware(
            self.clock,
            self.rest_faults,
            of_all=AddressLimit(self.scenario.requests_per_5_s, self.scenario.ban_s),
            of_public=AddressLimit(self.scenario.public_per_5_s, self.scenario.ban_s),
        )
        app = web.Application(middlewares=[rest.answer])
        app.add_routes(self._sockets.routes())
        app.add_routes(MarketEndpoints(self.channels, self.clock).routes())
        app.add_routes(self._account_interface.routes())
        app.add_routes(ControlEndpoints(self, self.ledger).routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.scenario.host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise SandboxError(f"the exchange cannot listen on port {self.port}: {error}") from error
        self.port = self._runner.addresses[0][1]
        self._running = asyncio.create_task(self._run(recording), name="simulated-exchange")

    async def stop(self) -> None:
        """Close all lines with 1001 and stop listening; raise the error that ended the exchange, if any."""
        self.drop_lines(how="close", code=1001)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def run_until(self, stopped: asyncio.Event) -> None:
        """Wait for `stopped`; if the exchange fails first, raise its error."""
        assert self._running is not None
        waiter = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({waiter, self._running}, return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():
                self._running.result()
        finally:
            waiter.cancel()

    def sent(
        self,
        category: str,
        channel: str,
        *,
        since_ms: int = 0,
        until_ms: int | None = None,
        delivered: bool = True,
    ) -> list[Any]:
        """
        Return the identities of a channel's events in order: trade ids, `u`, `cs`, or liquidations as lists.

        With `delivered`, only of those that were written to at least one open line.
        """
        ledger = self.ledger.channels.get((category, channel))
        if ledger is None:
            return []
        written = self.lines.written(category, channel) if delivered else None
        return [
            identity
            for number, _, identities in ledger.events(since_ms, until_ms)
            if written is None or number in written
            for identity in identities
        ]

    def set_rate(self, rate: float | None) -> None:
        """Change the number of frames a second; None is Bybit's own pace."""
        self._pace.change(rate, asyncio.get_running_loop().time())

    def pause(self) -> None:
        """Pause the markets; lines, pings and requests continue."""
        self._pace.is_paused = True

    def resume(self) -> None:
        """Resume the markets."""
        self._pace.is_paused = False

    def publish(self, category: str, channel: str, count: int = 1) -> int:
        """Publish so many events on a channel at once; return how many there were."""
        one = self._channel(category, channel)
        events = [one.stream.advance(self.now_ms(), must=True) for _ in range(count)]
        for event in events:
            if event is not None:
                one.publish(event, self.now_ms())
        return len(events)

    async def replay(self, source: Path | Iterable[str], *, rate: float = 10.0, category: str | None = None) -> int:
        """
        Send recorded frames, unchanged and in order, to the lines subscribed to their channels.

        Args:
            source: A file with one JSON text a line, or those lines.
            rate: Frames a second.
            category: The category of all frames; None derives it from the shape of each.

        Returns:
            How many frames were published; those without a topic are left out.
        """
        frames = read_recording(source)
        if category is not None:
            frames = [replace(frame, category=category) for frame in frames]
        await self._publish_recorded(frames, rate)
        return len(frames)

    async def _publish_recorded(self, frames: list[RecordedFrame], rate: float) -> None:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        for number, frame in enumerate(frames):
            await asyncio.sleep(begin_s + number / rate - loop.time())
            channel = self.channels.open_recorded(frame.category, frame.channel)
            channel.publish(frame.event, self.now_ms())

    async def _run(self, recording: list[RecordedFrame]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self._account_interface.run())
            if recording:
                group.create_task(self._replay_when_wanted(recording))

    async def _replay_when_wanted(self, frames: list[RecordedFrame]) -> None:
        for frame in frames:
            self.channels.open_recorded(frame.category, frame.channel)
        await self._sockets.subscribed.wait()
        await asyncio.sleep(_REPLAY_LEAD_S)
        await self._publish_recorded(frames, self.scenario.replay_rate)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        self._pace.change(self._pace.rate, last_s)
        is_late = False
        while True:
            await asyncio.sleep(0 if is_late else _TICK_S)
            now_s = loop.time()
            is_late = self._pace.tick(now_s, self.now_ms())
            self.lines.write(now_s - last_s)
            last_s = now_s
            self.ledger.keep_bound()
