"""
A low-cost substitute for Bybit: it confirms subscriptions, answers pings, and sends frames on schedule.

A plain loop over non-blocking sockets, since an event loop's timers have a resolution of a millisecond.
"""

import base64
import hashlib
import json
import select
import socket
import sys
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.board import Board, Slot
from benchmarks.children import parent_is_alive
from benchmarks.frames import CATEGORIES, CHANNELS, Frames, websocket_frame

_WARM_UP_RATE = 200
_WARM_UP_S = 1.5
_TICK_S = 0.001
_CHUNK = 100
_WEBSOCKET_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


@dataclass(frozen=True, slots=True)
class Load:
    """
    The frames to send: `rate` per second, or as many as Kafka confirms with at most `window` of them in flight.

    The measured `seconds` follow a warm-up at a low rate, until the consumer keeps up, and `settle_s` at the full rate.
    """

    rate: int
    seconds: float
    lines: int = 1
    settle_s: float = 2.0
    window: int = 0
    first_number: int = 0
    warms_up: bool = True

    def capacity(self) -> int:
        """Return an upper bound of the frame numbers."""
        max_rate = self.rate or 400_000
        return self.first_number + int(max_rate * (self.seconds + self.settle_s + 1)) + 10_000

    def text(self) -> str:
        """Return the load as an argument for the sender."""
        return json.dumps(asdict(self))


class _Client:
    """A WebSocket connection of the stream under test."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.category = ""
        self.channels: set[str] = set()
        self.unsent = bytearray()
        self._received = bytearray()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, content: bytes) -> None:
        self.unsent += content
        if self.unsent:
            try:
                del self.unsent[: self.socket.send(self.unsent)]
            except (BlockingIOError, ConnectionError):  # the next read detects a lost connection
                return

    def read(self, frames: Frames) -> None:
        """Read from the socket, and answer the requests of the stream."""
        content = self.socket.recv(65_536)
        if not content:
            raise ConnectionError("the stream under test closed a connection")
        self._received += content
        if not self.category:
            self._complete_handshake()
        while self.category and (payload := self._next_message()) is not None:
            self._answer(payload, frames)

    def _complete_handshake(self) -> None:
        head, end, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.split(b"\r\n")
        self.category = lines[0].split()[1].rpartition(b"/")[2].decode()
        headers = dict(line.lower().split(b": ", 1)[:1] + line.split(b": ", 1)[1:] for line in lines[1:])
        accept_key = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + _WEBSOCKET_MAGIC).digest())  # noqa: S324
        self._received = bytearray(rest)
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key + b"\r\n\r\n"
        )

    def _next_message(self) -> bytes | None:
        """Return the next masked frame below 64 KiB, the only kind that our clients send (RFC 6455, 5.2)."""
        received = self._received
        if len(received) < 2:
            return None
        size, at = received[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(received[2:4]), 4
        if len(received) < at + 4 + size:
            return None
        mask, body = received[at : at + 4], received[at + 4 : at + 4 + size]
        is_text = received[0] & 0x0F == 1
        del received[: at + 4 + size]
        return bytes(byte ^ mask[n % 4] for n, byte in enumerate(body)) if is_text else b""

    def _answer(self, payload: bytes, frames: Frames) -> None:
        if not payload:
            return
        request = json.loads(payload)
        answer = {
            "success": True,
            "ret_msg": "",
            "conn_id": "benchmark",
            "req_id": request["req_id"],
            "op": request["op"],
        }
        if request["op"] == "ping":
            answer["ret_msg"] = "pong"
        self.send(websocket_frame(json.dumps(answer).encode()))
        if request["op"] == "subscribe":
            self._subscribe(request["args"], frames)

    def _subscribe(self, channels: list[str], frames: Frames) -> None:
        for channel in channels:
            self.channels.add(channel)
            if snapshot := frames.snapshot(self.category, channel, _wall_clock_ms()):
                self.send(websocket_frame(snapshot))


class Sender:
    """Waits until the lines of the stream are subscribed, then sends one load."""

    def __init__(self, board: Board, load: Load) -> None:
        self._board = board
        self._load = load
        self._frames = Frames(first_number=load.first_number)
        self._clients: list[_Client] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        board[Slot.PORT] = self._listener.getsockname()[1]

    def run(self) -> None:
        """Send the complete load, then answer pings until the end of the round."""
        self._wait_for_lines()
        if self._load.warms_up:
            self._warm_up()
        board, load = self._board, self._load
        board[Slot.FULL_RATE_FROM_NS] = time.monotonic_ns()
        if load.window:
            self._fill_window(load.settle_s)
            self._start_measurement()
            self._fill_window(load.seconds)
        else:
            self._keep_rate(load.rate, load.settle_s)
            self._start_measurement()
            self._keep_rate(load.rate, load.seconds)
        board[Slot.ALL_SENT_NS] = time.monotonic_ns()
        while self._is_active():
            self._listen(0.05)

    def _wait_for_lines(self) -> None:
        while not self._is_subscribed() and self._is_active():
            self._listen(0.01)

    def _is_subscribed(self) -> bool:
        complete = [client.category for client in self._clients if len(client.channels) == len(CHANNELS)]
        return all(complete.count(category) >= self._load.lines for category in CATEGORIES)

    def _warm_up(self) -> None:
        """Send at a low rate until all frames arrive, so that the measurement excludes start and connection."""
        began = time.monotonic()
        while self._is_active():
            self._keep_rate(_WARM_UP_RATE, 0.1)
            in_flight = self._board[Slot.SENT] - self._board[Slot.RECEIVED]
            if time.monotonic() - began > _WARM_UP_S and in_flight < _WARM_UP_RATE // 10:
                return

    def _start_measurement(self) -> None:
        self._board[Slot.MEASURED_FROM] = self._frames.next_number
        self._board[Slot.MEASURED_FROM_NS] = time.monotonic_ns()

    def _keep_rate(self, rate: int, seconds: float) -> None:
        tick_s = max(_TICK_S, 1 / rate)
        began, sent, total = time.monotonic(), 0, int(rate * seconds)
        while sent < total and self._is_active():
            due_s = began + sent / rate + (tick_s if rate * tick_s > 1 else 0)
            self._listen(max(0.0, due_s - time.monotonic()))
            now_s = time.monotonic()
            if now_s < due_s:
                continue
            self._note_lateness(now_s - due_s)
            count = min(max(1, int((now_s - began) * rate) - sent), total - sent)
            self._send(count)
            sent += count

    def _fill_window(self, seconds: float) -> None:
        board, window = self._board, self._load.window
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and self._is_active():
            room = board[Slot.RECEIVED] + window - board[Slot.SENT]
            if room < _CHUNK or any(client.unsent for client in self._clients):
                self._listen(0.0005)
            else:
                self._send(min(room, 5 * _CHUNK))

    def _send(self, count: int) -> None:
        number = self._frames.next_number
        by_category = dict(zip(CATEGORIES, self._frames.take(count, _wall_clock_ms()), strict=True))
        now_ns = time.monotonic_ns()
        for client in self._clients:
            client.send(by_category[client.category])
        self._board.sent_ns[number : number + count] = array("q", [now_ns]) * count
        self._board[Slot.SENT] += count

    def _listen(self, timeout_s: float) -> None:
        blocked = [client for client in self._clients if client.unsent]
        everything: list[socket.socket | _Client] = [self._listener, *self._clients]
        readable, writable, _ = select.select(everything, blocked, [], timeout_s)
        for client in writable:
            client.send(b"")
        for each in readable:
            if isinstance(each, _Client):
                self._read(each)
            else:
                self._clients.append(_Client(each.accept()[0]))

    def _read(self, client: _Client) -> None:
        try:
            client.read(self._frames)
        except ConnectionError:  # frames sent until it reconnects are lost, and are reported as missing
            self._clients.remove(client)
            client.socket.close()
            self._board[Slot.DISCONNECTIONS] += 1

    def _note_lateness(self, late_s: float) -> None:
        late_ns = int(late_s * 1e9)
        if self._board[Slot.MEASURED_FROM_NS] and late_ns > self._board[Slot.LATEST_TICK_NS]:
            self._board[Slot.LATEST_TICK_NS] = late_ns

    def _is_active(self) -> bool:
        return not self._board[Slot.STOP] and parent_is_alive()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """Run as `python -m benchmarks.sender BOARD LOAD`."""
    load = Load(**json.loads(sys.argv[2]))
    board = Board(Path(sys.argv[1]), load.capacity())
    try:
        Sender(board, load).run()
    except OSError:
        board[Slot.SENDER_FAILED] = 1
        raise


if __name__ == "__main__":
    main()
