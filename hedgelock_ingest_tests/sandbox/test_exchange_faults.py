"""Each fault of the exchange, as a client sees it."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus

from hedgelock_ingest.errors import SandboxError
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest_tests.sandbox.exchange_fixtures import (
    Client,
    connected,
    eventually,
    exchange_process,
    running_exchange,
)

BOOK = "orderbook.50.BTCUSDT"
TRADES = "publicTrade.BTCUSDT"


def updates(client: Client) -> list[int]:
    return [message["data"]["u"] for message in client.data(BOOK)]


async def more(client: Client, channel: str = BOOK, by: int = 5) -> None:
    """Wait until more frames of a channel have been received."""
    count = len(client.data(channel))
    await eventually(lambda: len(client.data(channel)) >= count + by)


async def test_dropped_lines_end_without_a_close_frame() -> None:
    """They end with a TCP reset, and only the chosen lines do."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as first,
        connected(exchange.public_ws_url, "linear", BOOK) as second,
        connected(exchange.public_ws_url, "spot", BOOK) as spot,
    ):
        assert exchange.drop_lines("linear", nth=0) == 1
        await eventually(lambda: first.close_code == 1006)
        await more(second)
        assert exchange.drop_lines("linear") == 1
        await eventually(lambda: second.close_code == 1006)
        await more(spot)


@pytest.mark.parametrize("code", [1001, 1012])
async def test_lines_can_be_closed_with_a_code(code: int) -> None:
    """Bybit does so for maintenance."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.drop_lines(how="close", code=code)
        await eventually(lambda: client.close_code == code)
        await eventually(lambda: not exchange.lines.open)


async def test_new_connections_can_be_refused() -> None:
    """The refusal is a reset or an HTTP status; open lines stay open."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.refuse_connections()
        with pytest.raises((OSError, InvalidMessage)):
            async with connected(exchange.public_ws_url, "linear"):
                pass
        exchange.refuse_connections("403")
        with pytest.raises(InvalidStatus):
            async with connected(exchange.public_ws_url, "linear"):
                pass
        await more(client)
        exchange.accept_connections()
        async with connected(exchange.public_ws_url, "linear", BOOK) as second:
            await more(second)


async def test_more_than_the_allowed_connections_in_five_minutes_are_refused() -> None:
    """A client that reconnects in a tight loop is refused, as by Bybit."""
    async with running_exchange(connections_per_5_minutes=3) as exchange:
        for _ in range(3):
            async with connected(exchange.public_ws_url, "spot"):
                pass
        with pytest.raises(InvalidStatus):
            async with connected(exchange.public_ws_url, "spot"):
                pass


async def test_a_silent_line_still_answers_pings() -> None:
    """Only the lack of data shows that it is stale; the data it missed are a gap."""
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
        connected(exchange.public_ws_url, "linear", BOOK) as other,
    ):
        await more(client)
        exchange.go_silent("linear", nth=0)
        assert (await client.ask(op="ping"))["ret_msg"] == "pong"
        count = len(client.data(BOOK))
        await more(other, by=20)
        assert (await client.ask(op="ping"))["ret_msg"] == "pong"
        assert len(client.data(BOOK)) == count
        exchange.speak()
        await more(client)
        assert updates(client)[count] > updates(client)[count - 1] + 1


async def test_new_lines_can_be_silent_too() -> None:
    """A reconnect alone does not restore data then."""
    async with running_exchange(rate=500) as exchange:
        exchange.go_silent("linear", new_lines=True)
        async with connected(exchange.public_ws_url, "linear", BOOK) as client:
            await client.ask(op="ping")
            await asyncio.sleep(0.05)
            assert client.data(BOOK) == []
            exchange.speak("linear")
            await more(client)


async def test_pings_can_go_unanswered_while_data_flows() -> None:
    """Both Bybit's ping and that of the WebSocket protocol."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.stop_answering_pings()
        await client.send(op="ping")
        pong = asyncio.ensure_future(await client.socket.ping())
        await more(client, by=20)
        assert [reply["op"] for reply in client.replies] == ["subscribe"]
        assert not pong.done()
        exchange.answer_pings()
        assert (await client.ask(op="ping"))["ret_msg"] == "pong"
        await (await client.socket.ping())


async def test_frames_can_be_sent_twice() -> None:
    """The copies are equal byte for byte, one right after the other."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", TRADES) as client,
    ):
        exchange.duplicate_frames(channel=TRADES)
        begin = len(client.data(TRADES))
        await more(client, TRADES, by=20)
        frames = [json.dumps(message) for message in client.data(TRADES)][begin + 2 :]
        assert len(set(frames)) < len(frames)
        exchange.duplicate_frames(channel=TRADES, is_on=False)
        await client.ask(op="ping")
        begin = len(client.data(TRADES))
        await more(client, TRADES)
        fresh = [json.dumps(message) for message in client.data(TRADES)][begin:]
        assert len(set(fresh)) == len(fresh)


async def test_an_update_can_be_skipped_for_all_lines_or_for_one() -> None:
    """The update happened, but was not sent on any line, or not on one line."""
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as first,
        connected(exchange.public_ws_url, "linear", BOOK) as second,
    ):
        exchange.skip_update("linear", BOOK, nth=0)
        await more(first, by=20)
        await more(second, by=20)
        missed = set(range(updates(first)[0], updates(first)[-1])) - set(updates(first))
        assert len(missed) == 1
        assert missed <= set(updates(second))
        assert updates(second) == list(range(updates(second)[0], updates(second)[-1] + 1))
        exchange.skip_update("linear", BOOK, count=2)
        await more(second, by=20)
        found = updates(second)
        assert [later - earlier for earlier, later in itertools.pairwise(found) if later != earlier + 1] == [3]


async def test_a_book_can_restart_with_update_1() -> None:
    """A snapshot with `u` 1 comes amid deltas, then deltas from 2 on."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        assert exchange.restart_book("linear", BOOK) == 1
        await more(client, by=10)
        place = updates(client).index(1)
        assert client.data(BOOK)[place]["type"] == "snapshot"
        assert updates(client)[place : place + 3] == [1, 2, 3]
        again = exchange.resend_snapshot("linear", BOOK)
        await more(client, by=10)
        assert client.data(BOOK)[updates(client).index(again)]["type"] == "snapshot"


@pytest.mark.parametrize("kind", ["invalid_json", "truncated", "wrong_types", "unknown_topic", "not_an_object"])
async def test_malformed_text_comes_among_valid_frames(kind: str) -> None:
    """Valid frames continue after one malformed frame."""
    async with (
        running_exchange(rate=200, data_before_ack=0.0) as exchange,
        connected(exchange.public_ws_url, "linear", TRADES) as client,
    ):
        await more(client, TRADES)
        assert exchange.inject(kind, "linear", TRADES) == 1
        await more(client, TRADES, by=10)
        bad = [text for text in client.received if not is_good(text)]
        assert len(bad) == 1
        assert exchange.injected[-1]["kind"] == kind


def is_good(text: str | bytes) -> bool:
    try:
        message: Any = json.loads(text)
    except ValueError:
        return False
    if not isinstance(message, dict):
        return False
    is_trade = message.get("topic") == TRADES and isinstance(message.get("ts"), int)
    return is_trade or message.get("op") == "subscribe"


async def test_binary_empty_and_oversized_frames_arrive_complete() -> None:
    """The exchange sends them unchanged, whatever the client does with them."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", TRADES) as client,
    ):
        exchange.inject("binary", "linear", TRADES)
        exchange.inject("empty", "linear", TRADES)
        exchange.inject("oversized", "linear", TRADES, megabytes=3)
        await more(client, TRADES, by=10)
        assert any(isinstance(frame, bytes) for frame in client.received)
        assert "" in client.received
        assert max(len(frame) for frame in client.received) > 3 * 1024 * 1024
        exchange.inject("invalid_utf8", "linear", TRADES)
        await eventually(lambda: client.close_code is not None)


async def test_unknown_fields_come_in_otherwise_valid_frames() -> None:
    """Bybit adds fields several times a year."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.add_unknown_fields("linear", BOOK, count=3)
        await more(client, by=10)
        assert sum("madeUpField" in message for message in client.data(BOOK)) == 3
        assert updates(client) == list(range(updates(client)[0], updates(client)[-1] + 1))


async def test_acknowledgements_can_be_late_and_data_does_not_wait() -> None:
    """A client must not wait for them before it accepts data."""
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear") as client,
    ):
        exchange.delay_acks(0.3)
        await client.subscribe(BOOK)
        place = next(i for i, message in enumerate(client.messages) if message.get("op") == "subscribe")
        assert place > 20


async def test_a_subscription_can_be_refused_on_purpose() -> None:
    """The refusal lasts until the subscription is accepted again."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear") as client,
    ):
        exchange.reject_subscription(BOOK)
        reply = await client.subscribe(BOOK)
        assert (reply["success"], reply["ret_msg"]) == (False, f"error:handler not found,topic:{BOOK}")
        exchange.accept_subscription(BOOK)
        assert (await client.subscribe(BOOK))["success"]


async def test_a_slow_line_gets_everything_late() -> None:
    """Nothing is lost on it, and other lines are not affected."""
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as slow,
        connected(exchange.public_ws_url, "linear", BOOK) as quick,
    ):
        exchange.slow_down(20_000, "linear", nth=0)
        await more(quick, by=200)
        assert len(slow.data(BOOK)) < len(quick.data(BOOK)) / 2
        exchange.pause()
        exchange.speed_up()
        await eventually(lambda: updates(slow)[-1] == updates(quick)[-1])
        assert updates(slow) == list(range(updates(slow)[0], updates(slow)[-1] + 1))


async def test_a_line_that_does_not_read_is_reset() -> None:
    """The exchange keeps only a bounded amount of unsent frames."""
    async with (
        running_exchange(rate=2_000, unsent_bytes=100_000) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.slow_down(1_000)
        await eventually(lambda: client.close_code == 1006)
        await eventually(lambda: exchange.lines.closed)
        assert exchange.lines.closed[0].close_cause == "too much unsent"


async def test_a_stalled_send_stops_in_the_middle_of_a_frame_and_continues_there() -> None:
    """The client has half a frame; not even a pong is sent until the exchange continues."""
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
        connected(exchange.public_ws_url, "linear", BOOK) as other,
    ):
        exchange.stall("linear", nth=0)
        await more(other, by=20)  # by then what was under way has been read
        count = len(client.received)
        await client.send(op="ping")
        await more(other, by=50)
        assert len(client.received) == count
        exchange.unstall()
        await eventually(lambda: updates(client)[-1:] >= updates(other)[-1:])
        assert updates(client) == list(range(updates(client)[0], updates(client)[-1] + 1))
        await eventually(lambda: client.replies[-1]["ret_msg"] == "pong")


async def test_one_order_can_fill_thousands_of_trades_at_once() -> None:
    """More than 1,024 trades take several frames."""
    async with (
        running_exchange(rate=0) as exchange,
        connected(exchange.public_ws_url, "linear", TRADES) as client,
    ):
        assert exchange.sweep("linear", TRADES, 1_500) == 2
        await eventually(lambda: len(client.data(TRADES)) == 2)


async def test_a_jump_of_the_price_reaches_the_book() -> None:
    """A falling price raises a loan's LTV."""
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", "orderbook.1.BTCUSDT") as client,
    ):
        await more(client, "orderbook.1.BTCUSDT")
        before = float(client.data("orderbook.1.BTCUSDT")[0]["data"]["b"][0][0])
        exchange.move_price("BTCUSDT", 0.8)
        await eventually(
            lambda: float(client.data("orderbook.1.BTCUSDT")[-1]["data"]["b"][0][0]) < before * 0.81, timeout_s=5
        )


async def test_a_fault_on_a_channel_that_does_not_exist_is_an_error() -> None:
    """A misspelt fault must not look like one that had no effect."""
    async with running_exchange() as exchange:
        with pytest.raises(SandboxError):
            exchange.skip_update("linear", "orderbook.50.NOPE")
        with pytest.raises(SandboxError):
            exchange.inject("rotten", "linear")


async def test_faults_can_be_switched_from_another_process() -> None:
    """A fault is given by name and arguments over HTTP; a wrong name or argument is an error."""
    async with (
        exchange_process(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        assert await exchange.fault("restart_book", category="linear", channel=BOOK) == 1
        await eventually(lambda: 1 in updates(client))
        assert await exchange.fault("drop_lines", category="linear", nth=0) == 1
        await eventually(lambda: client.close_code == 1006)
        for wrong in ({"name": "no_such_fault"}, {"name": "drop_lines", "colour": 3}, {"name": "_channel"}):
            with pytest.raises(ValueError, match=r"no fault|Unexpected"):
                await exchange.fault(**wrong)
        async with aiohttp.ClientSession() as session, session.get(f"{exchange.rest_url}/sandbox/state") as answer:
            assert (await answer.json())["closed"][0]["close_cause"] == "dropped"


async def test_faults_are_listed_with_their_arguments() -> None:
    """Who has no source finds them; methods that only answer are none."""
    async with (
        running_exchange() as exchange,
        aiohttp.ClientSession() as session,
        session.get(f"{exchange.rest_url}/sandbox/faults") as answer,
    ):
        faults = (await answer.json())["faults"]
    assert faults["drop_lines"]["arguments"].startswith("(category: str | None = None, nth: int | None = None")
    assert "TCP reset" in faults["drop_lines"]["description"]
    assert not {"now_ms", "sent", "start", "stop"} & faults.keys()


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("faults", "drop_lines", 'the body is not JSON; expected an object such as {"fault": '),
        ("faults", b"\xff", "the body is not JSON"),
        ("faults", "[1]", "the body is no JSON object"),
        ("faults", '{"fault":"nope"}', "no fault is called 'nope'; there are accept_connections, accept_subscription"),
        ("faults", '{"fault":["x"]}', "no fault is called ['x']; there are"),
        ("faults", '{"fault":"now_ms"}', "no fault is called 'now_ms'"),
        ("faults", '{"fault":"drop_lines","category":"liner"}', "'liner'; there are spot, linear, private"),
        ("faults", '{"fault":"duplicate_frames","category":"liner"}', "'liner'; there are spot, linear"),
        ("faults", '{"fault":"go_silent","category":"liner","new_lines":true}', "'liner'; there are spot"),
        ("faults", '{"fault":"drop_lines","nth":"first"}', "nth: Input should be a valid integer"),
        ("faults", '{"fault":"drop_lines","how":"hard"}', "how: Input should be 'reset' or 'close'"),
        ("faults", '{"fault":"drop_lines","colour":3}', "colour: Unexpected keyword argument"),
        ("faults", '{"fault":"slow_down"}', "bytes_per_s: Missing required argument; expected slow_down(bytes_per_s"),
        ("faults", '{"fault":"slow_down","bytes_per_s":"x"}', "bytes_per_s: Input should be a valid number"),
        ("faults", '{"fault":"refuse_connections","how":"never"}', "expected reset, or a status from 400 to 599"),
        ("account", "deposit", "the body is not JSON"),
        ("account", '{"action":"nope"}', "no action is called 'nope'; there are place_order"),
        ("account", '{"action":"deposit","coin":"USDT","amount":"much"}', "'much' is not an amount"),
    ],
)
async def test_wrong_fault_is_refused_with_what_is_allowed(
    exchange_of_mistakes: SimulatedExchange, path: str, body: str | bytes, expected: str
) -> None:
    """A misspelt fault must not look like one that had no effect, nor be a failure of the exchange."""
    address = f"{exchange_of_mistakes.rest_url}/sandbox/{path}"
    async with aiohttp.ClientSession() as session, session.post(address, data=body) as answer:
        assert (answer.status, expected in (text := await answer.text())) == (400, True), text
    assert exchange_of_mistakes.lines.refuses is None
    assert not exchange_of_mistakes.lines.silent_kinds


@pytest.mark.parametrize(
    "path", ["account?since_ms=x", "ledger?category=linear&channel=publicTrade.BTCUSDT&since_ms=x"]
)
async def test_wrong_time_in_a_query_is_refused(exchange_of_mistakes: SimulatedExchange, path: str) -> None:
    """It is the caller's mistake, not a failure of the exchange."""
    exchange_of_mistakes.publish("linear", "publicTrade.BTCUSDT")
    address = f"{exchange_of_mistakes.rest_url}/sandbox/{path}"
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        assert (answer.status, "since_ms='x' is no whole number" in await answer.text()) == (400, True)


@pytest.fixture
async def exchange_of_mistakes() -> AsyncIterator[SimulatedExchange]:
    """Run an exchange that sends nothing by itself."""
    async with running_exchange(rate=0) as exchange:
        yield exchange
