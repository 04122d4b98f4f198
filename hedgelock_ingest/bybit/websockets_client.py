"""
Connection of a line on the `websockets` library, with a fast path for small text frames.

One socket read becomes one batch, delivered in the callback that read it, without a queue or task switch. Small
complete text frames are parsed here; handshake, control frames, fragments and violations are left to the library.
"""

import asyncio
import logging
import os
import struct
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import PayloadTooBig, ProtocolError, WebSocketException
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import CONNECTING, OPEN, Event

from hedgelock_ingest.bybit.connection_failure import Target
from hedgelock_ingest.bybit.socket_port import (
    MAX_FRAME_BYTES,
    OPEN_TIMEOUT_S,
    SEND_TIMEOUT_S,
    TLS_TIMEOUT_S,
    USER_AGENT,
    Ending,
    OnFrames,
    WebSocket,
)
from hedgelock_ingest.errors import LineLost
from hedgelock_ingest.settings.proxies import proxy_for

_FINAL_TEXT = 0x81
_LENGTH_IN_2_BYTES = 126
_LENGTH_IN_8_BYTES = 127
_PLAIN_HEADER = struct.Struct(">BBH")  # flags and opcode, length or its encoding, length in 2 bytes
_END_OF_HANDSHAKE = b"\r\n\r\n"
_HANDSHAKE_BYTES = 64 * 1024
_LARGEST_WITH_HEADER = MAX_FRAME_BYTES + 14

# At DEBUG the library logs complete frames, including signatures; this separate logger prevents that.
_library_logger = logging.getLogger("hedgelock_ingest.websockets")
_library_logger.setLevel(logging.WARNING)


async def open_connection(url: str, *, timeout_s: float = OPEN_TIMEOUT_S) -> WebSocket:
    """
    Open a WebSocket.

    Raises:
        LineLost: It could not be opened, whatever the reason.
    """
    proxy, opening = None, None
    try:
        proxy = proxy_for(url, os.environ)
        opening = _Opening(
            url,
            create_connection=BatchingClient,
            compression=None,
            user_agent_header=USER_AGENT,
            open_timeout=timeout_s,
            # The line sends Bybit's JSON ping, which Bybit requires.
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            logger=_library_logger,
            proxy=None if proxy is None else proxy.url,
            ssl_handshake_timeout=TLS_TIMEOUT_S if url.startswith("wss:") else None,
        )
        client = await opening
    except Exception as error:  # whatever a library, a proxy or a server does: the line tries again
        is_connected = opening is not None and opening.is_connected
        failure = Target(url, proxy).failure(error, is_connected=is_connected)
        raise LineLost(failure.text, cause=failure.cause) from error
    assert isinstance(client, BatchingClient)
    return _WebSocketsConnection(client)


class _Opening(connect):
    """The library's opening of one connection, without following redirects."""

    is_connected = False

    async def open_tcp_connection(self) -> ClientConnection:
        """Open the connection below WebSocket, TLS included, and note that it is open."""
        connection = await super().open_tcp_connection()
        self.is_connected = True
        return connection

    def process_redirect(self, exc: Exception) -> Exception:
        """Follow no redirect: a log-in must not go to a page of the network."""
        return exc


class _WebSocketsConnection:
    def __init__(self, client: "BatchingClient") -> None:
        self._client = client
        self.ended = client.ended

    def deliver(self, on_frames: OnFrames) -> None:
        self._client.deliver(on_frames)

    async def send(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._client.send(text)
        except TimeoutError as error:
            raise LineLost(f"a send took more than {SEND_TIMEOUT_S} s", cause="send_timeout") from error
        except Exception as error:  # also RuntimeError, which uvloop raises where a transport has been closed
            raise LineLost(_describe(error)) from error

    async def close(self, timeout_s: float) -> None:
        self._client.is_closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.close()
        except (TimeoutError, OSError, RuntimeError, WebSocketException):
            pass  # cut below
        finally:
            if not self.ended.done():
                self._client.transport.abort()
        await self.ended


class BatchingClient(ClientConnection):
    """Collects the messages of one socket read and delivers them in the callback that read them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ended: asyncio.Future[Ending] = self.loop.create_future()
        self.is_closing = False
        self._on_frames: OnFrames | None = None
        self._batch: list[bytes] = []
        self._fragments: list[bytes] = []
        self._held = bytearray()
        self._needed = 0

    def deliver(self, on_frames: OnFrames) -> None:
        self._on_frames = on_frames
        self._hand_over(time.time_ns())

    def data_received(self, data: bytes) -> None:
        received_ns = time.time_ns()
        if self._held:
            self._held += data
            if len(self._held) < self._needed and self.protocol.state is OPEN:
                return
            data = bytes(self._held)
            self._held.clear()
        if self.protocol.state is CONNECTING:
            data = self._read_handshake(data)
        if self.protocol.state is OPEN:
            data = self._read_frames(data)
        if data:
            super().data_received(data)
        self._hand_over(received_ns)

    def _read_handshake(self, data: bytes) -> bytes:
        end = data.find(_END_OF_HANDSHAKE)
        if end < 0:
            if len(data) > _HANDSHAKE_BYTES:
                return data
            self._held += data
            return b""
        super().data_received(data[: end + len(_END_OF_HANDSHAKE)])
        return data[end + len(_END_OF_HANDSHAKE) :]

    def _read_frames(self, data: bytes) -> bytes:
        """Read frames while the connection is open; the library only gets complete ones."""
        position = 0
        while self.protocol.state is OPEN:
            position = take_text_frames(data, position, self._batch)
            size = frame_size(data, position)
            end = position + size
            if end > len(data) and size <= _LARGEST_WITH_HEADER:
                self._held += data[position:]
                self._needed = size
                return b""
            super().data_received(data[position:end])
            position = end
        return data[position:]

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        else:
            self._fragments.append(bytes(event.data))
            if event.fin:
                self._batch.append(b"".join(self._fragments))
                self._fragments.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set_result(self._ending(exc))

    def _hand_over(self, received_ns: int) -> None:
        if self._batch and self._on_frames is not None:
            batch, self._batch = self._batch, []
            self._on_frames(batch, received_ns)

    def _ending(self, error: Exception | None) -> Ending:
        close = self.protocol.close_rcvd
        match self.protocol.parser_exc:
            case PayloadTooBig() as too_big:
                return Ending("frame_too_large", str(too_big))
            case ProtocolError() as violation:
                return Ending("protocol_error", str(violation))
        if self.is_closing:
            return Ending("closed")
        if close is not None:
            return Ending("closed_by_exchange", str(close))
        return Ending("connection_lost", "" if error is None else _describe(error))


def take_text_frames(data: bytes, position: int, into: list[bytes]) -> int:
    """
    Extract the payloads of complete plain text frames, up to the first other frame.

    A plain frame is final, without mask or extension, below 64 KiB; its first byte is 0x81 (RFC 6455, 5.2). A frame of
    up to 3 bytes is not taken if nothing follows it.

    Returns:
        The position of the first byte not taken.
    """
    end = len(data)
    while position <= end - _PLAIN_HEADER.size:
        first, length, long_length = _PLAIN_HEADER.unpack_from(data, position)
        if length == _LENGTH_IN_2_BYTES:
            start = position + _PLAIN_HEADER.size
            stop = start + long_length
        else:
            start = position + 2
            stop = start + length
        if first != _FINAL_TEXT or length > _LENGTH_IN_2_BYTES or stop > end:
            break
        into.append(data[start:stop])
        position = stop
    return position


def frame_size(data: bytes, position: int) -> int:
    """Return the size of the frame at a position, or of its header while that is incomplete (RFC 6455, 5.2)."""
    header = data[position : position + 10]
    if len(header) < 2:
        return 2
    mask_size, length = 4 if header[1] & 0x80 else 0, header[1] & 0x7F
    extra = {_LENGTH_IN_2_BYTES: 2, _LENGTH_IN_8_BYTES: 8}.get(length, 0)
    if len(header) < 2 + extra:
        return 2 + extra
    if extra:
        length = int.from_bytes(header[2 : 2 + extra])
    return 2 + extra + mask_size + length


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
