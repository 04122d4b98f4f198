"""Link: one connection of a line, from opening to end."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from hedgelock_ingest.bybit.socket_port import Connect, Connection, Ending
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import LineLost
from hedgelock_ingest.protocol.lines import LineKey, Receiver
from hedgelock_ingest.protocol.messages import Control
from hedgelock_ingest.protocol.session import (
    Authenticated,
    Confirmed,
    Effect,
    Lost,
    Rejected,
    Send,
    Session,
    Timing,
    Unanswered,
)

_log = structlog.get_logger()

_RECEIVER_FAILED = Ending("receiver_failed")

type Authenticate = Callable[[], Sequence[str | int]]
"""Returns the arguments of the authentication; called when the connection is open, since they expire."""


class Link:
    """Opens a connection, runs Bybit's session protocol on it, and passes its frames to the receiver."""

    def __init__(
        self,
        key: LineKey,
        channels: Sequence[str],
        receiver: Receiver,
        timing: Timing,
        *,
        clock: Clock,
        on_opened: Callable[[], None],
        authenticate: Authenticate | None = None,
    ) -> None:
        self.key = key
        self.channels = channels
        self.frames = 0
        self.last_data_ns: int | None = None
        self.opened_at: float | None = None
        self.failure: Exception | None = None
        self._receiver = receiver
        self._clock = clock
        self._on_opened = on_opened
        self._authenticate = authenticate
        self._session = Session(channels, timing)
        self._outbox: deque[str] = deque()
        self._ending: Ending | None = None
        self._is_mute = False
        self._controls = 0
        self._opening: asyncio.Timeout | None = None
        self._wake = asyncio.Event()

    async def run(self, url: str, connect: Connect, *, open_timeout_s: float, close_timeout_s: float) -> Ending:
        """
        Open the connection, keep it until it is lost or `end` is called, and return how it ended.

        An exception of the receiver ends it and is stored in `failure`, for the owner to raise.
        """
        try:
            connection = await self._open(url, connect, open_timeout_s)
        except LineLost as error:
            return self._ending or Ending(error.cause, str(error))
        ending = Ending("stopped")
        try:
            self._begin(connection)
            ending = await self._converse(connection)
        except LineLost as error:
            ending = Ending(error.cause, str(error))
        except Exception as error:  # noqa: BLE001  what the receiver raised; the owner raises it again
            self.failure = error
            ending = _RECEIVER_FAILED
        finally:
            await connection.close(close_timeout_s)
            self._receiver.line_closed(self.key, ending.cause)
        return ending

    def end(self, cause: str, *, mute: bool = False) -> None:
        """Request the connection's end; `mute` drops frames that arrive from now on."""
        self._is_mute = self._is_mute or mute
        if self._ending is None:
            self._ending = Ending(cause)
        if self._opening is not None:
            self._opening.reschedule(0)
        self._wake.set()

    def control(self, control: Control) -> None:
        """Process a frame without a topic."""
        self._controls += 1
        self._apply(self._session.control_received(control, self._clock.monotonic()))

    def resubscribe(self, channel: str) -> None:
        """Request a channel's snapshot again."""
        self._apply(self._session.resubscribe(channel, self._clock.monotonic()))

    def ping(self) -> None:
        """Send a ping before it is due."""
        self._apply(self._session.ping(self._clock.monotonic()))

    async def _open(self, url: str, connect: Connect, timeout_s: float) -> Connection:
        try:
            async with self._clock.timeout(0 if self._ending else timeout_s) as self._opening:
                return await connect(url)
        except TimeoutError as error:
            raise LineLost(f"not open after {timeout_s} s", cause="connect_timeout") from error
        finally:
            self._opening = None

    def _begin(self, connection: Connection) -> None:
        self.opened_at = self._clock.monotonic()
        self._receiver.line_opened(self.key, self.channels)
        _log.info("line_connected", line=self.key.name, generation=self.key.generation)
        self._on_opened()
        connection.ended.add_done_callback(lambda _: self._wake.set())
        connection.deliver(self._frames_received)

    async def _converse(self, connection: Connection) -> Ending:
        auth = None if self._authenticate is None else self._authenticate()
        self._apply(self._session.opened(self._clock.monotonic(), auth=auth))
        while True:
            if self.failure is not None:
                return _RECEIVER_FAILED
            if self._ending is not None:
                return self._ending
            if connection.ended.done():
                return connection.ended.result()
            if self._outbox:
                await connection.send(self._outbox.popleft())
                continue
            await self._wait_until(self._session.next_due())
            self._apply(self._session.tick(self._clock.monotonic()))

    async def _wait_until(self, due: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(max(0.0, due - self._clock.monotonic())):
                await self._wake.wait()

    def _frames_received(self, frames: list[bytes], received_ns: int) -> None:
        if self._is_mute:
            return
        self.frames += len(frames)
        self._controls = 0
        try:
            self._receiver.frames_received(self.key, frames, received_ns)
        except Exception as error:  # noqa: BLE001  it must not end in the library that called this
            self.failure = error
            self._is_mute = True
            self._wake.set()
            return
        if self._controls < len(frames):
            self.last_data_ns = received_ns
            self._session.data_received(self._clock.monotonic())

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(text):
                    self._outbox.append(text)
                    self._wake.set()
                case Lost(cause, detail):
                    self._ending = self._ending or Ending(cause, detail)
                    self._wake.set()
                case Confirmed(channel):
                    self._receiver.channel_confirmed(self.key, channel)
                case Rejected(channel, reason):
                    _log.warning("channel_rejected", line=self.key.name, channel=channel, reason=reason)
                    self._receiver.channel_rejected(self.key, channel, reason)
                case Unanswered(channel):
                    _log.warning("subscription_unanswered", line=self.key.name, channel=channel)
                case Authenticated():
                    _log.info("line_authenticated", line=self.key.name)
