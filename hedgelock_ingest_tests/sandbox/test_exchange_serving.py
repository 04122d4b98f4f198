"""The exchange as a process, and its imports."""

import ast
import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

import hedgelock_ingest.sandbox.exchange as package
from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest_tests.sandbox.exchange_fixtures import connected, eventually, running_exchange

BOOK = "orderbook.50.BTCUSDT"
HANDSHAKE = (
    b"GET /v5/public/spot HTTP/1.1\r\nHost: sandbox\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_prints_its_addresses_and_ends_cleanly(number: int) -> None:
    """It prints one line of JSON on stdout when it is ready, closes lines with a close frame, and exits with 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hedgelock_ingest.sandbox.exchange", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    addresses = json.loads(await process.stdout.readline())
    assert set(addresses) == {"public_ws_url", "private_ws_url", "rest_url", "pid"}
    assert addresses["pid"] == process.pid
    async with connected(addresses["public_ws_url"], "spot", "tickers.BTCUSDT") as client:
        process.send_signal(number)
        await eventually(lambda: client.close_code == 1001)
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    assert await process.stdout.read() == b""


async def test_a_taken_port_is_an_error_of_the_sandbox() -> None:
    """The message names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError, match=str(port)):
            async with running_exchange(port=port):
                pass


async def test_two_exchanges_run_side_by_side() -> None:
    """Each has its own port and markets."""
    async with running_exchange() as first, running_exchange() as second:
        assert first.port != second.port
        async with connected(first.public_ws_url, "spot", "publicTrade.BTCUSDT"):
            assert len(second.channels) == 0


async def test_a_stopped_exchange_continues_when_it_is_started_again() -> None:
    """It has the same port and markets, as Bybit does after an outage."""
    async with running_exchange(rate=500) as exchange:
        port = exchange.port
        async with connected(exchange.public_ws_url, "linear", BOOK) as client:
            await eventually(lambda: len(client.data(BOOK)) > 5)
            await exchange.stop()
            await eventually(lambda: client.close_code == 1001)
        with pytest.raises(OSError, match="Connect"):
            async with connected(exchange.public_ws_url, "linear"):
                pass
        await exchange.start()
        assert exchange.port == port
        async with connected(exchange.public_ws_url, "linear", BOOK) as again:
            await eventually(lambda: len(again.data(BOOK)) > 5)
            assert again.data(BOOK)[0]["data"]["u"] >= client.data(BOOK)[-1]["data"]["u"]


@pytest.mark.parametrize("is_refused", [False, True], ids=["dropped", "refused"])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_dropped_line_is_reset_and_not_closed(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], is_refused: bool
) -> None:
    """A client gets ECONNRESET, as with a broken route, on any event loop."""

    async def scenario() -> None:
        async with running_exchange() as exchange:
            if is_refused:
                exchange.refuse_connections()
            reader, writer = await asyncio.open_connection("127.0.0.1", exchange.port)
            writer.write(HANDSHAKE)
            if not is_refused:
                await reader.readuntil(b"\r\n\r\n")
                exchange.drop_lines()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


def test_the_exchange_shares_nothing_with_the_product_but_its_errors() -> None:
    """One mistake in a shared decoder would go unnoticed on both sides."""
    imported = set()
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    ours = {name for name in imported if name.startswith("hedgelock_ingest")}
    foreign = {name for name in ours if not name.startswith("hedgelock_ingest.sandbox.exchange")}
    assert foreign == {"hedgelock_ingest.errors"}
