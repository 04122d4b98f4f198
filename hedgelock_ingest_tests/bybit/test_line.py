"""A line against the simulated exchange, on both WebSocket clients."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from hedgelock_ingest.bybit import pybit_client, websockets_client
from hedgelock_ingest.bybit.line import Line, LineLimits, LineState
from hedgelock_ingest.bybit.socket_port import Connect
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.protocol import messages
from hedgelock_ingest.protocol.channels import channels_for
from hedgelock_ingest.protocol.frames import Category
from hedgelock_ingest.protocol.line_events import LineKey
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.protocol.silence import Replaced, Silence
from hedgelock_ingest.protocol.websocket_session import SessionTiming
from hedgelock_ingest.sandbox.exchange import Scenario, SimulatedExchange
from hedgelock_ingest_tests.bybit.recording_receiver import RecordingReceiver, eventually
from hedgelock_ingest_tests.bybit.scripted_server import scripted_server

LINEAR = channels_for(Category.LINEAR, ["BTCUSDT"], ["tickers", "publicTrade", "orderbook.50"])
TRADES = "publicTrade.BTCUSDT"
FAST = {"reconnect_initial_delay_s": 0.02, "reconnect_max_delay_s": 0.1, "close_timeout_s": 0.5}


@pytest.fixture(params=[websockets_client.open_connection, pybit_client.open_connection], ids=["websockets", "pybit"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Each of the two clients."""
    client: Connect = request.param
    return client


@pytest.fixture
async def exchange() -> AsyncIterator[SimulatedExchange]:
    """An exchange with an active market."""
    async with SimulatedExchange(Scenario(rate=500)) as exchange:
        yield exchange


def a_line(
    url: str,
    receiver: RecordingReceiver,
    channels: Sequence[str] = LINEAR,
    *,
    budget: ConnectionBudget | None = None,
    connect: Connect = websockets_client.open_connection,
    silence: Silence | None = None,
    **limits: Any,
) -> Line:
    """A line that reconnects fast."""
    return Line(
        "linear-a",
        channels,
        receiver,
        url=url,
        budget=budget or ConnectionBudget(),
        limits=LineLimits(**(FAST | limits)),
        clock=SystemClock(),
        random=Random(),
        connect=connect,
        silence=silence,
    )


@asynccontextmanager
async def running(line: Line) -> AsyncIterator[Line]:
    """Run the line; the test fails if it ends early."""
    task = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        line.stop()
        await asyncio.wait_for(task, 10.0)


@asynccontextmanager
async def a_running_line(
    exchange: SimulatedExchange, connect: Connect, channels: Sequence[str] = LINEAR, **limits: Any
) -> AsyncIterator[tuple[Line, RecordingReceiver]]:
    """A line that runs on the exchange, connected and confirmed."""
    receiver = RecordingReceiver()
    url = f"{exchange.public_ws_url}/linear"
    async with running(a_line(url, receiver, channels, connect=connect, **limits)) as line:
        await eventually(lambda: len(receiver.details("confirmed")) == len(channels))
        yield line, receiver


@pytest.mark.parametrize("category", list(Category))
async def test_every_channel_delivers_data(category: Category, connect: Connect) -> None:
    """All feeds of both categories arrive and can be decoded, acknowledgements reach the session."""
    channels = channels_for(category, ["BTCUSDT"], ["tickers", "publicTrade", "orderbook.50", "allLiquidation"])
    receiver = RecordingReceiver()
    async with SimulatedExchange(Scenario(rate=500, liquidations_per_s=100)) as exchange:
        line = a_line(f"{exchange.public_ws_url}/{category}", receiver, channels, connect=connect)
        async with running(line):
            await eventually(lambda: {frame_topic(raw) for raw in receiver.frames} == set(channels))
            await eventually(lambda: set(receiver.details("confirmed")) == set(channels))

            assert line.status.state is LineState.CONNECTED
            assert line.status.frames > len(channels)


async def test_refused_channel_is_reported_and_the_others_flow(exchange: SimulatedExchange, connect: Connect) -> None:
    """One wrong symbol must not stop the others, nor the connection."""
    exchange.reject_subscription("tickers.ETHUSDT")
    receiver = RecordingReceiver()
    channels = ["tickers.ETHUSDT", "tickers.BTCUSDT"]
    line = a_line(f"{exchange.public_ws_url}/linear", receiver, channels, connect=connect)
    async with running(line):
        await eventually(lambda: receiver.details("rejected") and receiver.frames)

        assert line.status.generation == 1
    assert receiver.details("rejected") == ["tickers.ETHUSDT error:handler not found,topic:tickers.ETHUSDT"]


async def test_late_acknowledgement_does_not_hold_back_data(exchange: SimulatedExchange, connect: Connect) -> None:
    """Bybit may send data before the acknowledgement."""
    exchange.delay_acks(30.0)
    receiver = RecordingReceiver()
    async with running(a_line(f"{exchange.public_ws_url}/linear", receiver, connect=connect)):
        await eventually(lambda: len(receiver.frames) > 20)

        assert receiver.details("confirmed") == []


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_dropped_line_reconnects(exchange: SimulatedExchange, connect: Connect, how: Any) -> None:
    """Bybit may disconnect at any time; the channels are subscribed again."""
    async with a_running_line(exchange, connect) as (line, receiver):
        exchange.drop_lines(how=how)

        await eventually(lambda: len(receiver.details("confirmed")) == 2 * len(LINEAR))
        expected = {"reset": "connection_lost", "close": "closed_by_exchange"}[how]
        assert receiver.details("closed") == [expected]
        assert line.status.last_cause == expected
        assert line.status.reconnects == 1


SILENT = SessionTiming(stale_after_s=0.4, ping_interval_s=0.1)


async def test_silent_line_is_replaced_as_stale_where_others_bring_data(
    exchange: SimulatedExchange, connect: Connect
) -> None:
    """Pongs still come, so only the missing data shows it; the successor opens first."""
    async with a_running_line(exchange, connect, timing=SILENT, look_s=0.05, lag_s=0.1) as (line, receiver):
        receiver.joined = False
        receiver.behind = True
        exchange.go_silent()

        await eventually(lambda: receiver.details("closed") == ["stale"])
        kinds = [(kind, key.generation) for kind, key, _ in receiver.events if kind in ("opened", "closed")]
        assert kinds == [("opened", 1), ("opened", 2), ("closed", 1)]
        assert (line.status.reconnects, line.status.last_cause, line.status.attempts) == (1, "stale", 0)


async def test_line_of_a_quiet_market_hands_over(exchange: SimulatedExchange, connect: Connect) -> None:
    """Its successor is open before it is closed, and silence is no reason to wait longer before a reconnect."""
    exchange.set_rate(0)
    async with a_running_line(exchange, connect, timing=SILENT, look_s=0.05) as (line, receiver):
        await eventually(lambda: line.status.rotations == 1)

        assert receiver.details("closed") == ["rotated"]
        assert (line.status.reconnects, line.status.attempts) == (0, 0)


@pytest.mark.parametrize("end", [Line.stop, Line.pause])
async def test_line_that_ends_is_not_reported_as_silent(
    exchange: SimulatedExchange, end: Callable[[Line], None]
) -> None:
    """It was silent, and its replacement was due at its next look."""
    exchange.set_rate(0)
    receiver, silence = RecordingReceiver(), Silence(SILENT.stale_after_s)
    line = a_line(f"{exchange.public_ws_url}/linear", receiver, timing=SILENT, look_s=60.0, silence=silence)
    silence.begin()
    with capture_logs() as logs:
        async with running(line):
            await eventually(lambda: len(receiver.details("confirmed")) == len(LINEAR))
            await eventually(lambda: time.time_ns() - (line.status.last_data_ns or 0) > 1.1e9 * SILENT.stale_after_s)
            silence.end(Replaced.WAS_BEHIND, time.monotonic())
            end(line)
            await eventually(lambda: receiver.details("closed"))

    assert "line_connected" in [log["event"] for log in logs]
    assert "line_silent" not in [log["event"] for log in logs]


async def test_line_without_data_and_pongs_is_lost(connect: Connect) -> None:
    """It is half open: another connection must be opened at once."""
    receiver = RecordingReceiver()
    async with scripted_server() as server:
        line = a_line(server.url, receiver, connect=connect, timing=SILENT)
        async with running(line):
            await eventually(lambda: len(receiver.details("confirmed")) == len(LINEAR))
            server.answers = False

            await eventually(lambda: receiver.details("closed")[:1] in (["stale"], ["no_pong"]))
            await eventually(lambda: line.status.reconnects == 1)


async def test_line_without_pongs_is_replaced(exchange: SimulatedExchange, connect: Connect) -> None:
    """Data still arrives, but Bybit no longer answers."""
    timing = SessionTiming(ping_interval_s=0.2, pong_timeout_s=0.2)
    async with a_running_line(exchange, connect, timing=timing) as (_, receiver):
        exchange.stop_answering_pings()

        await eventually(lambda: len(receiver.details("opened")) == 2)
        assert receiver.details("closed") == ["no_pong"]


async def test_pongs_keep_a_quiet_line(exchange: SimulatedExchange, connect: Connect) -> None:
    """Trades may pause for long; only pongs arrive then."""
    exchange.set_rate(0)
    timing = SessionTiming(ping_interval_s=0.1, pong_timeout_s=5.0, stale_after_s=0.2)
    async with a_running_line(exchange, connect, [TRADES], timing=timing) as (line, receiver):
        await asyncio.sleep(0.8)

        assert line.status.generation == 1
        assert receiver.details("closed") == []


async def test_malformed_frames_pass_and_the_line_stays_open(exchange: SimulatedExchange, connect: Connect) -> None:
    """Frames that cannot be decoded become dead letters; the line carries them like any other."""
    kinds = ["invalid_json", "wrong_types", "unknown_topic", "binary", "invalid_utf8", "oversized", "empty"]
    async with a_running_line(exchange, connect) as (line, receiver):
        for kind in kinds:
            exchange.inject(kind, "linear")
        before = len(receiver.frames)

        await eventually(lambda: len(receiver.frames) > before + len(kinds) + 10)
        assert sum(not is_understood(raw) for raw in receiver.frames) == len(kinds)
        assert line.status.generation == 1


async def test_line_waits_for_an_exchange_that_refuses(exchange: SimulatedExchange, connect: Connect) -> None:
    """The exchange may be unavailable for hours; attempts continue with backoff until it answers."""
    async with a_running_line(exchange, connect) as (line, receiver):
        exchange.refuse_connections("503")
        exchange.drop_lines()
        await eventually(lambda: line.status.attempts >= 4)
        assert line.status.state in (LineState.WAITING, LineState.CONNECTING)
        assert line.status.last_cause == "connect_rejected"

        exchange.accept_connections()

        await eventually(lambda: len(receiver.details("opened")) == 2)


async def test_line_starts_before_its_exchange(connect: Connect) -> None:
    """The order of starts does not matter."""
    async with scripted_server() as server:
        url, port = server.url, int(server.url.split(":")[2].split("/")[0])
    receiver = RecordingReceiver()
    async with running(a_line(url, receiver, connect=connect)) as line:
        await eventually(lambda: line.status.attempts >= 2)
        assert line.status.last_cause == "connect_refused"
        async with scripted_server(port):
            await eventually(lambda: receiver.details("confirmed"))


async def test_line_that_cannot_open_in_time_retries(connect: Connect) -> None:
    """A server that accepts the connection and sends nothing would block the line forever."""

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        writer.transport.abort()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    receiver = RecordingReceiver()
    async with running(a_line(f"ws://127.0.0.1:{port}", receiver, connect=connect, open_timeout_s=0.1)) as line:
        await eventually(lambda: line.status.generation >= 2)

        assert line.status.last_cause == "connect_timeout"
    server.close()
    assert receiver.events == []


async def test_resubscription_delivers_a_new_snapshot(exchange: SimulatedExchange, connect: Connect) -> None:
    """After a skipped update a book is unusable until its next snapshot."""
    book = "orderbook.50.BTCUSDT"
    async with a_running_line(exchange, connect, [book]) as (line, receiver):
        await eventually(lambda: len(snapshots(receiver.frames)) == 1)

        receiver.resubscribe[LineKey("linear-a", 1)](book)

        await eventually(lambda: len(snapshots(receiver.frames)) == 2)
        assert line.status.generation == 1


async def test_every_connection_is_opened_then_read_then_closed(exchange: SimulatedExchange, connect: Connect) -> None:
    """The receiver keeps state for each connection and relies on that order."""
    async with a_running_line(exchange, connect) as (_, receiver):
        for round_number in range(2, 5):
            exchange.drop_lines()
            await eventually(lambda wanted=round_number: len(receiver.details("opened")) == wanted)  # type: ignore[misc]
            await eventually(lambda: receiver.frames_by_line.get(last_opened(receiver)))

    for generation in range(1, 5):
        kinds = [kind for kind, key, _ in receiver.events if key == LineKey("linear-a", generation)]
        assert kinds[0] == "opened"
        assert kinds[-1] == "closed"
        assert kinds.count("closed") == kinds.count("opened") == 1
    assert receiver.out_of_turn == []


async def test_rotation_opens_the_successor_before_it_closes(exchange: SimulatedExchange, connect: Connect) -> None:
    """A planned replacement must not cost a frame, even with a single line."""
    async with a_running_line(exchange, connect, [TRADES], rotate_after_s=0.3) as (line, receiver):
        await eventually(lambda: line.status.rotations >= 2)
        await eventually(lambda: line.status.state is LineState.CONNECTED)
        # Before the stop: a successor that opens during it may deliver frames without a predecessor.
        received = trade_ids(receiver.frames)

    kinds = [(kind, key.generation) for kind, key, _ in receiver.events if kind in ("opened", "closed")]
    assert kinds.index(("opened", 2)) < kinds.index(("closed", 1))
    assert kinds.index(("opened", 3)) < kinds.index(("closed", 2))
    assert set(receiver.details("closed")) == {"rotated", "stopped"}
    assert line.status.reconnects == 0
    published = [
        identity for _, _, identities in exchange.ledger.open("linear", TRADES).events() for identity in identities
    ]
    places = sorted(map(published.index, set(received)))
    assert places == list(range(places[0], places[-1] + 1))


async def test_old_connection_stays_until_the_new_one_has_joined(exchange: SimulatedExchange, connect: Connect) -> None:
    """Only the receiver knows when the new one's frames have caught up."""
    async with a_running_line(exchange, connect, rotate_after_s=0.2) as (line, receiver):
        receiver.joined = False
        await eventually(lambda: len(receiver.details("opened")) == 2)
        await eventually(lambda: len(receiver.details("confirmed")) == 2 * len(LINEAR))
        assert receiver.details("closed") == []

        receiver.joined = True

        await eventually(lambda: receiver.details("closed")[:1] == ["rotated"])
        assert line.status.state is LineState.CONNECTED


async def test_rotation_has_a_timeout(exchange: SimulatedExchange, connect: Connect) -> None:
    """A quiet channel never catches up; the old connection is closed all the same."""
    receiver = RecordingReceiver()
    receiver.joined = False
    line = a_line(f"{exchange.public_ws_url}/linear", receiver, connect=connect, rotate_after_s=0.2, join_timeout_s=0.2)
    async with running(line):
        await eventually(lambda: receiver.details("closed")[:1] == ["rotated"])


async def test_rotation_of_a_quiet_line_pings_the_old_connection(connect: Connect) -> None:
    """Where no trade comes, its pong alone proves that the old one has brought what it had."""
    receiver = RecordingReceiver()
    receiver.joined = False
    async with scripted_server() as server:
        line = a_line(server.url, receiver, [TRADES], connect=connect, rotate_after_s=0.2, join_timeout_s=2.0)
        async with running(line):
            await eventually(lambda: server.pinged)
            assert (server.pinged, receiver.details("closed")) == ([1], [])

            receiver.joined = True

            await eventually(lambda: receiver.details("closed")[:1] == ["rotated"])


async def test_failed_rotation_keeps_the_old_connection(exchange: SimulatedExchange, connect: Connect) -> None:
    """An old connection is better than none."""
    async with a_running_line(exchange, connect, rotate_after_s=0.3) as (line, receiver):
        exchange.refuse_connections("503")
        await eventually(lambda: line.status.generation >= 3)
        assert receiver.details("closed") == []
        assert line.status.state is LineState.CONNECTED

        exchange.accept_connections()

        await eventually(lambda: line.status.rotations >= 1)


async def test_connection_lost_during_its_rotation_is_replaced_by_the_successor(
    exchange: SimulatedExchange, connect: Connect
) -> None:
    """Two connections are open then, and either may be lost."""
    async with a_running_line(exchange, connect, rotate_after_s=0.3) as (line, receiver):
        receiver.joined = False
        await eventually(lambda: len(receiver.details("opened")) == 2)
        exchange.drop_lines(nth=0)
        await eventually(lambda: receiver.details("closed") == ["connection_lost"])
        before = len(receiver.frames)

        await eventually(lambda: len(receiver.frames) > before)
        assert line.status.state is LineState.CONNECTED
        assert line.status.generation == 2


async def test_paused_line_delivers_nothing_until_resumed(exchange: SimulatedExchange, connect: Connect) -> None:
    """The journal is full: a frame that arrives now could not be kept."""
    async with a_running_line(exchange, connect) as (line, receiver):
        line.pause()
        before = len(receiver.frames)
        await eventually(lambda: line.status.state is LineState.PAUSED)
        assert len(receiver.frames) == before
        assert receiver.details("closed") == ["paused"]

        line.resume()

        await eventually(lambda: len(receiver.frames) > before)


async def test_line_paused_before_it_runs_stays_closed(exchange: SimulatedExchange) -> None:
    """A start with a full journal opens nothing."""
    receiver = RecordingReceiver()
    line = a_line(f"{exchange.public_ws_url}/linear", receiver)
    line.pause()
    async with running(line):
        await eventually(lambda: line.status.state is LineState.PAUSED)
        assert receiver.events == []

        line.resume()

        await eventually(lambda: receiver.details("opened"))


async def test_stop_ends_the_run_while_connecting_waiting_or_paused(connect: Connect) -> None:
    """A stop never waits for the exchange."""
    async with scripted_server() as server:
        url = server.url
    line = a_line(url, RecordingReceiver(), connect=connect, reconnect_initial_delay_s=60.0, reconnect_max_delay_s=60.0)
    begun = time.monotonic()

    async with running(line):
        await eventually(lambda: line.status.attempts == 1)

    assert time.monotonic() - begun < 30.0
    assert line.status.state is LineState.STOPPED


async def test_stop_keeps_its_deadline_on_a_stalled_line(exchange: SimulatedExchange, connect: Connect) -> None:
    """The exchange stops within a frame and does not answer a close."""
    async with a_running_line(exchange, connect, close_timeout_s=0.2) as (line, _):
        exchange.stall()
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        line.stop()
        await eventually(lambda: line.status.state is LineState.STOPPED)

        assert time.monotonic() - begun < 8.0


async def test_cancelled_line_closes_its_connection(exchange: SimulatedExchange, connect: Connect) -> None:
    """The owner of the task may cancel it; the receiver is still notified, and no thread remains."""
    before = set(threading.enumerate())
    receiver = RecordingReceiver()
    line = a_line(f"{exchange.public_ws_url}/linear", receiver, connect=connect)
    task = asyncio.create_task(line.run())
    await eventually(lambda: receiver.frames)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert receiver.details("closed") == ["stopped"]
    await eventually(lambda: exchange.lines.select() == [])
    await eventually(lambda: set(threading.enumerate()) <= before)


async def test_failure_of_the_receiver_ends_the_run(exchange: SimulatedExchange, connect: Connect) -> None:
    """A frame that could not be accepted must not be lost silently."""
    receiver = RecordingReceiver()
    receiver.failure = ZeroDivisionError("a bug")
    line = a_line(f"{exchange.public_ws_url}/linear", receiver, connect=connect)

    with pytest.RaisesGroup(ZeroDivisionError):
        await asyncio.wait_for(line.run(), 10.0)

    assert receiver.details("closed") == ["receiver_failed"]


async def test_spent_budget_delays_the_next_connection(exchange: SimulatedExchange) -> None:
    """Bybit bans an address that opens too many, whichever line they belong to."""
    budget = ConnectionBudget(limit=1, window_s=0.5)
    first, second = RecordingReceiver(), RecordingReceiver()
    url = f"{exchange.public_ws_url}/linear"
    begun = time.monotonic()
    async with (
        running(a_line(url, first, budget=budget)),
        running(a_line(url, second, budget=budget)),
    ):
        await eventually(lambda: first.details("opened") and second.details("opened"))

    assert time.monotonic() - begun >= 0.45


def frame_topic(raw: bytes) -> str:
    """The channel that a frame names."""
    message = messages.decode(raw)
    assert not isinstance(message, messages.Control)
    return message.topic


def is_understood(raw: bytes) -> bool:
    """Whether a frame can be decoded."""
    try:
        messages.decode(raw)
    except FrameError:
        return False
    return True


def snapshots(frames: list[bytes]) -> list[messages.BookMessage]:
    """The snapshots of books among frames."""
    decoded = [messages.decode(raw) for raw in frames]
    return [each for each in decoded if isinstance(each, messages.BookMessage) and each.type == "snapshot"]


def trade_ids(frames: list[bytes]) -> list[str]:
    """The ids of all trades in frames."""
    decoded = [messages.decode(raw) for raw in frames]
    return [row.i for each in decoded if isinstance(each, messages.TradesMessage) for row in each.data]


def last_opened(receiver: RecordingReceiver) -> LineKey:
    """The connection that was opened last."""
    return [key for kind, key, _ in receiver.events if kind == "opened"][-1]
