"""Line: a supervised WebSocket connection to Bybit, with the channels it carries."""

import asyncio
import contextlib
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import structlog

from hedgelock_ingest.bybit import websockets_client
from hedgelock_ingest.bybit.connection import Authenticate, Connection
from hedgelock_ingest.bybit.socket_port import Connect, Ending
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.protocol.backoff import Backoff
from hedgelock_ingest.protocol.line_events import FrameReceiver, LineKey
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.protocol.silence import Replaced, Silence
from hedgelock_ingest.protocol.websocket_session import SessionTiming

log = structlog.get_logger(__name__)

_ROTATED, _STALE = "rotated", "stale"
_REPLACED_BY_CAUSE = {_ROTATED: Replaced.AS_SILENT, _STALE: Replaced.WAS_BEHIND}


class LineState(enum.StrEnum):
    """State of a line; `refused` waits like `waiting`, after Bybit has refused the key."""

    WAITING = "waiting"
    REFUSED = "refused"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """
    Timeouts and delays of a line, in seconds.

    Bybit may close connections at any time; `rotate_after_s` replaces them before that, without a gap. Up to a
    twentieth of it is subtracted at random, so that lines opened together are not replaced together. A line that is
    silent and answers pings is replaced without a gap, too: see `protocol.silence`; `look_s` is how often it is looked
    at, `lag_s` how long it may be behind other lines.
    """

    reconnect_initial_delay_s: float = 0.5
    reconnect_max_delay_s: float = 30.0
    stable_after_s: float = 60.0
    rotate_after_s: float = 23 * 3600.0
    join_timeout_s: float = 10.0
    join_look_s: float = 0.1
    look_s: float = 1.0
    lag_s: float = 1.0
    open_timeout_s: float = 10.0
    close_timeout_s: float = 2.0
    timing: SessionTiming = field(default_factory=SessionTiming)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStatus:
    """
    Status of a line for health and statistics.

    `last_data_ns` is wall-clock time. `attempts` counts those since the line was last stable; `reconnects` counts lost
    connections, without rotations; a silent one that lacked what another line has brought counts as lost.
    """

    name: str
    state: LineState
    channels: int
    generation: int
    attempts: int
    reconnects: int
    rotations: int
    frames: int
    last_cause: str | None
    last_data_ns: int | None


@dataclass(slots=True)
class _Running:
    connection: Connection
    task: asyncio.Task[Ending]

    def result(self) -> Ending:
        """Return how the connection ended; raises what its receiver raised."""
        if self.connection.failure is not None:
            raise self.connection.failure
        return self.task.result()


class Line:
    """
    Keeps one connection open: reopens it when lost, replaces it before Bybit closes it, closes it while paused.

    Network failures do not end `run`; an exception of the receiver does, in an exception group.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[str],
        receiver: FrameReceiver,
        *,
        url: str,
        budget: ConnectionBudget,
        limits: LineLimits,
        clock: Clock,
        random: Random,
        connect: Connect = websockets_client.open_connection,
        authenticate: Authenticate | None = None,
        silence: Silence | None = None,
    ) -> None:
        """
        Prepare a line; nothing is connected.

        Args:
            name: Such as `linear-a`.
            channels: Channels to subscribe.
            receiver: Receives the frames.
            url: Including the category.
            budget: Connection attempts, shared by all lines to one host.
            limits: Timeouts and delays.
            clock: Used for waits and timestamps.
            random: Source of jitter.
            connect: Opens a connection with one of the WebSocket libraries.
            authenticate: Login arguments of a private line.
            silence: Shared by the lines with the same channels; by default no other line has them.
        """
        self.name = name
        self.channels = tuple(channels)
        self._receiver = receiver
        self._url = url
        self._budget = budget
        self._limits = limits
        self._connect = connect
        self._authenticate = authenticate
        self._clock = clock
        self._random = random
        self._backoff = Backoff(
            initial_s=limits.reconnect_initial_delay_s,
            maximum_s=limits.reconnect_max_delay_s,
            random=self._random,
        )
        self._silence = silence or Silence(limits.timing.stale_after_s)
        self._connected_since_s = math.inf
        self._connections: list[Connection] = []
        self._generation = 0
        self._pauses: set[str] = set()
        self._is_stopping = False
        self._changed = asyncio.Event()
        self._state = LineState.WAITING
        self._reconnects = 0
        self._rotations = 0
        self._ended_frames = 0
        self._last = Ending("")
        self._last_data_ns: int | None = None

    @property
    def status(self) -> LineStatus:
        """Current status of the line."""
        data_ns = [each.last_data_ns for each in self._connections if each.last_data_ns is not None]
        return LineStatus(
            name=self.name,
            state=self._state,
            channels=len(self.channels),
            generation=self._generation,
            attempts=self._backoff.attempts,
            reconnects=self._reconnects,
            rotations=self._rotations,
            frames=self._ended_frames + sum(connection.frames for connection in self._connections),
            last_cause=self._last.cause or None,
            last_data_ns=max(data_ns, default=self._last_data_ns),
        )

    def pause(self, cause: str = "paused") -> None:
        """Close the line until `resume` with the same cause; no frame is delivered after this returns."""
        self._pauses.add(cause)
        for connection in self._connections:
            connection.end(cause, drop_frames=True)
        self._changed.set()

    def resume(self, cause: str = "paused") -> None:
        """Reopen the line after `pause`, unless it is also paused for another cause."""
        self._pauses.discard(cause)
        self._changed.set()

    @property
    def _is_paused(self) -> bool:
        return bool(self._pauses)

    def stop(self) -> None:
        """Close the line; `run` then returns. Frames that arrive before the connection is closed are delivered."""
        self._is_stopping = True
        for connection in self._connections:
            connection.end("stopped")
        self._changed.set()

    async def run(self) -> None:
        """Keep the line open until `stop` or cancelled; when it returns, all its connections are closed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self._is_stopping:
                    if self._is_paused:
                        await self._stay_paused()
                    elif await self._wait_before_connecting():
                        await self._keep(tasks, self._launch(tasks))
        finally:
            self._state = LineState.STOPPED

    async def _stay_paused(self) -> None:
        self._state = LineState.PAUSED
        log.warning("line_paused", line=self.name, cause=", ".join(sorted(self._pauses)))
        while self._is_paused and not self._is_stopping:
            await self._wait_for_change(None)
        self._backoff.reset()

    async def _wait_before_connecting(self) -> bool:
        self._state = LineState.REFUSED if self._last.cause == "auth_rejected" else LineState.WAITING
        if self._generation > 0:
            delay_s = self._backoff.next_delay()
            log.warning(
                "line_reconnecting",
                line=self.name,
                attempt=self._backoff.attempts,
                delay_s=round(delay_s, 3),
                cause=self._last.cause,
                reason=self._last.detail,
            )
            if not await self._sleep(delay_s):
                return False
        return await self._sleep(self._reserve())

    def _reserve(self) -> float:
        delay_s = self._budget.reserve(self._clock.monotonic())
        if delay_s > 0:
            log.warning("line_delayed", line=self.name, delay_s=round(delay_s, 3))
        return delay_s

    def _launch(self, tasks: asyncio.TaskGroup) -> _Running:
        self._generation += 1
        key = LineKey(self.name, self._generation)
        connection = Connection(
            key,
            self.channels,
            self._receiver,
            self._limits.timing,
            clock=self._clock,
            on_opened=self._changed.set,
            authenticate=self._authenticate,
        )
        self._connections.append(connection)
        task = tasks.create_task(self._run_connection(connection), name=f"{self.name}-{self._generation}")
        return _Running(connection, task)

    async def _run_connection(self, connection: Connection) -> Ending:
        try:
            return await connection.run(
                self._url,
                self._connect,
                open_timeout_s=self._limits.open_timeout_s,
                close_timeout_s=self._limits.close_timeout_s,
            )
        finally:
            self._connections.remove(connection)
            self._ended_frames += connection.frames
            self._last_data_ns = connection.last_data_ns or self._last_data_ns
            self._changed.set()

    async def _keep(self, tasks: asyncio.TaskGroup, running: _Running) -> None:
        self._state = LineState.CONNECTING
        self._connected_since_s = math.inf
        rotate_after_s = self._limits.rotate_after_s * self._random.uniform(0.95, 1.0)
        while not running.task.done():
            opened_s = running.connection.opened_s
            if opened_s is None:
                await self._wait_for_change(None)
                continue
            self._state = LineState.CONNECTED
            self._connected_since_s = min(self._connected_since_s, opened_s)
            left_s = opened_s + rotate_after_s - self._clock.monotonic()
            if left_s <= 0:
                successor = await self._rotate(tasks, running)
                if successor is running:
                    rotate_after_s += self._limits.reconnect_max_delay_s
                running = successor
            elif self._is_silent_too_long(running.connection):
                running = await self._replace_silent(tasks, running)
            else:
                await self._wait_for_change(min(left_s, self._next_look_s(running.connection)))
        self._note_end(running)

    def _silent_s(self, connection: Connection) -> float:
        return self._clock.monotonic() - connection.silent_since_s

    def _is_silent_too_long(self, connection: Connection) -> bool:
        silent_s = self._silent_s(connection)
        if silent_s < self._silence.shortest_s or self._is_paused or self._is_stopping:
            return False
        is_behind = self._receiver.is_behind(connection.key)
        return self._silence.is_due(silent_s, self._clock.monotonic(), is_behind=is_behind)

    def _next_look_s(self, connection: Connection) -> float:
        """Return the seconds until a connection's silence is looked at again, also while no data is expected."""
        left_s = self._silence.shortest_s - self._silent_s(connection)
        if left_s <= 0:
            return self._limits.look_s
        return max(min(left_s, self._silence.shortest_s), self._limits.join_look_s)

    async def _replace_silent(self, tasks: asyncio.TaskGroup, old: _Running) -> _Running:
        log.warning("line_silent", line=self.name, silent_s=round(self._silent_s(old.connection), 1))
        replaced = Replaced.FAILED
        self._silence.begin()
        try:
            new = await self._rotate(tasks, old)
            if new is not old and old.connection.failure is None:
                replaced = _REPLACED_BY_CAUSE.get(old.result().cause, Replaced.FAILED)
            return new
        finally:
            self._silence.end(replaced, self._clock.monotonic())

    async def _rotate(self, tasks: asyncio.TaskGroup, old: _Running) -> _Running:
        """Open a successor beside the old connection; return the one that stays."""
        if not await self._sleep(self._reserve()):
            return old
        new = self._launch(tasks)
        is_pinged = False
        behind_since_s = math.inf
        while not old.task.done() and not new.task.done() and not self._may_let_go(old.connection, new.connection):
            if not is_pinged and self._waited_s(new.connection) >= self._limits.join_timeout_s / 2:
                # On a quiet channel only a pong proves that the old connection has delivered all earlier frames.
                old.connection.ping()
                is_pinged = True
            now_s = self._clock.monotonic()
            is_behind = new.connection.opened_s is not None and self._is_left_behind(old.connection)
            behind_since_s = min(behind_since_s, now_s) if is_behind else math.inf
            if now_s - behind_since_s >= self._limits.lag_s:
                break
            await self._wait_for_change(self._limits.join_look_s)
        if old.task.done():
            self._note_end(old)
            return new
        if new.task.done():
            ending = new.result()
            log.warning("line_rotation_failed", line=self.name, cause=ending.cause, reason=ending.detail)
            return old
        is_stale = self._is_left_behind(old.connection)
        old.connection.end(_STALE if is_stale else _ROTATED)
        await asyncio.wait({old.task})
        self._reconnects += is_stale
        self._rotations += not is_stale
        self._last = old.result() if is_stale else self._last
        log.info("line_rotated", line=self.name, generation=new.connection.key.generation, is_stale=is_stale)
        return new

    def _is_left_behind(self, connection: Connection) -> bool:
        """Return whether a connection is silent although another one brings news: its subscriptions are dead."""
        is_silent = self._silent_s(connection) >= self._silence.shortest_s
        return is_silent and self._receiver.is_behind(connection.key)

    def _may_let_go(self, old: Connection, new: Connection) -> bool:
        return self._has_joined(new) and not self._is_left_behind(old)

    def _has_joined(self, connection: Connection) -> bool:
        if connection.opened_s is None:
            return False
        return self._waited_s(connection) >= self._limits.join_timeout_s or self._receiver.has_joined(connection.key)

    def _waited_s(self, connection: Connection) -> float:
        return 0.0 if connection.opened_s is None else self._clock.monotonic() - connection.opened_s

    def _note_end(self, running: _Running) -> None:
        self._last = running.result()
        opened_s = running.connection.opened_s
        if opened_s is None:
            return
        if not self._is_paused and not self._is_stopping:
            self._reconnects += 1
        # Of all connections since the line was last without one: a replacement is no loss.
        if self._clock.monotonic() - self._connected_since_s >= self._limits.stable_after_s:
            self._backoff.reset()

    async def _sleep(self, delay_s: float) -> bool:
        """Wait; return false if the line was paused or stopped meanwhile."""
        until_s = self._clock.monotonic() + delay_s
        while not self._is_paused and not self._is_stopping:
            left_s = until_s - self._clock.monotonic()
            if left_s <= 0:
                return True
            await self._wait_for_change(left_s)
        return False

    async def _wait_for_change(self, timeout_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()
