"""
Connection of a line on pybit's WebSocket.

Pybit opens the socket and reads it in a separate thread; its other functions are switched off, since each of them can
lose frames or end the thread: decoding in the reader, pings, waiting for acknowledgements, reconnecting. The line does
those.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import websocket
from pybit._websocket_stream import _V5WebSocketManager

from hedgelock_ingest.bybit.connection_failure import Target
from hedgelock_ingest.bybit.socket_port import (
    MAX_FRAME_BYTES,
    OPEN_TIMEOUT_S,
    SEND_TIMEOUT_S,
    USER_AGENT,
    Ending,
    OnFrames,
    WebSocket,
)
from hedgelock_ingest.errors import LineLost
from hedgelock_ingest.settings.proxies import Proxy, proxy_for

_WAITING_FRAMES = 10_000


async def open_connection(url: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> WebSocket:
    """
    Open a WebSocket.

    Args:
        url: Address of the lines of one category, or of the private ones.
        timeout_s: Of each step: TCP, proxy, TLS, WebSocket; later it ends a connection that stalls during an operation.

    Raises:
        LineLost: It could not be opened, whatever the reason.
    """
    websocket.setdefaulttimeout(timeout_s)  # the library has no other timeout for that
    proxy = None
    try:
        proxy = proxy_for(url, os.environ)
        connection = _PybitConnection(_proxy_options(proxy, timeout_s))
        await connection.open(url)
    except Exception as error:  # whatever a library, a proxy or a server does: the line tries again
        failure = Target(url, proxy).failure(error)
        raise LineLost(failure.text, cause=failure.cause) from error
    return connection


def _proxy_options(proxy: Proxy | None, timeout_s: float) -> dict[str, Any]:
    """Return the library's options, which keep it from reading the environment itself."""
    if proxy is None:
        return {"http_no_proxy": ["*"]}
    return {
        "http_proxy_host": proxy.host,
        "http_proxy_port": proxy.port,
        "http_proxy_auth": (proxy.username, proxy.password) if proxy.has_credentials else None,
        "http_proxy_timeout": timeout_s,
        "http_no_proxy": ["no-host.invalid"],
        "proxy_type": proxy.scheme,
    }


class _PybitConnection:
    """The event loop's side: delivers frames, sends, closes."""

    def __init__(self, proxy_options: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ending] = self._loop.create_future()
        self._reader = _Reader(self, proxy_options)
        # Pybit's calls block, so they run in a thread that ends with the connection.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pybit-caller")
        self._on_frames: OnFrames | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_ns = 0
        self._is_scheduled = False
        self._has_room = threading.Event()

    async def open(self, url: str) -> None:
        try:
            await self._loop.run_in_executor(self._executor, self._reader._connect, url)
            if self._reader.failure is not None:
                raise self._reader.failure
        except BaseException:
            self._reader.abandon()
            self._executor.shutdown(wait=False)
            raise

    def deliver(self, on_frames: OnFrames) -> None:
        self._on_frames = on_frames
        self._hand_over()

    async def send(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._loop.run_in_executor(self._executor, self._reader.ws.send, text)
        except TimeoutError as error:
            raise LineLost(f"a send took more than {SEND_TIMEOUT_S} s", cause="send_timeout") from error
        except Exception as error:  # also AttributeError, where the reader's thread ends meanwhile
            raise LineLost(str(error) or type(error).__name__) from error

    async def close(self, timeout_s: float) -> None:
        if self.ended.done():
            self._executor.shutdown(wait=False)
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.run_in_executor(self._executor, self._reader.send_close)
                await asyncio.shield(self.ended)
        except TimeoutError:
            self._reader.cut()
            await self.ended
        finally:
            self._reader.cut()
            self._executor.shutdown(wait=False)

    def frame_read(self, raw: bytes) -> None:
        """Accept a frame in the reader's thread; blocks while the event loop lags far behind."""
        while len(self._waiting) >= _WAITING_FRAMES and not self._reader.is_abandoned:
            self._has_room.clear()
            self._has_room.wait(0.1)
        self._waiting.append(raw)
        if not self._is_scheduled:
            self._waiting_ns = time.time_ns()
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._hand_over)

    def reader_ended(self, ending: Ending) -> None:
        """Note the end of the connection, in the reader's thread, after its last frame."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end, ending)

    def _hand_over(self) -> None:
        received_ns = self._waiting_ns
        self._is_scheduled = False
        if self._on_frames is None or not self._waiting:
            return
        frames = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._has_room.set()
        self._on_frames(frames, received_ns)

    def _end(self, ending: Ending) -> None:
        self._hand_over()
        if not self.ended.done():
            self.ended.set_result(ending)


class _Reader(_V5WebSocketManager):  # type: ignore[misc]  # pybit has no types
    """Pybit's side: opens and reads the socket; its other functions are overridden."""

    def __init__(self, connection: _PybitConnection, proxy_options: dict[str, Any]) -> None:
        self.failure: BaseException | None = None
        self._proxy_options = proxy_options
        self.is_abandoned = False
        self._connection = connection
        self._app: Any = None
        self._socket: Any = None
        super().__init__(
            "hedgelock",
            testnet=False,
            restart_on_error=False,
            # With 1 pybit raises even when connected; is_connected() keeps it from using the second.
            retries=2,
            ping_interval=0,
            ping_timeout=None,
        )
        # They log each end of a connection as an error; the line logs it once. Pybit's constructor resets the level.
        for name in ("websocket", "pybit"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    @property
    def ws(self) -> Any:
        """The library's client, as pybit calls it."""
        return self._app

    @ws.setter
    def ws(self, app: Any) -> None:
        self._app = app
        app.header = [f"User-Agent: {USER_AGENT}"]
        read = app.run_forever
        app.run_forever = lambda **options: self._read(read, **options)

    def is_connected(self) -> bool:
        """Return whether pybit may stop waiting: connected, failed, or abandoned."""
        return self.failure is not None or self.is_abandoned or bool(super().is_connected())

    def abandon(self) -> None:
        """End the connection, also while it is opening."""
        self.is_abandoned = True
        self.cut()

    def send_close(self) -> None:
        """Send a close frame; the exchange answers it and ends the connection."""
        self.exited = True
        try:
            if self._socket is not None:
                self._socket.send_close()
        except (OSError, websocket.WebSocketException):
            self.cut()

    def cut(self) -> None:
        """End the connection without a close frame."""
        self.exited = True
        if self._app is not None:
            self._app.keep_running = False
        raw_socket = self._socket and self._socket.sock
        if raw_socket is not None:
            with contextlib.suppress(OSError):  # closed already
                raw_socket.shutdown(socket.SHUT_RDWR)

    def _read(self, read: Any, **options: Any) -> None:
        try:
            # Frames that are not UTF-8 must be delivered, since they become dead letters.
            read(skip_utf8_validation=True, **self._proxy_options, **options)
        finally:
            if self._socket is not None:
                self._socket.shutdown()
                self._connection.reader_ended(self._ending())

    def _on_open(self) -> None:
        self._socket = self._app.sock
        if self.is_abandoned:
            self.cut()

    def _on_message(self, message: bytes | str) -> None:
        raw = message if isinstance(message, bytes) else message.encode()
        if len(raw) <= MAX_FRAME_BYTES:
            self._connection.frame_read(raw)
            return
        self.failure = _FrameTooLarge(f"a frame of {len(raw)} bytes")
        self.cut()

    def _on_error(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error

    def _send_initial_ping(self) -> None:
        """Send no ping; the line does."""

    def _send_custom_ping(self) -> None:
        """Send no ping; the line does."""

    def _ending(self) -> Ending:
        if self.exited and not isinstance(self.failure, _FrameTooLarge):
            return Ending("closed")
        failure = self.failure or ConnectionError("the reader ended")
        return Ending(_cause_of_loss(failure), str(failure) or type(failure).__name__)


class _FrameTooLarge(Exception):
    pass


def _cause_of_loss(error: BaseException) -> str:
    match error:
        case _FrameTooLarge():
            return "frame_too_large"
        case websocket.WebSocketConnectionClosedException() if getattr(error, "status_code", None) is not None:
            return "closed_by_exchange"
        case websocket.WebSocketProtocolException() | websocket.WebSocketPayloadException():
            return "protocol_error"
        case _:
            return "connection_lost"
