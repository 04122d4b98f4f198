"""Public sockets of the exchange, as a client sees them."""

import asyncio
import itertools
import json
import statistics
from typing import Any

import pytest

from hedgelock_ingest_tests.sandbox.exchange_fixtures import Client, connected, eventually, running_exchange

KINDS = ("orderbook.50.BTCUSDT", "publicTrade.BTCUSDT", "tickers.BTCUSDT")
"""The channels of a linear symbol."""

CHANNELS = ("orderbook.1.BTCUSDT", "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT", "tickers.BTCUSDT")


async def more(client: Client, channel: str) -> None:
    await eventually(lambda: len(client.data(channel)) > 3)


@pytest.mark.parametrize("category", ["spot", "linear"])
async def test_every_kind_of_channel_arrives_at_bybits_own_pace(category: str) -> None:
    """With default settings a client sees an active market."""
    async with (
        running_exchange(liquidations_per_s=50) as exchange,
        connected(exchange.public_ws_url, category, *CHANNELS, "orderbook.200.BTCUSDT") as client,
    ):
        for channel in (*CHANNELS, "orderbook.200.BTCUSDT"):
            await more(client, channel)
        if category == "linear":
            await client.subscribe("allLiquidation.BTCUSDT")
            await eventually(lambda: client.data("allLiquidation.BTCUSDT"))


async def test_books_and_tickers_begin_with_a_snapshot() -> None:
    """A delta before the first snapshot cannot be applied."""
    async with (
        running_exchange() as exchange,
        connected(exchange.public_ws_url, "linear", *CHANNELS) as client,
    ):
        for channel in ("orderbook.50.BTCUSDT", "tickers.BTCUSDT"):
            await more(client, channel)
            kinds = [message["type"] for message in client.data(channel)]
            assert kinds == ["snapshot"] + ["delta"] * (len(kinds) - 1)


async def test_two_lines_receive_the_same_frames() -> None:
    """Lines A and B of one feed differ only in their start, so arbitration can take the first copy of a frame."""
    channel = "orderbook.50.BTCUSDT"
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", channel, "publicTrade.BTCUSDT") as first,
        connected(exchange.public_ws_url, "linear", channel, "publicTrade.BTCUSDT") as second,
    ):
        await eventually(lambda: len(second.data(channel)) > 100)
        exchange.pause()
        end = exchange.channels.open("linear", channel).ledger.next_number
        await eventually(lambda: len(first.data(channel)) == end + 1)
        begin = second.received.index(next(text for text in second.received if '"delta"' in str(text)))
        frames = [text for text in second.received[begin:] if '"topic"' in str(text)]
        await eventually(lambda: len(first.received) >= len(frames))
        assert [text for text in first.received if '"topic"' in str(text)][-len(frames) :] == frames


async def test_the_snapshot_of_a_late_line_fits_the_deltas_that_follow() -> None:
    """A line that subscribes late must be able to continue from the current state."""
    channel = "orderbook.50.BTCUSDT"
    async with (
        running_exchange(rate=500) as exchange,
        connected(exchange.public_ws_url, "linear", channel) as first,
    ):
        await eventually(lambda: len(first.data(channel)) > 50)
        async with connected(exchange.public_ws_url, "linear", channel) as late:
            await eventually(lambda: len(late.data(channel)) > 50)
            updates = [message["data"]["u"] for message in late.data(channel)]
            assert updates == list(range(updates[0], updates[0] + len(updates)))


async def test_data_may_come_before_the_acknowledgement() -> None:
    """Bybit does this, and a client that waits for the acknowledgement misses the snapshot."""
    orders = set()
    async with running_exchange() as exchange:
        for _ in range(12):
            async with connected(exchange.public_ws_url, "linear", "orderbook.50.BTCUSDT") as client:
                orders.add("topic" in client.messages[0])
    assert orders == {True, False}


async def test_a_line_that_unsubscribes_receives_no_more() -> None:
    """It may subscribe again, with a new snapshot."""
    channel = "orderbook.50.BTCUSDT"
    async with (
        running_exchange(rate=500, data_before_ack=0.0) as exchange,
        connected(exchange.public_ws_url, "linear", channel) as client,
    ):
        await client.ask(op="unsubscribe", args=[channel])
        count = len(client.data(channel))
        await client.ask(op="ping")
        await asyncio.sleep(0.05)
        assert len(client.data(channel)) == count
        assert (await client.subscribe(channel))["success"]
        await eventually(lambda: len(client.data(channel)) > count)
        assert client.data(channel)[count]["type"] == "snapshot"


async def test_an_invalid_request_is_answered_and_the_line_stays_open() -> None:
    """A client's mistake fails one request and does not close the connection."""
    async with (
        running_exchange(rate=200) as exchange,
        connected(exchange.public_ws_url, "linear", "publicTrade.BTCUSDT") as client,
    ):
        await client.socket.send("hello")
        await eventually(lambda: any("Failed to decode" in reply["ret_msg"] for reply in client.replies))
        count = len(client.data("publicTrade.BTCUSDT"))
        await eventually(lambda: len(client.data("publicTrade.BTCUSDT")) > count)


async def test_a_quiet_level_1_book_is_sent_again() -> None:
    """Nothing changes at rate 0, and after a while the same update id is sent again."""
    async with (
        running_exchange(rate=0, level1_repeat_s=0.2) as exchange,
        connected(exchange.public_ws_url, "spot", "orderbook.1.BTCUSDT") as client,
    ):
        await eventually(lambda: len(client.data("orderbook.1.BTCUSDT")) >= 3)
        first, *others = client.data("orderbook.1.BTCUSDT")
        assert all(message["data"] == first["data"] for message in others)


async def test_symbols_of_a_scenario_decide_what_can_be_subscribed() -> None:
    """Tests of a shard use their own symbols."""
    async with (
        running_exchange(linear_symbols=("XRPUSDT", "FOOUSDT"), spot_symbols=()) as exchange,
        connected(exchange.public_ws_url, "linear") as client,
    ):
        assert (await client.subscribe("tickers.XRPUSDT"))["success"]
        assert (await client.subscribe("orderbook.50.FOOUSDT"))["success"]
        assert not (await client.subscribe("tickers.BTCUSDT"))["success"]


async def test_the_rate_is_shared_among_the_kinds() -> None:
    """Half of the frames are books, three tenths trades, a fifth tickers."""
    async with (
        running_exchange(rate=2_000, spot_symbols=()) as exchange,
        connected(exchange.public_ws_url, "linear", *KINDS) as client,
    ):
        begin = {name: len(client.data(name)) for name in KINDS}
        await eventually(lambda: sum(len(client.data(name)) - begin[name] for name in KINDS) >= 2_000, timeout_s=60)
        exchange.pause()
        counts = [len(client.data(name)) - begin[name] for name in KINDS]
        shares = [count / sum(counts) for count in counts]
        assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.02)


@pytest.mark.proof
async def test_the_rate_is_kept_evenly() -> None:
    """On a machine that is fast enough, the rate is reached, as evenly in time as ticks allow."""
    async with (
        running_exchange(rate=2_000, spot_symbols=()) as exchange,
        connected(exchange.public_ws_url, "linear", *KINDS) as client,
    ):
        begin = sum(len(client.data(name)) for name in KINDS)
        begin_s = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0)
        exchange.pause()
        elapsed_s = asyncio.get_running_loop().time() - begin_s
        await asyncio.sleep(0.1)
        assert sum(len(client.data(name)) for name in KINDS) - begin == pytest.approx(2_000 * elapsed_s, rel=0.2)
        sent_ms = [message["ts"] for message in client.messages if "ts" in message]
        batches = [len(list(group)) for _, group in itertools.groupby(sent_ms)]
        assert statistics.median(batches) <= 10


async def test_two_runs_of_one_seed_send_the_same_content() -> None:
    """Everything but the times is repeatable, over the socket too."""

    async def run() -> list[Any]:
        async with (
            running_exchange(seed=9, rate=1_000) as exchange,
            connected(exchange.public_ws_url, "linear", "orderbook.50.BTCUSDT") as client,
        ):
            await eventually(lambda: len(client.data("orderbook.50.BTCUSDT")) > 100)
            return [message["data"] for message in client.data("orderbook.50.BTCUSDT")][:100]

    first = await run()
    assert json.dumps(first) == json.dumps(await run())
