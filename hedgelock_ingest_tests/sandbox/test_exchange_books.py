"""The exchange's order books, without a socket."""

import itertools
import json
from random import Random
from typing import Any

import pytest

from hedgelock_ingest.sandbox.exchange.market.book import Book, BookView
from hedgelock_ingest.sandbox.exchange.market.book_streams import BookStream, TopStream
from hedgelock_ingest.sandbox.exchange.market.instruments import instrument_for
from hedgelock_ingest.sandbox.exchange.market.market import Market, PricePath

type Levels = dict[str, str]


def a_market(category: str = "linear", *, seed: int = 1, volatility: float = 5e-6) -> Market:
    instrument = instrument_for(category, "BTCUSDT")
    path = PricePath(64_000.0, volatility=volatility, random=Random(seed))
    return Market(instrument, path, random=Random(seed))


def apply(message: dict[str, Any], bids: Levels, asks: Levels) -> None:
    """Apply a message to a book as Bybit's documentation requires."""
    if message["type"] == "snapshot":
        bids.clear()
        asks.clear()
    for levels, changes in ((bids, message["data"]["b"]), (asks, message["data"]["a"])):
        for price, size in changes:
            if size == "0":
                del levels[price]
            else:
                levels[price] = size


def best(market: Market, depth: int) -> tuple[Levels, Levels]:
    """Return the best levels of the exchange's own book as text."""
    book, price, size = market.book, market.instrument.price, market.instrument.size
    bids = {price(-key): size(book.bids.sizes[key]) for key in book.bids.keys[:depth]}
    return bids, {price(key): size(book.asks.sizes[key]) for key in book.asks.keys[:depth]}


@pytest.mark.parametrize("depth", [50, *(pytest.param(depth, marks=pytest.mark.proof) for depth in (200, 1000))])
@pytest.mark.parametrize("category", ["spot", "linear"])
@pytest.mark.parametrize("volatility", [5e-6, 2e-3], ids=["calm", "jumps"])
def test_deltas_applied_to_the_snapshot_give_the_book_that_the_exchange_holds(
    depth: int, category: str, volatility: float
) -> None:
    """A client that misses nothing must always equal the exchange, or tests of gaps would prove nothing."""
    market = a_market(category, volatility=volatility)
    stream = BookStream(market, depth, 7)
    bids: Levels = {}
    asks: Levels = {}
    snapshot = stream.snapshot(1_000)
    assert snapshot is not None
    apply(json.loads(snapshot.text), bids, asks)

    for number in range(1, 150):
        market.trade(1 + number % 4, 1_000)
        event = stream.advance(1_000, must=True)
        assert event is not None
        message = json.loads(event.text)
        assert message["data"]["u"] == 7 + number
        apply(message, bids, asks)
        assert (bids, asks) == best(market, depth)


def test_levels_are_sorted_and_the_book_is_never_crossed() -> None:
    """Real books have these properties, so clients may rely on them."""
    market = a_market(volatility=1e-4)
    stream = TopStream(market, 1, repeat_s=3.0)
    for _ in range(2_000):
        stream.advance(1_000, must=True)
        market.trade(3, 1_000)
        assert market.book.best_bid < market.book.best_ask
        assert market.book.bids.keys == sorted(market.book.bids.keys)
        assert market.book.asks.keys == sorted(market.book.asks.keys)
        assert len(market.book.bids.keys) >= 1_000
        assert len(market.book.asks.keys) >= 1_000


def test_a_snapshot_lists_bids_downward_and_asks_upward() -> None:
    """Bybit sorts snapshots this way; the best level comes first on both sides."""
    event = BookStream(a_market(), 50, 1).snapshot(1_000)
    assert event is not None
    book = json.loads(event.text)["data"]
    bids = [float(price) for price, _ in book["b"]]
    asks = [float(price) for price, _ in book["a"]]
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]
    assert len(bids) == len(asks) == 50


def test_cross_sequences_grow_across_depths_and_skip_numbers() -> None:
    """`seq` shows which of two depths is newer; it is not a counter."""
    market = a_market()
    streams = [BookStream(market, 50, 1), BookStream(market, 200, 1)]
    found = []
    for number in range(200):
        event = streams[number % 2].advance(1_000, must=True)
        assert event is not None
        found.append(json.loads(event.text)["data"]["seq"])
    assert found == sorted(set(found))
    assert max(later - earlier for earlier, later in itertools.pairwise(found)) > 1


def test_a_restarted_book_begins_with_update_1_and_goes_on_from_there() -> None:
    """`u` 1 marks a restart of Bybit's service: overwrite, no gap."""
    market = a_market()
    stream = BookStream(market, 50, 5_000)
    stream.advance(1_000, must=True)
    restarted = json.loads(stream.restart(1_000).text)
    assert (restarted["type"], restarted["data"]["u"]) == ("snapshot", 1)
    bids: Levels = {}
    asks: Levels = {}
    apply(restarted, bids, asks)
    event = stream.advance(1_000, must=True)
    assert event is not None
    following = json.loads(event.text)
    apply(following, bids, asks)
    assert following["data"]["u"] == 2
    assert (bids, asks) == best(market, 50)


def test_the_top_of_the_book_is_sent_again_with_the_same_update_id() -> None:
    """Level 1 is repeated after 3 s without change, which clients must not take for an update."""
    stream = TopStream(a_market(), 10, repeat_s=3.0)
    changed = stream.advance(10_000, must=True)
    assert changed is not None
    assert stream.repeat(12_999) is None
    repeated = stream.repeat(13_000)
    assert repeated is not None
    first, second = json.loads(changed.text), json.loads(repeated.text)
    assert second["ts"] == 13_000
    assert second["type"] == "snapshot"
    assert {**second, "ts": 10_000} == first


def test_a_view_has_no_changes_when_nothing_changed() -> None:
    """Bybit never sends an empty delta."""
    book = Book(640_000, gap=3, usual_lots=300, random=Random(1))
    view = BookView(book, 50)
    assert view.changes() == ([], [])
    key = book.bids.keys[60]
    book.bids.put(key, 12)
    assert view.changes() == ([], [])
