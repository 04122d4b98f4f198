"""One connection of a line, from opening to end."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from hedgelock_ingest.bybit.socket_port import Connect, Ending, WebSocket
from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import FrameError, LineLost
from hedgelock_ingest.protocol.line_events import FrameReceiver, LineKey
from hedgelock_ingest.protocol.messages import Control, DataMessage, decode
from hedgelock_ingest.protocol.websocket_session import (
    Authenticated,
    Confirmed,
    Effect,
    Lost,
    Rejected,
    Send,
    SessionTiming,
    Unanswered,
    WebSocketSession,
)

log = structlog.get_logger(__name__)

_RECEIVER_FAILED = Ending("receiver_failed")

type Authenticate = Callable[[], Sequence[str | int]]
"""Returns the arguments of the authentication; called when the connection is open, since they expire."""


class Connection:
    """
    Opens a WebSocket, runs Bybit's session protocol on it, and passes its messages to the receiver.

    Control frames end here: acknowledgements, refusals, pongs.
    """

    def __init__(
        self,
        key: LineKey,
        channels: Sequence[str],
        receiver: FrameReceiver,
        timing: SessionTiming,
        *,
        clock: Clock,
        on_opened: Callable[[], None],
        authenticate: Authenticate | None = None,
    ) -> None:
        self.key = key
        self.channels = channels
        self.frames = 0
        self.last_data_ns: int | None = None
        self.opened_s: float | None = None
        self.failure: Exception | None = None
        self._receiver = receiver
        self._clock = clock
        self._on_opened = on_opened
        self._authenticate = authenticate
        self._session = WebSocketSession(channels, timing)
        self._outbox: deque[str] = deque()
        self._unanswered: set[str] = set()
        self._ending: Ending | None = None
        self._drops_frames = False
        self._opening: asyncio.Timeout | None = None
        self._wake = asyncio.Event()

    async def run(self, url: str, connect: Connect, *, open_timeout_s: float, close_timeout_s: float) -> Ending:
        """
        Open the WebSocket, keep it until it is lost or `end` is called, and return how it ended.

        An exception of the receiver ends it and is stored in `failure`, for the owner to raise.
        """
        try:
            socket = await self._open(url, connect, open_timeout_s)
        except LineLost as error:
            return self._ending or Ending(error.cause, str(error))
        ending = Ending("stopped")
        try:
            self._begin(socket)
            ending = await self._run_session(socket)
        except LineLost as error:
            ending = Ending(error.cause, str(error))
        except Exception as error:  # noqa: BLE001  what the receiver raised; the owner raises it again
            self.failure = error
            ending = _RECEIVER_FAILED
        finally:
            await socket.close(close_timeout_s)
            self._receiver.line_closed(self.key, ending.cause)
        return ending

    def end(self, cause: str, *, drop_frames: bool = False) -> None:
        """Request the connection's end; with `drop_frames`, frames that arrive from now on are dropped."""
        self._drops_frames = self._drops_frames or drop_frames
        if self._ending is None:
            self._ending = Ending(cause)
        if self._opening is not None:
            self._opening.reschedule(0)
        self._wake.set()

    def resubscribe(self, channel: str) -> None:
        """Request a channel's snapshot again."""
        self._apply(self._session.resubscribe(channel, self._clock.monotonic()))

    def ping(self) -> None:
        """Send a ping before it is due."""
        self._apply(self._session.ping(self._clock.monotonic()))

    @property
    def silent_since_s(self) -> float:
        """When data last arrived, or was first expected; infinity if none is."""
        return self._session.silent_since_s

    async def _open(self, url: str, connect: Connect, timeout_s: float) -> WebSocket:
        try:
            async with self._clock.timeout(0 if self._ending else timeout_s) as self._opening:
                return await connect(url)
        except TimeoutError as error:
            raise LineLost(f"not open after {timeout_s} s", cause="connect_timeout") from error
        finally:
            self._opening = None

    def _begin(self, socket: WebSocket) -> None:
        self.opened_s = self._clock.monotonic()
        self._receiver.line_opened(self.key, self.channels, self.resubscribe)
        log.info("line_connected", line=self.key.name, generation=self.key.generation)
        self._on_opened()
        socket.ended.add_done_callback(lambda _: self._wake.set())
        socket.deliver(self._frames_received)

    async def _run_session(self, socket: WebSocket) -> Ending:
        auth = None if self._authenticate is None else self._authenticate()
        self._apply(self._session.opened(self._clock.monotonic(), auth=auth))
        while True:
            if self.failure is not None:
                return _RECEIVER_FAILED
            if self._ending is not None:
                return self._ending
            if socket.ended.done():
                return socket.ended.result()
            if self._outbox:
                await socket.send(self._outbox.popleft())
                continue
            await self._wait_until(self._session.next_due_s())
            self._apply(self._session.tick(self._clock.monotonic()))

    async def _wait_until(self, due_s: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(max(0.0, due_s - self._clock.monotonic())):
                await self._wake.wait()

    def _frames_received(self, raws: list[bytes], received_ns: int) -> None:
        if self._drops_frames:
            return
        self.frames += len(raws)
        try:
            has_data = self._pass_on(raws, received_ns)
        except Exception as error:  # noqa: BLE001  it must not end in the library that called this
            self.failure = error
            self._drops_frames = True
            self._wake.set()
            return
        if has_data:
            self.last_data_ns = received_ns
            if self._session.data_received(self._clock.monotonic()):
                self._wake.set()

    def _pass_on(self, raws: list[bytes], received_ns: int) -> bool:
        """Decode the frames of one read and pass them on, control frames in their place; return whether any is data."""
        key, receive = self.key, self._receiver.frames_received
        messages: list[DataMessage | None] = []
        passed = controls = 0
        for number, raw in enumerate(raws):
            try:
                message = decode(raw)
            except FrameError:
                messages.append(None)
                continue
            if not isinstance(message, Control):
                messages.append(message)
                continue
            if messages:
                receive(key, raws[passed:number], messages, received_ns)
                messages = []
            passed = number + 1
            controls += 1
            self._apply(self._session.control_received(message, self._clock.monotonic()))
        if messages:
            receive(key, raws[passed:] if passed else raws, messages, received_ns)
        if controls == len(raws):
            self._receiver.line_alive(key)
        return controls < len(raws)

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
                    self._receiver.channel_rejected(self.key, channel, reason)
                case Unanswered(channel):
                    if channel not in self._unanswered:  # it is sent again, and may stay unanswered for ever
                        log.warning("subscription_unanswered", line=self.key.name, channel=channel)
                    self._unanswered.add(channel)
                case Authenticated():
                    log.info("line_authenticated", line=self.key.name)
