"""The private socket: authentication, answers and the delivery of frames."""

import asyncio
from typing import Any

import pytest

from hedgelock_ingest.sandbox.exchange import KEYS, SimulatedExchange
from hedgelock_ingest_tests.sandbox.account_fixtures import (
    PRIVATE_CHANNELS,
    auth_request,
    private_line,
    samples,
    settled,
)
from hedgelock_ingest_tests.sandbox.exchange_fixtures import Client, connected, eventually, running_exchange


def base(exchange: SimulatedExchange) -> str:
    """Return the address to which `private` is appended."""
    return exchange.private_ws_url.removesuffix("/private")


async def test_answers_have_the_shapes_of_recorded_ones() -> None:
    """The keys and their order are the same, with the request's id first."""
    auth, subscribed = samples("")
    async with (
        running_exchange() as exchange,
        connected(base(exchange), "private") as client,
    ):
        answer = await client.ask(**auth_request(exchange, KEYS["read-only"]))
        assert list(answer) == list(auth)
        assert {**answer, "req_id": "", "conn_id": ""} == {**auth, "req_id": "", "conn_id": ""}
        answer = await client.subscribe("wallet")
        assert {**answer, "req_id": "", "conn_id": ""} == {**subscribed, "req_id": "", "conn_id": ""}
        assert "req_id" not in await client.ask(op="subscribe", args=["order"])


async def test_a_pong_names_its_time_and_comes_before_authentication_too() -> None:
    """The private shape has pong where the public ones have ping."""
    async with (
        running_exchange() as exchange,
        connected(base(exchange), "private") as client,
    ):
        pong = await client.ask(op="ping", req_id="test")
        assert list(pong) == ["req_id", "op", "args", "conn_id"]
        assert (pong["req_id"], pong["op"]) == ("test", "pong")
        assert abs(int(pong["args"][0]) - exchange.now_ms()) < 1_000
        assert len(pong["conn_id"].split("-")[0]) == 20


def forged(request: dict[str, Any]) -> dict[str, Any]:
    return {**request, "args": [*request["args"][:2], "0" * 64]}


def unknown(request: dict[str, Any]) -> dict[str, Any]:
    return {**request, "args": ["unknown", *request["args"][1:]]}


@pytest.mark.parametrize(
    ("key", "ahead_ms", "change", "ret_msg"),
    [
        ("read-only", -1, None, "Params Error"),
        ("read-only", 5_000, forged, "Error sign"),
        ("read-only", 5_000, unknown, "API key is invalid"),
        ("expired", 5_000, None, "expired"),
        ("ip-bound", 5_000, None, "Unmatched IP"),
    ],
)
async def test_a_wrong_authentication_is_refused_and_can_be_repeated(
    key: str, ahead_ms: int, change: Any, ret_msg: str
) -> None:
    """The line stays open without subscriptions, and a valid request authenticates it later."""
    async with (
        running_exchange() as exchange,
        connected(base(exchange), "private") as client,
    ):
        request = auth_request(exchange, KEYS[key], ahead_ms=ahead_ms)
        refused = await client.ask(**(change(request) if change else request))
        assert (refused["success"], refused["op"]) == (False, "auth")
        assert ret_msg in refused["ret_msg"]
        early = await client.subscribe("wallet")
        assert (early["success"], early["ret_msg"]) == (False, "error:topic:wallet needs auth first")
        assert (await client.ask(**auth_request(exchange, KEYS["read-only"])))["success"]
        assert (await client.subscribe("wallet"))["success"]


@pytest.mark.parametrize("args", [[], ["key", "soon", "signature"], "key"])
async def test_a_malformed_authentication_is_a_params_error(args: Any) -> None:
    """The same holds for an `expires` in the past."""
    async with (
        running_exchange() as exchange,
        connected(base(exchange), "private") as client,
    ):
        assert (await client.ask(op="auth", args=args))["ret_msg"] == "Params Error"


@pytest.mark.parametrize(
    "channels",
    [("weather",), ("wallet.linear",), ("orderbook.50.BTCUSDT",), ("order", "order.linear"), ("position", "order")],
)
async def test_a_request_with_one_wrong_channel_is_refused_completely(channels: tuple[str, ...]) -> None:
    """Cases: unknown channels, a topic with one of its categories, and one that the line has already."""
    async with running_exchange() as exchange, private_line(exchange, "order") as client:
        answer = await client.ask(op="subscribe", req_id="9", args=[*channels])
        assert (answer["success"], answer["op"], answer["req_id"]) == (False, "subscribe", "9")
        [line] = exchange.lines.open
        assert list(line.deliveries) == ["order"]


async def test_nothing_is_sent_on_subscription() -> None:
    """Bybit documents no first snapshot: earlier state comes from REST."""
    async with running_exchange() as exchange, private_line(exchange, *PRIVATE_CHANNELS) as client:
        await settled(client)
        assert [message for message in client.messages if "topic" in message] == []
        exchange.account.fill("BTCUSDT", "Buy", "0.001")
        await eventually(lambda: all(client.data(channel) for channel in PRIVATE_CHANNELS))


async def test_all_lines_of_the_account_get_the_same_bytes() -> None:
    """Two copies of a frame can be recognised as one frame, whichever key opened the lines."""
    async with (
        running_exchange() as exchange,
        private_line(exchange, *PRIVATE_CHANNELS) as first,
        private_line(exchange, *PRIVATE_CHANNELS, key="trading") as second,
    ):
        for _ in range(20):
            exchange.account.fill("BTCUSDT", "Buy", "0.001", fills=1)
        await eventually(lambda: len(first.data("wallet")) == len(second.data("wallet")) == 20)
        assert texts(first) == texts(second)


def texts(client: Client) -> list[str | bytes]:
    return [text for text in client.received if b"creationTime" in (text.encode() if isinstance(text, str) else text)]


async def test_a_category_has_its_own_topic() -> None:
    """The rows are those of the complete topic; a category without events stays silent."""
    async with (
        running_exchange() as exchange,
        private_line(exchange, "order.linear", "order.spot") as client,
        private_line(exchange, "order") as whole,
    ):
        exchange.account.place_order("BTCUSDT", "Buy", "0.001", "60000")
        await eventually(lambda: client.data("order.linear") and whole.data("order"))
        assert client.data("order.linear") == [{**whole.data("order")[0], "topic": "order.linear"}]
        assert client.data("order.spot") == []


async def test_an_unsubscribed_channel_sends_no_more() -> None:
    """The other channels continue."""
    async with running_exchange() as exchange, private_line(exchange, "wallet", "order") as client:
        assert (await client.ask(op="unsubscribe", req_id="2", args=["wallet"]))["success"]
        exchange.account.place_order("BTCUSDT", "Buy", "0.001", "60000")
        await eventually(lambda: client.data("order"))
        await settled(client)
        assert client.data("wallet") == []


async def test_an_idle_line_is_ended_and_one_that_pings_is_not() -> None:
    """A line that receives data is not ended either."""
    async with (
        running_exchange(max_active_s=0.8, idle_scan_s=0.02) as exchange,
        private_line(exchange) as idle,
        private_line(exchange) as pinging,
        private_line(exchange, "wallet") as reading,
    ):
        while idle.close_code is None:
            await pinging.ask(op="ping")
            exchange.account.send_wallet("USDT")
            await asyncio.sleep(0.02)
        assert idle.close_code == 1000
        assert pinging.close_code is None
        assert reading.close_code is None


async def test_a_line_can_set_how_long_it_may_be_idle() -> None:
    """It may set 30 s to 10 minutes, as with Bybit, instead of the exchange's usual time."""
    async with (
        running_exchange(max_active_s=0.2, idle_scan_s=0.02) as exchange,
        private_line(exchange) as usual,
        private_line(exchange, query="?max_active_time=1m") as patient,
    ):
        await eventually(lambda: usual.close_code == 1000)
        assert patient.close_code is None


async def test_a_line_can_be_dropped_between_authentication_and_subscription() -> None:
    """The client has seen its authentication succeed at that moment."""
    async with running_exchange() as exchange:
        exchange.drop_after_auth()
        async with connected(base(exchange), "private") as client:
            await client.send(**auth_request(exchange, KEYS["read-only"]))
            await eventually(lambda: client.close_code is not None)
            assert client.close_code == 1006
        async with private_line(exchange, "wallet"):
            pass


async def test_delayed_answers_come_after_data() -> None:
    """Data of a private channel do not wait for the acknowledgement either."""
    async with running_exchange() as exchange, private_line(exchange) as client:
        exchange.delay_acks(0.2)
        await client.send(op="subscribe", req_id="late", args=["wallet"])
        await eventually(lambda: exchange.lines.open[0].deliveries)
        exchange.account.deposit("USDT", "1")
        await eventually(lambda: client.data("wallet"))
        assert client.replies[-1].get("req_id") != "late"
        await eventually(lambda: client.replies[-1].get("req_id") == "late")


async def test_line_faults_affect_private_lines_too() -> None:
    """Faults: silence, unanswered pings, skipped and doubled frames."""
    async with running_exchange() as exchange, private_line(exchange, "wallet") as client:
        exchange.skip_update("private", "wallet")
        exchange.account.deposit("USDT", "1")
        exchange.account.deposit("USDT", "2")
        await eventually(lambda: client.data("wallet"))
        assert [coin_balance(message) for message in client.data("wallet")] == ["49994.2"]
        exchange.duplicate_frames("private", "wallet")
        exchange.account.deposit("USDT", "4")
        await eventually(lambda: len(client.data("wallet")) == 3)
        assert client.data("wallet")[1] == client.data("wallet")[2]
        exchange.go_silent("private")
        exchange.account.deposit("USDT", "8")
        await settled(client)
        assert len(client.data("wallet")) == 3
        assert exchange.stop_answering_pings("private") == 1
        count = len(client.replies)
        await client.send(op="ping")
        assert (await client.subscribe("order"))["success"]
        assert len(client.replies) == count + 1


def coin_balance(message: dict[str, Any]) -> str:
    balance: str = message["data"][0]["coin"][0]["walletBalance"]
    return balance


async def test_sent_events_can_be_read_by_identity() -> None:
    """Identities are execution ids or message ids; events that no open line received are left out."""
    async with running_exchange() as exchange:
        exchange.account.fill("BTCUSDT", "Buy", "0.003")
        async with private_line(exchange, "execution", "wallet") as client:
            ids = exchange.account.fill("BTCUSDT", "Buy", "0.003", fills=3)
            await eventually(lambda: client.data("wallet"))
            assert exchange.sent("private", "execution") == ids
            assert len(exchange.sent("private", "execution", delivered=False)) == 4
            assert exchange.sent("private", "wallet") == [client.data("wallet")[0]["id"]]
