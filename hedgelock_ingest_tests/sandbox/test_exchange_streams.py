"""Frames of trades, tickers and liquidations, without a socket, against recorded frames."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hedgelock_ingest.sandbox.exchange.ledger import Ledger
from hedgelock_ingest.sandbox.exchange.market.channel_stream import ChannelStream
from hedgelock_ingest.sandbox.exchange.market.channels import Channels
from hedgelock_ingest.sandbox.exchange.market.market_streams import TradeStream
from hedgelock_ingest.sandbox.exchange.scenario import Scenario

SAMPLES = Path(__file__).parent.parent / "samples"
NEWER_FIELDS = {"seq", "RPI", "singleOpenInterest", "singleOpenInterestValue", "fundingIntervalHour", "fundingCap"}
NEWER_FIELDS |= {"preOpenPrice", "preQty", "curPreListingPhase"}
ALL_CHANNELS = [
    (category, f"{kind}.BTCUSDT")
    for category in ("spot", "linear")
    for kind in ("orderbook.1", "orderbook.50", "orderbook.200", "publicTrade", "tickers", "allLiquidation")
    if (category, kind) != ("spot", "allLiquidation")
]


def a_stream(category: str, channel: str, *, seed: int = 1) -> ChannelStream:
    return Channels(Scenario(seed=seed), Ledger(1_000)).open(category, channel).stream


def messages(stream: ChannelStream, count: int, now_ms: int = 1_700_000_000_000) -> list[dict[str, Any]]:
    events = [stream.snapshot(now_ms), *(stream.advance(now_ms + i, must=True) for i in range(count))]
    return [json.loads(event.text) for event in events if event is not None]


def recorded(file: str, topic: str, kind: str) -> dict[str, Any]:
    for line in (SAMPLES / file).read_text().splitlines():
        message: dict[str, Any] = json.loads(line)
        if message.get("topic") == topic and message["type"] == kind:
            return message
    raise AssertionError(f"no {kind} of {topic} in {file}")


def keys(message: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the keys of the envelope and of the first row, in order, without those that Bybit added later."""
    row = message["data"][0] if isinstance(message["data"], list) else message["data"]
    return list(message), [key for key in row if key not in NEWER_FIELDS]


@pytest.mark.parametrize(
    ("file", "category", "channel", "kind"),
    [
        ("spot_public.jsonl", "spot", "orderbook.200.BTCUSDT", "snapshot"),
        ("spot_public.jsonl", "spot", "orderbook.200.BTCUSDT", "delta"),
        ("spot_public.jsonl", "spot", "publicTrade.BTCUSDT", "snapshot"),
        ("linear_public.jsonl", "linear", "tickers.BTCUSDT", "snapshot"),
    ],
)
def test_a_frame_has_the_keys_of_a_recorded_one_in_the_same_order(
    file: str, category: str, channel: str, kind: str
) -> None:
    """The samples are recorded from Bybit; a parser must find the same shapes here."""
    found = next(message for message in messages(a_stream(category, channel), 3) if message["type"] == kind)
    assert keys(found) == keys(recorded(file, channel, kind))


@pytest.mark.parametrize(
    ("category", "channel", "expected"),
    [
        ("linear", "orderbook.1.BTCUSDT", ["topic", "ts", "type", "data", "cts"]),
        ("linear", "orderbook.50.BTCUSDT", ["topic", "type", "ts", "data", "cts"]),
        ("spot", "orderbook.50.BTCUSDT", ["topic", "ts", "type", "data", "cts"]),
        ("spot", "tickers.BTCUSDT", ["topic", "ts", "type", "cs", "data"]),
        ("linear", "tickers.BTCUSDT", ["topic", "type", "data", "cs", "ts"]),
        ("linear", "publicTrade.BTCUSDT", ["topic", "type", "ts", "data"]),
        ("linear", "allLiquidation.BTCUSDT", ["topic", "type", "ts", "data"]),
    ],
)
def test_envelopes_keep_the_order_of_keys_of_the_documentation(
    category: str, channel: str, expected: list[str]
) -> None:
    """Code that slices instead of parsing must fail here as it would with Bybit."""
    assert {tuple(message) for message in messages(a_stream(category, channel), 5)} == {tuple(expected)}


@pytest.mark.parametrize(("category", "channel"), ALL_CHANNELS)
def test_the_same_seed_gives_the_same_frames(category: str, channel: str) -> None:
    """A failing run must be repeatable."""
    first, second = (messages(a_stream(category, channel, seed=5), 50) for _ in range(2))
    assert first == second
    assert first != messages(a_stream(category, channel, seed=6), 50)


@pytest.mark.parametrize("category", ["spot", "linear"])
def test_trades_happen_at_the_best_prices(category: str) -> None:
    """A taker's fills begin at the top of the book and get no better."""
    stream = a_stream(category, "publicTrade.BTCUSDT")
    assert isinstance(stream, TradeStream)
    price = stream.market.instrument.price
    for _ in range(300):
        bid, ask = stream.market.book.best_bid, stream.market.book.best_ask
        event = stream.advance(1_000, must=True)
        assert event is not None
        fills = json.loads(event.text)["data"]
        assert fills[0]["p"] == price(ask if fills[0]["S"] == "Buy" else bid)
        prices = [float(fill["p"]) for fill in fills]
        assert prices == sorted(prices, reverse=fills[0]["S"] == "Sell")


def test_trade_ids_are_digits_on_spot_and_uuids_on_linear() -> None:
    """Bybit's trade ids have these forms, and only linear has the tick direction."""
    spot = messages(a_stream("spot", "publicTrade.BTCUSDT"), 200)
    linear = messages(a_stream("linear", "publicTrade.BTCUSDT"), 200)
    spot_fills = [fill for message in spot for fill in message["data"]]
    linear_fills = [fill for message in linear for fill in message["data"]]
    assert all(fill["i"].isdigit() and "L" not in fill for fill in spot_fills)
    uuid = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(uuid.fullmatch(fill["i"]) and fill["L"].endswith("Tick") for fill in linear_fills)
    for fills in (spot_fills, linear_fills):
        assert len({fill["i"] for fill in fills}) == len(fills)
        assert all(isinstance(fill["seq"], int) and isinstance(fill["T"], int) for fill in fills)


def test_some_frames_hold_several_trades_and_none_more_than_1024() -> None:
    """A large order takes several frames that share one `seq`."""
    stream = a_stream("linear", "publicTrade.BTCUSDT")
    assert isinstance(stream, TradeStream)
    assert {len(message["data"]) > 1 for message in messages(stream, 100)} == {True, False}
    frames = [json.loads(event.text)["data"] for event in stream.sweep(2_500, 1_000)]
    assert [len(frame) for frame in frames] == [1_024, 1_024, 452]
    assert len({fill["seq"] for frame in frames for fill in frame}) == 1


def test_linear_tickers_are_a_snapshot_and_then_only_what_changed() -> None:
    """An absent field means unchanged; a client that merges must end with the exchange's figures."""
    stream = a_stream("linear", "tickers.BTCUSDT")
    snapshot, *deltas = messages(stream, 50)
    assert snapshot["type"] == "snapshot"
    assert (snapshot["data"]["preOpenPrice"], snapshot["data"]["curPreListingPhase"]) == ("", "")
    merged = dict(snapshot["data"])
    for delta in deltas:
        assert delta["type"] == "delta"
        changed = {key: text for key, text in delta["data"].items() if key != "symbol"}
        assert changed
        assert all(merged[key] != text for key, text in changed.items())
        merged |= changed
    again = stream.snapshot(1_700_000_000_000)
    assert again is not None
    assert json.loads(again.text)["data"] == merged


def test_spot_tickers_are_snapshots_without_best_bid_and_ask() -> None:
    """A consumer must take them from the book."""
    for message in messages(a_stream("spot", "tickers.BTCUSDT"), 10):
        assert message["type"] == "snapshot"
        assert not {"bid1Price", "ask1Price"} & set(message["data"])
        assert "usdIndexPrice" in message["data"]


def test_a_ticker_agrees_with_the_book_and_the_last_trade() -> None:
    """The channels of one market are consistent."""
    channels = Channels(Scenario(), Ledger(1_000))
    ticker = channels.open("linear", "tickers.BTCUSDT").stream
    trades = channels.open("linear", "publicTrade.BTCUSDT").stream
    merged = messages(ticker, 0)[0]["data"]
    market = channels.markets["linear", "BTCUSDT"]
    price = market.instrument.price
    for _ in range(50):
        traded = trades.advance(1_000, must=True)
        event = ticker.advance(1_000, must=True)
        assert traded is not None
        assert event is not None
        merged |= json.loads(event.text)["data"]
        assert merged["lastPrice"] == json.loads(traded.text)["data"][-1]["p"]
        assert merged["bid1Price"] == price(market.book.best_bid)
        assert merged["ask1Price"] == price(market.book.best_ask)


def test_spot_and_linear_prices_stay_near_each_other() -> None:
    """Both follow one path, as arbitrage causes on real markets."""
    channels = Channels(Scenario(), Ledger(1_000))
    books = [channels.open(category, "orderbook.50.BTCUSDT").stream for category in ("spot", "linear")]
    for _ in range(3_000):
        for book in books:
            book.advance(1_000, must=True)
    spot, linear = (channels.markets[category, "BTCUSDT"] for category in ("spot", "linear"))
    spot_price = spot.book.best_bid * spot.instrument.tick_size
    assert abs(spot_price / (linear.book.best_bid * linear.instrument.tick_size) - 1) < 0.001


def test_numbers_are_written_as_each_category_writes_them() -> None:
    """Linear keeps trailing zeros (`61874.00`), spot drops them (`43730`)."""
    spot = price_text("spot", 43_730)
    linear = price_text("linear", 61_874)
    assert (spot, linear) == ("43730", "61874.00")


def price_text(category: str, whole: int) -> str:
    instrument = Channels(Scenario(), Ledger(1)).markets[category, "BTCUSDT"].instrument
    return instrument.price(round(whole / instrument.tick_size))


def test_markets_of_one_seed_differ() -> None:
    """Two markets with the same numbers could not reveal a mix-up of their channels."""
    spot, linear = (a_stream(category, "orderbook.50.BTCUSDT") for category in ("spot", "linear"))
    assert messages(spot, 3)[-1]["data"]["u"] != messages(linear, 3)[-1]["data"]["u"]
