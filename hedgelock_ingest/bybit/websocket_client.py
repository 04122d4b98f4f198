"""
The connection of a line on the `websockets` library, with a short way for what there is most of.

One socket read becomes one batch, delivered in the callback that read it, without queue or task switch. Small whole
text frames are cut out of it here; handshake, control frames, fragments and violations are the library's.
"""

import asyncio
import logging
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, PayloadTooBig, ProtocolError, WebSocketException
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import OPEN, Event

from hedgelock_ingest.bybit.connection import (
    MAX_FRAME_BYTES,
    SEND_TIMEOUT_S,
    USER_AGENT,
    Connection,
    Ending,
    OnFrames,
)
from hedgelock_ingest.errors import LineLost

_FINAL_TEXT = 0x81
_LENGTH_IN_TWO_BYTES = 126

# At debug the library logs whole frames, a signature among them; its own logger keeps it from ever doing so.
_library_logger = logging.getLogger("hedgelock_ingest.websockets")
_library_logger.setLevel(logging.WARNING)


async def open_connection(url: str) -> Connection:
    """
    Open a WebSocket.

    Raises:
        LineLost: It could not be opened, whatever the reason.
    """
    try:
        client = await connect(
            url,
            create_connection=_BatchingClient,
            compression=None,
            user_agent_header=USER_AGENT,
            open_timeout=None,
            # Bybit's own JSON ping does this work, and Bybit wants it anyway.
            ping_interval=None,
            max_size=MAX_FRAME_BYTES,
            logger=_library_logger,
            proxy=True if url.startswith("wss:") else None,
        )
    except (OSError, WebSocketException, ValueError, EOFError) as error:
        raise LineLost(_describe(error), cause=_cause_of_failure(error)) from error
    assert isinstance(client, _BatchingClient)
    return _WebSocketsConnection(client)


class _WebSocketsConnection:
    def __init__(self, client: "_BatchingClient") -> None:
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
        except (OSError, WebSocketException) as error:
            raise LineLost(_describe(error)) from error

    async def close(self, timeout_s: float) -> None:
        self._client.is_closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.close()
        except (TimeoutError, OSError, WebSocketException):
            self._client.transport.abort()
        await self.ended


class _BatchingClient(ClientConnection):
    """Collects the messages of one socket read and delivers them in the callback that read them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ended: asyncio.Future[Ending] = self.loop.create_future()
        self.is_closing = False
        self._on_frames: OnFrames | None = None
        self._batch: list[bytes] = []
        self._fragments: list[bytes] = []
        self._held = b""

    def deliver(self, on_frames: OnFrames) -> None:
        self._on_frames = on_frames
        self._hand_over(time.time_ns())

    def data_received(self, data: bytes) -> None:
        received_ns = time.time_ns()
        rest = self._held + data if self._held else data
        self._held = b""
        # The library must finish what it has begun: a frame, a message in fragments, the handshakes.
        if self.protocol.state is OPEN and not self.protocol.reader.buffer and not self._fragments:
            rest = rest[take_text_frames(rest, self._batch) :]
            if _begins_text_frame(rest):
                self._held, rest = rest, b""
        if rest:
            super().data_received(rest)
        self._hand_over(received_ns)

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


def take_text_frames(data: bytes, into: list[bytes]) -> int:
    """
    Cut the payloads of whole text frames off the front, up to the first that is not of the plain kind.

    Plain is one final frame without mask or extension, below 64 KiB; its first byte is 0x81 (RFC 6455, 5.2).

    Returns:
        The position of the first byte not taken.
    """
    position, end = 0, len(data)
    while end - position >= 2 and data[position] == _FINAL_TEXT:
        length, start = data[position + 1], position + 2
        if length == _LENGTH_IN_TWO_BYTES:
            start = position + 4
            if start > end:
                break
            length = data[position + 2] << 8 | data[position + 3]
        elif length > _LENGTH_IN_TWO_BYTES:
            break
        if start + length > end:
            break
        into.append(data[start : start + length])
        position = start + length
    return position


def _begins_text_frame(data: bytes) -> bool:
    return data[:1] == b"\x81" and (len(data) == 1 or data[1] <= _LENGTH_IN_TWO_BYTES)


def _cause_of_failure(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "connect_refused"
        case InvalidStatus():
            return "connect_rejected"
        case _:
            return "connect_failed"


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
