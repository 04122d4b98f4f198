"""WebSockets in memory: the process's connection and the exchange's end of it."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable

from hedgelock_ingest.bybit.socket_port import Ending, OnFrames
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import LineLost
from hedgelock_ingest_tests.simulation.lifetime import ClockedLifetime

type OnRequest = Callable[["Socket", str], None]


class Wires:
    """
    The shared part of all sockets of an exchange: the loop, the clock, and a context that belongs to no process.

    A process is killed by dropping what its context has scheduled, so nothing of the exchange may be scheduled in it.
    """

    def __init__(self, clock: Clock, base_ms: int, loop: asyncio.AbstractEventLoop | None) -> None:
        self.clock = clock
        self.base_ms = base_ms
        self.context = contextvars.copy_context()
        self._loop = loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop; the running one by default."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def now_ms(self) -> int:
        """Return the exchange's time, which never jumps."""
        return self.base_ms + int(self.clock.monotonic() * 1000)

    def call_at(self, at_s: float, callback: Callable[[], None]) -> None:
        """Call a function at a time of the clock."""
        self.loop.call_at(at_s, callback, context=self.context)


class Socket:
    """
    One WebSocket: an implementation of `bybit/socket_port.py` for its process, and the exchange's end of it.

    Both directions keep their order and take at least `latency_s`. `closed_ms` is when it ceased to carry frames; a
    frame written then may never arrive. Create it in the context of its process.
    """

    def __init__(
        self, wires: Wires, lifetime: ClockedLifetime, kind: str, connection_id: str, on_request: OnRequest
    ) -> None:
        self.lifetime = lifetime
        self.kind = kind
        self.connection_id = connection_id
        self.latency_s = 0.0
        self.opened_ms = wires.now_ms()
        self.closed_ms: int | None = None
        self.is_silent = False
        self.is_half_open = False
        self.channels: dict[str, None] = {}
        self.pending: list[bytes] = []
        self.skips: set[str] = set()
        self.doubles: set[str] = set()
        self.on_arrival: Callable[[list[bytes]], None] | None = None
        self.ended: asyncio.Future[Ending] = wires.loop.create_future()
        self._wires = wires
        self._on_request = on_request
        self._process = contextvars.copy_context()
        self._on_frames: OnFrames | None = None
        self._early: list[bytes] = []
        self._to_process: deque[list[bytes]] = deque()
        self._to_exchange: deque[str] = deque()
        self._process_hears_at = 0.0
        self._exchange_hears_at = 0.0

    def __repr__(self) -> str:
        return f"Socket({self.kind} {self.connection_id})"

    @property
    def is_open(self) -> bool:
        """Whether the exchange considers it open, which includes half-open sockets."""
        return self.closed_ms is None or (self.is_half_open and not self.ended.done() and not self.lifetime.is_dead)

    @property
    def takes_data(self) -> bool:
        """Whether a frame written now arrives unless a fault happens."""
        return self.closed_ms is None and not self.is_silent

    # The process's end

    def deliver(self, on_frames: OnFrames) -> None:
        """Pass the frames that arrived since the opening, then each further frame as it arrives."""
        self._on_frames = on_frames
        if self._early:
            early, self._early = self._early, []
            on_frames(early, self.lifetime.wall_ns())

    async def send(self, text: str) -> None:
        """Send one text frame; raises `LineLost` when the connection has ended."""
        if self.ended.done():
            raise LineLost("the connection is closed")
        if self.is_half_open:
            return
        self._to_exchange.append(text)
        at_s = self._exchange_hears_at = max(self._wires.clock.monotonic() + self.latency_s, self._exchange_hears_at)
        self._wires.call_at(at_s, self._receive)

    async def close(self, timeout_s: float) -> None:
        """Send a close frame and wait for the end, or cut the connection after the timeout."""
        if not self.ended.done() and not self.is_half_open:
            self._wires.call_at(self._wires.clock.monotonic() + self.latency_s, self.close_by_exchange)
        try:
            async with self._wires.clock.timeout(timeout_s):
                await asyncio.shield(self.ended)
        except TimeoutError:
            pass
        finally:
            self.cut("closed")

    # The exchange's end

    def write(self, frames: list[bytes]) -> None:
        """Send some frames; they arrive together."""
        if self.closed_ms is not None:
            return
        self._to_process.append(frames)
        at_s = self._process_hears_at = max(self._wires.clock.monotonic() + self.latency_s, self._process_hears_at)
        self._wires.call_at(at_s, self._arrive)

    def cut(self, cause: str = "connection_lost") -> None:
        """End the connection at once; everything under way in either direction is lost."""
        self._end_exchange_side()
        self._to_process.clear()
        self._to_exchange.clear()
        self._end_process_side(cause)

    def close_by_exchange(self) -> None:
        """End the connection after everything that is under way to the process."""
        if self.closed_ms is not None:
            return
        self._end_exchange_side()
        self._to_exchange.clear()
        self._wires.call_at(
            max(self._wires.clock.monotonic() + self.latency_s, self._process_hears_at) + 1e-6,
            lambda: self._end_process_side("closed_by_exchange"),
        )

    def go_half_open(self) -> None:
        """Stop carrying frames in both directions, without notice."""
        self.is_half_open = True
        self._end_exchange_side()
        self._to_process.clear()
        self._to_exchange.clear()

    def _end_exchange_side(self) -> None:
        if self.closed_ms is None:
            self.closed_ms = self._wires.now_ms()
            self.pending.clear()

    def _end_process_side(self, cause: str) -> None:
        if not self.lifetime.is_dead and not self.ended.done():
            self.ended.set_result(Ending(cause))

    def _receive(self) -> None:
        if self._to_exchange and self.closed_ms is None:
            self._on_request(self, self._to_exchange.popleft())

    def _arrive(self) -> None:
        if not self._to_process or self.ended.done() or self.lifetime.is_dead:
            return
        frames = self._to_process.popleft()
        if self.on_arrival is not None:
            self.on_arrival(frames)
        if self._on_frames is None:
            self._early += frames
        else:
            self._process.run(self._on_frames, frames, self.lifetime.wall_ns())
