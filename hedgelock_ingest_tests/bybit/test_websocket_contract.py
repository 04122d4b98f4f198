"""The contract of both WebSocket clients with a line, against a server that can also misbehave."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.socket_port import MAX_FRAME_BYTES, Connect, WebSocket
from hedgelock_ingest.errors import LineLost
from hedgelock_ingest_tests.bybit.recording_receiver import eventually
from hedgelock_ingest_tests.bybit.scripted_server import ScriptedServer, scripted_server

FRAMES = [
    b'{"topic":"tickers.BTCUSDT"}',
    b"",
    b"not json at all",
    b'{"text":"\xc3\xa9"}',
    b"\xff\xfe not UTF-8",
    b"x" * 125,
    b"x" * 126,
    b"x" * 65_535,
    b"x" * 65_536,
    b'{"last":1}',
]


@pytest.fixture(params=[websockets_client.open_connection, pybit_client.open_connection], ids=["websockets", "pybit"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Each of the two clients."""
    client: Connect = request.param
    return client


@asynccontextmanager
async def opened(connect: Connect, server: ScriptedServer) -> AsyncIterator[tuple[WebSocket, list[bytes]]]:
    """A connection that delivers into a list."""
    received: list[bytes] = []
    connection = await connect(server.url)
    connection.deliver(lambda frames, _: received.extend(frames))
    try:
        yield connection, received
    finally:
        await connection.close(1.0)


async def test_every_frame_arrives_byte_for_byte_and_in_order(connect: Connect) -> None:
    """Frames that cannot be decoded are kept unchanged, so the client must neither change nor lose them."""
    async with scripted_server() as server, opened(connect, server) as (_, received):
        await server.send(*FRAMES)

        await eventually(lambda: len(received) == len(FRAMES))
    assert received == FRAMES


async def test_message_in_fragments_arrives_complete(connect: Connect) -> None:
    """A proxy may fragment messages; plain ones before and after keep their place."""
    async with scripted_server() as server, opened(connect, server) as (_, received):
        await server.send("before")
        await server.connections[0].send([b"", b"first,", b"second,", b"", b"third"], text=True)
        await server.connections[0].ping()
        await server.send("after")

        await eventually(lambda: len(received) == 3)
    assert received == [b"before", b"first,second,third", b"after"]


async def test_binary_frame_arrives_as_bytes(connect: Connect) -> None:
    """Bybit sends none; if it did, the bytes would become a dead letter."""
    async with scripted_server() as server, opened(connect, server) as (_, received):
        await server.connections[0].send(b"\x00\x01\x02")

        await eventually(lambda: received == [b"\x00\x01\x02"])


async def test_frames_that_come_before_delivery_are_kept(connect: Connect) -> None:
    """A server may send first, but the line must learn of the connection before its first frame."""
    async with scripted_server() as server:
        connection = await connect(server.url)
        await server.send("early", "early too")
        received: list[bytes] = []
        await asyncio.sleep(0.05)
        connection.deliver(lambda frames, _: received.extend(frames))
        await server.send("late")

        await eventually(lambda: len(received) == 3)
        await connection.close(1.0)
    assert received == [b"early", b"early too", b"late"]


async def test_frames_carry_the_wall_clock_of_their_reading(connect: Connect) -> None:
    """Latency and the bounds of gaps are computed from it."""
    times: list[int] = []
    async with scripted_server() as server:
        connection = await connect(server.url)
        connection.deliver(lambda _, received_ns: times.append(received_ns))
        before_ns = time.time_ns()
        await server.send("x")
        await eventually(lambda: times)
        after_ns = time.time_ns()
        await connection.close(1.0)

    assert before_ns <= times[0] <= after_ns


async def test_requests_arrive_as_text(connect: Connect) -> None:
    """Bybit reads text frames only."""
    async with scripted_server() as server, opened(connect, server) as (connection, received):
        await connection.send('{"req_id":"1","op":"ping"}')

        await eventually(lambda: received)
        assert server.requests == [{"req_id": "1", "op": "ping"}]


async def test_largest_frame_arrives_complete(connect: Connect) -> None:
    """An oversized frame can only be kept if it is received."""
    frame = b"x" * MAX_FRAME_BYTES
    async with scripted_server() as server, opened(connect, server) as (_, received):
        await server.send(frame, "after")

        await eventually(lambda: len(received) == 2)
    assert received == [frame, b"after"]


async def test_frame_beyond_the_largest_ends_the_connection_with_its_cause(connect: Connect) -> None:
    """An operator must see why the line is lost, since it will be lost again."""
    async with scripted_server() as server, opened(connect, server) as (connection, received):
        sending = asyncio.create_task(server.send(b"x" * (MAX_FRAME_BYTES + 1)))

        ending = await asyncio.wait_for(connection.ended, 10.0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert ending.cause == "frame_too_large"
    assert received == []


async def test_violation_of_the_websocket_protocol_ends_the_connection_with_its_cause(connect: Connect) -> None:
    """Nothing after it can be trusted; earlier frames are delivered."""
    async with scripted_server() as server, opened(connect, server) as (connection, received):
        await server.send("good")
        server.connections[0].transport.write(b"\x83\x00")

        ending = await asyncio.wait_for(connection.ended, 10.0)
    assert ending.cause == "protocol_error"
    assert received == [b"good"]


async def test_aborted_connection_ends_after_its_last_frame(connect: Connect) -> None:
    """Received frames are delivered, also when the end follows at once."""
    async with scripted_server() as server, opened(connect, server) as (connection, received):
        await server.send(*FRAMES)
        server.connections[0].transport.close()

        ending = await asyncio.wait_for(connection.ended, 10.0)
        assert received == FRAMES
    assert ending.cause == "connection_lost"


async def test_connection_closed_by_the_exchange_reports_that_cause(connect: Connect) -> None:
    """Bybit closes connections for maintenance, which differs from a network failure."""
    async with scripted_server() as server, opened(connect, server) as (connection, _):
        closing = asyncio.create_task(server.connections[0].close(1012, "restart"))

        ending = await asyncio.wait_for(connection.ended, 10.0)
        await closing
    assert ending.cause == "closed_by_exchange"
    assert "1012" in ending.detail


async def test_closing_sends_a_close_frame(connect: Connect) -> None:
    """After a clean close Bybit frees the connection at once, which counts against its limits."""
    async with scripted_server() as server:
        connection = await connect(server.url)
        peer = server.connections[0]
        connection.deliver(lambda *_: None)

        await connection.close(1.0)

        await eventually(lambda: peer.close_code is not None)
        assert peer.close_code == 1000
    assert connection.ended.result().cause == "closed"


async def test_closing_keeps_its_deadline_without_an_answer(connect: Connect) -> None:
    """A stop must not wait for an exchange that hangs."""
    async with mute_server() as url:
        connection = await connect(url)
        connection.deliver(lambda *_: None)
        begun = time.monotonic()

        await connection.close(0.2)

        assert time.monotonic() - begun < 8.0
    assert connection.ended.done()


async def test_closing_an_ended_connection_has_no_effect(connect: Connect) -> None:
    """The line closes in any case, also after the exchange did."""
    async with scripted_server() as server:
        connection = await connect(server.url)
        connection.deliver(lambda *_: None)
        server.cut()
        await asyncio.wait_for(connection.ended, 10.0)

        await connection.close(1.0)
        await connection.close(1.0)


async def test_sending_on_a_lost_connection_is_a_lost_line(connect: Connect) -> None:
    """No exception of a library passes the port."""
    async with scripted_server() as server, opened(connect, server) as (connection, _):
        server.cut()
        await asyncio.wait_for(connection.ended, 10.0)

        with pytest.raises(LineLost):
            await connection.send("x")


async def test_refused_port_is_a_lost_line(connect: Connect) -> None:
    """The exchange may be unavailable when we start."""
    async with scripted_server() as server:
        url = server.url

    with pytest.raises(LineLost) as lost:
        await connect(url)

    assert lost.value.cause == "connect_refused"
    assert lost.value.transient


async def test_refused_handshake_is_a_lost_line(connect: Connect) -> None:
    """Bybit answers 403 to addresses that it has banned or does not serve."""

    def refuse(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(HTTPStatus.FORBIDDEN, "")

    async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LineLost) as lost:
            await connect(f"ws://127.0.0.1:{port}/v5/public/linear")

    assert lost.value.cause == "connect_rejected"
    assert "403" in str(lost.value)


async def test_garbage_instead_of_a_handshake_is_a_lost_line(connect: Connect) -> None:
    """A foreign server at the address must not end the program."""
    async with raw_server(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as url:
        with pytest.raises(LineLost):
            await connect(url)


async def test_opening_can_be_cancelled(connect: Connect) -> None:
    """A server that accepts and sends nothing must not block a line, nor leave a thread behind."""
    before = set(threading.enumerate())
    async with raw_server(b"") as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connect(url)

    await eventually(lambda: set(threading.enumerate()) <= before, timeout_s=15.0)


async def test_no_thread_is_left_behind(connect: Connect) -> None:
    """A line reconnects thousands of times during a process."""
    before = set(threading.enumerate())
    async with scripted_server() as server:
        for _ in range(3):
            async with opened(connect, server) as (connection, _received):
                await connection.send('{"req_id":"1","op":"ping"}')
        async with opened(connect, server) as (connection, _received):
            server.cut()
            await asyncio.wait_for(connection.ended, 10.0)

    await eventually(lambda: set(threading.enumerate()) <= before)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A TCP server that sends these bytes and closes, or sends nothing and stays open."""
    release = asyncio.Event()

    async def serve_peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if not answer:
            await release.wait()
        writer.close()

    server = await asyncio.start_server(serve_peer, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        release.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """A WebSocket server that answers nothing after the handshake, not even a close."""
    release = asyncio.Event()

    async def hang(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await release.wait()
        connection.transport.abort()

    async with serve(hang, "127.0.0.1", 0, ping_interval=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        release.set()
