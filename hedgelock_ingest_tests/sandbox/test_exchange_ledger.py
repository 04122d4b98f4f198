"""The exchange's ledger of what it sent."""

from hedgelock_ingest.sandbox.exchange.ledger import Ledger, LineDelivery, Runs
from hedgelock_ingest_tests.sandbox.exchange_fixtures import (
    Client,
    connected,
    eventually,
    exchange_process,
    running_exchange,
)

BOOK = "orderbook.50.BTCUSDT"
TRADES = "publicTrade.BTCUSDT"
TICKER = "tickers.BTCUSDT"


def trade_ids(client: Client) -> list[str]:
    return [fill["i"] for message in client.data(TRADES) for fill in message["data"]]


async def test_the_ledger_names_everything_that_an_open_line_received() -> None:
    """End-to-end tests compare Kafka with it."""
    async with (
        exchange_process(rate=2_000, spot_symbols=["BTCUSDT"]) as exchange,
        connected(exchange.public_ws_url, "spot", TRADES, BOOK, TICKER) as spot,
        connected(exchange.public_ws_url, "linear", TRADES, BOOK, TICKER) as linear,
    ):
        await eventually(lambda: len(spot.data(TRADES)) > 200 and len(linear.data(TRADES)) > 200)
        await exchange.fault("pause")
        for category, client in (("spot", spot), ("linear", linear)):
            ids = await exchange.sent(category, TRADES)
            await eventually(lambda client=client, ids=ids: len(trade_ids(client)) == len(ids))  # type: ignore[misc]
            assert trade_ids(client) == ids
            updates = [message["data"]["u"] for message in client.data(BOOK)[1:]]
            assert await exchange.sent(category, BOOK) == updates
            sequences = [message["cs"] for message in client.data(TICKER)[1:]]
            assert await exchange.sent(category, TICKER) == sequences


async def test_events_sent_to_no_line_are_recorded_separately() -> None:
    """The market continues while all lines are down, so a gap can be measured."""
    async with running_exchange(rate=500) as exchange:
        async with connected(exchange.public_ws_url, "linear", TRADES) as client:
            await eventually(lambda: len(client.data(TRADES)) > 20)
        await eventually(lambda: not exchange.lines.open)
        before = len(exchange.sent("linear", TRADES))
        happened = len(exchange.sent("linear", TRADES, delivered=False))
        await eventually(lambda: len(exchange.sent("linear", TRADES, delivered=False)) > happened + 20)
        assert len(exchange.sent("linear", TRADES)) == before
        async with connected(exchange.public_ws_url, "linear", TRADES) as client:
            await eventually(lambda: len(client.data(TRADES)) > 20)
            exchange.pause()
            missed = set(exchange.sent("linear", TRADES, delivered=False)) - set(exchange.sent("linear", TRADES))
            assert len(missed) > 20
            assert not missed & set(trade_ids(client))


async def test_events_can_be_selected_by_time() -> None:
    """A test can select what was sent after its start."""
    async with (
        running_exchange(rate=0) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.publish("linear", BOOK, 3)
        await eventually(lambda: len(client.data(BOOK)) == 4)
        looks_ms = exchange.now_ms()
        await eventually(lambda: exchange.now_ms() > looks_ms)
        exchange.publish("linear", BOOK, 2)
        everything = exchange.sent("linear", BOOK)
        assert len(everything) == 5
        assert exchange.sent("linear", BOOK, since_ms=looks_ms + 1) == everything[3:]
        assert exchange.sent("linear", BOOK, until_ms=looks_ms) == everything[:3]


async def test_each_line_records_which_events_were_written_to_it() -> None:
    """Events of a silent time are missing from its runs."""
    async with (
        running_exchange(rate=0) as exchange,
        connected(exchange.public_ws_url, "linear", BOOK) as client,
    ):
        exchange.publish("linear", BOOK, 3)
        exchange.go_silent()
        exchange.publish("linear", BOOK, 2)
        exchange.speak()
        exchange.publish("linear", BOOK, 4)
        await eventually(lambda: len(client.data(BOOK)) == 8)
        (delivery,) = exchange.lines.open[0].all_deliveries()
        assert delivery.all_runs() == [(0, 3), (5, 9)]


def test_runs_of_several_lines_are_one_set() -> None:
    """An event counts as sent when it was written to any line."""
    runs = Runs([(0, 3), (5, 9), (2, 4), (9, 10), (20, 21)])
    assert [number for number in range(25) if number in runs] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 20]


def test_a_delivery_keeps_consecutive_events_as_one_run() -> None:
    """A million frames take a few bytes."""
    delivery = LineDelivery(BOOK)
    for number in [*range(1_000), *range(1_005, 2_000)]:
        delivery.add(number)
    assert delivery.all_runs() == [(0, 1_000), (1_005, 2_000)]


def test_only_the_newest_events_are_kept() -> None:
    """The exchange may run for days; the numbers of events do not change."""
    ledger = Ledger(500)
    channels = [ledger.open("linear", BOOK), ledger.open("spot", TRADES)]
    for number in range(5_000):
        channels[0].add(number, number)
        channels[1].add(number, (number,))
        ledger.keep_bound()
    assert 400 <= sum(map(len, channels)) <= 1_501
    numbers = [number for number, _, _ in channels[0].events()]
    assert numbers[-1] == 4_999
    assert [identities for _, _, identities in channels[1].events()][-1] == ["4999"]
