"""A private line against the simulated exchange, on both WebSocket clients."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.line import Line, LineLimits, LineState
from hedgelock_ingest.bybit.socket_port import Connect
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.protocol.auth import websocket_authentication
from hedgelock_ingest.protocol.messages import decode
from hedgelock_ingest.protocol.private_messages import PRIVATE_CHANNELS
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.protocol.websocket_session import SessionTiming
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest_tests.bybit.recording_receiver import RecordingReceiver, eventually
from hedgelock_ingest_tests.sandbox.exchange_fixtures import running_exchange


@pytest.fixture(params=[websockets_client.open_connection, pybit_client.open_connection], ids=["websockets", "pybit"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Each of the two clients."""
    client: Connect = request.param
    return client


class _Key:
    """A key whose secret a test may change while the line runs."""

    def __init__(self, secret: str = KEYS["read-only"].api_secret, *, clock_ahead_s: float = 0.0) -> None:
        self.secret = secret
        self.clock_ahead_s = clock_ahead_s

    def authenticate(self) -> list[str | int]:
        now_ms = int((time.time() + self.clock_ahead_s) * 1000)
        return websocket_authentication(KEYS["read-only"].api_key, self.secret, now_ms)


@asynccontextmanager
async def a_private_line(
    exchange: SimulatedExchange,
    receiver: RecordingReceiver,
    key: _Key,
    connect: Connect,
    *,
    timing: SessionTiming | None = None,
) -> AsyncIterator[Line]:
    """Run a private line that reconnects fast."""
    line = Line(
        "private-a",
        PRIVATE_CHANNELS,
        receiver,
        url=exchange.private_ws_url,
        budget=ConnectionBudget(),
        limits=LineLimits(
            reconnect_initial_delay_s=0.02,
            reconnect_max_delay_s=0.1,
            close_timeout_s=0.5,
            timing=timing or SessionTiming(),
        ),
        clock=SystemClock(),
        random=Random(),
        connect=connect,
        authenticate=key.authenticate,
    )
    task = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        line.stop()
        await asyncio.wait_for(task, 10.0)


async def test_account_frames_arrive_after_the_key_was_accepted(connect: Connect) -> None:
    """A fill causes an order, execution, position and wallet frame, each of which can be decoded."""
    receiver = RecordingReceiver()
    async with running_exchange() as exchange, a_private_line(exchange, receiver, _Key(), connect):
        await eventually(lambda: len(receiver.details("confirmed")) == len(PRIVATE_CHANNELS))
        exchange.account.fill("BTCUSDT", "Buy", "0.01")
        await eventually(lambda: len(receiver.frames) >= 4)

    assert {decode(frame).topic for frame in receiver.frames} == set(PRIVATE_CHANNELS)  # type: ignore[union-attr]


async def test_refused_key_is_a_separate_state_and_is_tried_again(connect: Connect) -> None:
    """A wrong secret keeps the line down without harm, and a corrected one opens it."""
    receiver, key = RecordingReceiver(), _Key("wrong")
    async with running_exchange() as exchange, a_private_line(exchange, receiver, key, connect) as line:
        await eventually(lambda: line.status.state is LineState.REFUSED)
        assert line.status.last_cause == "auth_rejected"
        assert receiver.details("confirmed") == []
        key.secret = KEYS["read-only"].api_secret
        await eventually(lambda: len(receiver.details("confirmed")) == len(PRIVATE_CHANNELS))


async def test_clock_behind_is_refused_and_a_corrected_one_is_accepted(connect: Connect) -> None:
    """Bybit answers `Params Error` to an expiry that its clock has passed; its own time corrects that."""
    receiver, key = RecordingReceiver(), _Key()
    async with running_exchange() as exchange:
        exchange.shift_clock(10.0)
        async with a_private_line(exchange, receiver, key, connect) as line:
            await eventually(lambda: line.status.state is LineState.REFUSED)
            key.clock_ahead_s = 10.0
            await eventually(lambda: len(receiver.details("confirmed")) == len(PRIVATE_CHANNELS))


async def test_silent_account_keeps_its_line(connect: Connect) -> None:
    """An account may be silent for hours: pongs show that the line is live, and their absence ends it."""
    receiver = RecordingReceiver()
    timing = SessionTiming(ping_interval_s=0.05, pong_timeout_s=0.3, stale_after_s=0.1)
    async with (
        running_exchange() as exchange,
        a_private_line(exchange, receiver, _Key(), connect, timing=timing) as line,
    ):
        await eventually(lambda: len(receiver.details("confirmed")) == len(PRIVATE_CHANNELS))
        opened_s = time.monotonic()
        await eventually(lambda: time.monotonic() - opened_s > 1.0)
        assert line.status.reconnects == 0
        exchange.stop_answering_pings("private")
        await eventually(lambda: line.status.last_cause == "no_pong")


async def test_line_lost_before_its_subscriptions_reconnects(connect: Connect) -> None:
    """A line lost between authentication and subscription starts again from the beginning."""
    receiver = RecordingReceiver()
    async with running_exchange() as exchange:
        exchange.drop_after_auth(2)
        async with a_private_line(exchange, receiver, _Key(), connect) as line:
            await eventually(lambda: len(receiver.details("confirmed")) == len(PRIVATE_CHANNELS))
            assert line.status.reconnects == 2


async def test_line_paused_for_two_causes_waits_for_both(connect: Connect) -> None:
    """A journal that has room again must not open a line whose key is refused."""
    receiver = RecordingReceiver()
    async with running_exchange() as exchange, a_private_line(exchange, receiver, _Key(), connect) as line:
        await eventually(lambda: line.status.state is LineState.CONNECTED)
        line.pause()
        line.pause("key_refused")
        line.resume()
        await eventually(lambda: line.status.state is LineState.PAUSED)
        line.resume("key_refused")
        await eventually(lambda: line.status.state is LineState.CONNECTED)
