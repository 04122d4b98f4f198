"""A connection without a network: what becomes of the frames of one socket read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hedgelock_ingest.bybit.connection import Connection
from hedgelock_ingest.bybit.socket_port import Ending, OnFrames
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.protocol.websocket_session import SessionTiming
from hedgelock_ingest_tests.builders import a_trade
from hedgelock_ingest_tests.bybit.recording_receiver import RecordingReceiver, eventually

TRADES = "publicTrade.BTCUSDT"
LINE = LineKey("linear-a", 1)
PONG = b'{"success":true,"ret_msg":"pong","conn_id":"c","op":"ping"}'
READ_NS = 1_700_000_000_000_000_000


class HandedSocket:
    """A WebSocket whose reads a test hands over."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.sent: list[str] = []
        self.read: OnFrames | None = None

    def deliver(self, on_frames: OnFrames) -> None:
        """Keep the destination of reads."""
        self.read = on_frames

    async def send(self, text: str) -> None:
        """Record a request."""
        self.sent.append(text)

    async def close(self, timeout_s: float) -> None:
        """End at once."""


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, HandedSocket, RecordingReceiver]]:
    """Open a connection that has subscribed to trades."""
    socket, receiver = HandedSocket(), RecordingReceiver()

    async def connect(url: str) -> HandedSocket:
        return socket

    connection = Connection(LINE, [TRADES], receiver, SessionTiming(), clock=SystemClock(), on_opened=lambda: None)
    task = asyncio.create_task(connection.run("ws://unused", connect, open_timeout_s=5, close_timeout_s=1))
    try:
        await eventually(lambda: socket.sent)
        yield connection, socket, receiver
    finally:
        connection.end("stopped")
        await task


def acknowledgement(socket: HandedSocket) -> bytes:
    """Confirm the subscription."""
    number = json.loads(socket.sent[0])["req_id"]
    return json.dumps({"success": True, "ret_msg": "", "conn_id": "c", "req_id": number, "op": "subscribe"}).encode()


async def test_control_frame_amid_a_read_is_applied_in_its_place() -> None:
    """The note that a channel is live must be between the frames before and after it."""
    async with connected() as (_, socket, receiver):
        assert socket.read is not None
        socket.read([a_trade("t1"), a_trade("t2"), acknowledgement(socket), PONG, a_trade("t3")], READ_NS)

        assert [(kind, detail) for kind, _, detail in receiver.events] == [
            ("opened", TRADES),
            ("data", "2"),
            ("confirmed", TRADES),
            ("data", "1"),
        ]
    assert receiver.frames == [a_trade("t1"), a_trade("t2"), a_trade("t3")]
    assert all(message is not None and message.topic == TRADES for message in receiver.messages)


async def test_control_frames_alone_are_no_data() -> None:
    """They prove that the line is alive, not that Bybit sends its channels."""
    async with connected() as (connection, socket, receiver):
        assert socket.read is not None
        socket.read([PONG], READ_NS)

        assert [kind for kind, _, _ in receiver.events] == ["opened", "alive"]
        assert (connection.frames, connection.last_data_ns) == (1, None)

        socket.read([PONG, a_trade("t1")], READ_NS)

        assert [kind for kind, _, _ in receiver.events] == ["opened", "alive", "data"]
        assert (connection.frames, connection.last_data_ns) == (3, READ_NS)


async def test_frame_that_cannot_be_decoded_is_passed_on_without_a_message() -> None:
    """It becomes a dead letter; the other frames of the read are not affected."""
    async with connected() as (connection, socket, receiver):
        assert socket.read is not None
        socket.read([b"{bad", a_trade("t1"), b""], READ_NS)

    assert receiver.frames == [b"{bad", a_trade("t1"), b""]
    assert [message is None for message in receiver.messages] == [True, False, True]
    assert connection.last_data_ns == READ_NS
