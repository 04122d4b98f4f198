"""One WebSocket connection on the exchange's side: its subscriptions, and how bytes are written to it."""

import asyncio
import os
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field

from hedgelock_ingest.sandbox.exchange.ledger import LineDelivery

TEXT = 0x81
BINARY = 0x82
_CLOSE = 0x88
_PONG = 0x8A
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def websocket_frame(payload: bytes, first_byte: int = TEXT) -> bytes:
    """Put a payload into one unmasked WebSocket frame. Source: RFC 6455, section 5.2."""
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 65_536:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first_byte, 127)) + size.to_bytes(8, "big") + payload


def reset_connection(transport: asyncio.Transport) -> None:
    """End a TCP connection with a reset; unsent bytes are lost."""
    if transport.is_closing():
        return
    descriptor = transport.get_extra_info("socket").fileno()
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


@dataclass(frozen=True, slots=True)
class _QueuedFrame:
    frame: bytes
    delivery: LineDelivery | None
    number: int

    def note(self) -> None:
        if self.delivery is not None:
            self.delivery.add(self.number)


@dataclass(eq=False)
class ExchangeConnection:
    """
    The writing side of one line.

    Frames are collected and written once a tick. A delayed line, which is slow or stalled, holds them back and
    writes what its fault allows. A line with more than `unsent_limit` bytes unsent is reset.
    """

    conn_id: str
    kind: str
    transport: asyncio.Transport
    unsent_limit: int
    opened_ms: int
    deliveries: dict[str, LineDelivery] = field(default_factory=dict)
    past_deliveries: list[LineDelivery] = field(default_factory=list)
    is_silent: bool = False
    answers_pings: bool = True
    bytes_per_s: float | None = None
    is_stalled: bool = False
    closed_ms: int | None = None
    close_cause: str = ""
    _collected: list[bytes] = field(default_factory=list)
    _waiting: deque[_QueuedFrame] = field(default_factory=deque)
    _waiting_bytes: int = 0
    _half_sent: tuple[bytes, _QueuedFrame] | None = None
    _allowance: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether frames may still be written."""
        return self.closed_ms is None and not self.transport.is_closing()

    @property
    def is_delayed(self) -> bool:
        """Whether frames are held back here instead of being written at once."""
        return self.is_stalled or self.bytes_per_s is not None or self._half_sent is not None or bool(self._waiting)

    def all_deliveries(self) -> list[LineDelivery]:
        """Return what was delivered under all subscriptions, past ones first."""
        return [*self.past_deliveries, *self.deliveries.values()]

    def send_event(self, frame: bytes, delivery: LineDelivery, number: int) -> None:
        """Send one event of a channel, and record it as delivered when it is written."""
        if self.is_silent or not self.is_open:
            return
        if self.is_delayed:
            self._keep(_QueuedFrame(frame, delivery, number))
        else:
            self._collected.append(frame)
            delivery.add(number)

    def send_text(self, text: str) -> None:
        """Send an answer, a first snapshot, or another text that is no event of a channel."""
        self.send_frame(websocket_frame(text.encode()))

    def send_frame(self, frame: bytes) -> None:
        """Send a complete WebSocket frame, after those that wait."""
        if self.closed_ms is not None:
            return
        if self.is_delayed:
            self._keep(_QueuedFrame(frame, None, 0))
        else:
            self._collected.append(frame)

    def pong(self, payload: bytes) -> None:
        """Answer a ping of the WebSocket protocol itself."""
        self.send_frame(websocket_frame(payload, _PONG))

    def flush(self) -> None:
        """Write what was collected."""
        if not self._collected:
            return
        collected = b"".join(self._collected)
        self._collected.clear()
        if self.is_open:
            self.transport.write(collected)
            if self.transport.get_write_buffer_size() > self.unsent_limit:
                self.reset("too much unsent")

    def write_delayed(self, elapsed_s: float) -> None:
        """Write as many of the delayed frames as the fault of this line allows in this time."""
        if self.is_stalled or not self.is_open:
            return
        if self._half_sent is not None:
            rest, item = self._half_sent
            self._half_sent = None
            self.transport.write(rest)
            item.note()
        if self.bytes_per_s is not None:
            self._allowance = min(self._allowance + self.bytes_per_s * elapsed_s, self.bytes_per_s)
        while self._waiting and (self.bytes_per_s is None or self._allowance > 0):
            item = self._waiting.popleft()
            self._waiting_bytes -= len(item.frame)
            self._allowance -= len(item.frame)
            self.transport.write(item.frame)
            item.note()

    def close(self, code: int) -> None:
        """Send a WebSocket close frame; nothing is sent after it."""
        if not self.is_open:
            return
        self.flush()
        self.transport.write(websocket_frame(code.to_bytes(2, "big"), _CLOSE))
        self.ended(f"closed with {code}")

    def reset(self, cause: str) -> None:
        """End the TCP connection with a reset; what the client's side has not received by then is lost."""
        if not self.is_open:
            return
        self.flush()
        self.ended(cause)
        # In the next iteration, since some event loops write only at the end of one.
        asyncio.get_running_loop().call_soon(reset_connection, self.transport)

    def ended(self, cause: str) -> None:
        """Record the end of the line; only the first cause counts."""
        if self.closed_ms is None:
            self.closed_ms = int(time.time() * 1000)
            self.close_cause = cause
            self._collected.clear()
            self._waiting.clear()

    def _keep(self, item: _QueuedFrame) -> None:
        if self.is_stalled and self._half_sent is None and not self._waiting and self.is_open:
            half = len(item.frame) // 2
            self.transport.write(item.frame[:half])
            self._half_sent = (item.frame[half:], item)
            return
        self._waiting.append(item)
        self._waiting_bytes += len(item.frame)
        if self._waiting_bytes > self.unsent_limit:
            self.reset("too much unsent")
