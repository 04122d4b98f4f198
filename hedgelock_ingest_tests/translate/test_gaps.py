"""Gaps: each one found from notes or numbers becomes exactly one `Gap`, and nothing else does."""

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import (
    AT_MS,
    a_delta,
    a_frame,
    a_liquidation,
    a_note,
    a_snapshot,
    a_spot_ticker,
    a_ticker,
    a_trade,
)
from hedgelock_ingest_tests.translate.translating import Running, check_contracts, values

BOOK = "linear:orderbook.50.BTCUSDT"
TICKER = "linear:tickers.BTCUSDT"
TRADES = "linear:publicTrade.BTCUSDT"
LIQUIDATIONS = "linear:allLiquidation.BTCUSDT"
PRIVATE_ORDERS = "private:order"
GAPS = Topic.INGEST_GAPS


@pytest.fixture
def running() -> Running:
    """Return a stream in which every channel has had a frame, at 04:52:42."""
    running = Running()
    running.take(a_snapshot(update_id=6, ts=AT_MS), a_ticker(), a_trade(seq=40), a_liquidation())
    return running


def test_trades_between_down_and_up_are_recorded_as_missing(running: Running) -> None:
    """The gap reaches from the last frame to the time when Bybit sent the channel again."""
    records = running.take(
        a_note("down", TRADES, LIQUIDATIONS, at_ms=AT_MS + 200, reason="no live line: stale"),
        a_note("up", TRADES, LIQUIDATIONS, at_ms=AT_MS + 3_000),
        a_trade("t9", ts=AT_MS + 9_000, seq=50),
    )

    gaps = values(records, GAPS)
    check_contracts(records)
    assert [gap["feed"] for gap in gaps] == [TRADES, LIQUIDATIONS]
    assert [record.key for record in records if record.topic is GAPS] == [TRADES.encode(), LIQUIDATIONS.encode()]
    assert (gaps[0]["from"], gaps[0]["to"]) == ("2024-05-15T04:52:42.000Z", "2024-05-15T04:52:45.000Z")
    assert (gaps[0]["from_sequence"], gaps[0]["to_sequence"]) == (40, None)
    assert (gaps[0]["healed"], gaps[0]["healed_by"], gaps[0]["reason"]) == ("no", None, "no live line: stale")


def test_first_trade_closes_the_gap_when_it_comes_before_the_confirmation(running: Running) -> None:
    """Data may come before the answer to the subscription; the answer then closes nothing."""
    records = running.take(
        a_note("down", TRADES, reason="no live line"),
        a_frame(a_trade("t9", ts=AT_MS + 2_000, seq=50), received_ns=(AT_MS + 2_000) * 1_000_000),
        a_note("up", TRADES, at_ms=AT_MS + 3_000),
        a_note("down", TRADES, reason="no live line"),
        a_note("up", TRADES, at_ms=AT_MS + 5_000),
    )

    first, second = values(records, GAPS)
    assert (first["from"], first["to"]) == ("2024-05-15T04:52:42.000Z", "2024-05-15T04:52:44.000Z")
    assert (first["from_sequence"], first["to_sequence"]) == (40, 50)
    assert (second["from"], second["from_sequence"]) == ("2024-05-15T04:52:44.000Z", 50)


def test_new_snapshot_closes_the_gap_of_a_book_and_of_a_ticker(running: Running) -> None:
    """The state is correct again; the updates in between stay lost."""
    records = running.take(
        a_note("down", BOOK, TICKER, reason="no live line"),
        a_note("up", BOOK, TICKER, at_ms=AT_MS + 500),
        a_snapshot(update_id=30, ts=AT_MS + 600),
        a_ticker(cs=130, ts=AT_MS + 700),
    )

    book, ticker = values(records, GAPS)
    assert (book["feed"], book["from_sequence"], book["to_sequence"]) == (BOOK, 6, 30)
    assert (book["from"], book["to"]) == ("2024-05-15T04:52:42.000Z", "2024-05-15T04:52:42.600Z")
    assert (ticker["feed"], ticker["from_sequence"], ticker["to_sequence"]) == (TICKER, 100, 130)
    assert {(gap["healed"], gap["healed_by"]) for gap in (book, ticker)} == {("partly", "snapshot")}


def test_known_state_clears_an_open_gap_without_a_record(running: Running) -> None:
    """Nothing is missing: the snapshot of the new line equals our state, or is older."""
    running.take(a_note("down", BOOK, TICKER, reason="no live line"))

    records = running.take(
        a_snapshot(update_id=6, ts=AT_MS),
        a_ticker(),
        a_delta(update_id=7),
        a_ticker(kind="delta", cs=101, ts=AT_MS + 9),
    )

    assert [record.topic for record in records] == [Topic.MARKET_ORDER_BOOKS, Topic.MARKET_DATA]


def test_consecutive_update_clears_an_open_gap_without_a_record(running: Running) -> None:
    """The numbers prove that nothing is missing."""
    running.take(a_note("started", BOOK, reason="the process was not running"))

    assert values(running.take(a_delta(update_id=7), a_snapshot(update_id=8)), GAPS) == []


def test_gap_over_several_restarts_is_recorded_once(running: Running) -> None:
    """It lasts until a frame comes, however often the process starts; it keeps the first reason."""
    running.take(a_note("down", TRADES, reason="first"))
    for reason in ("second", "third"):
        running.translator = Translator(running.translator.save())
        running.take(a_note("started", TRADES, BOOK, reason=reason))

    records = running.take(a_note("up", TRADES, at_ms=AT_MS + 60_000), a_snapshot(update_id=90, ts=AT_MS + 61_000))

    assert [(gap["feed"], gap["reason"]) for gap in values(records, GAPS)] == [(TRADES, "first"), (BOOK, "second")]


def test_first_start_opens_no_gap() -> None:
    """Nothing can be missing before it."""
    running = Running()
    records = running.take(
        a_note("started", TRADES, BOOK, reason="the process was not running"),
        a_note("up", TRADES, BOOK, at_ms=AT_MS),
        a_trade(),
        a_snapshot(),
    )

    assert values(records, GAPS) == []


def test_gap_of_a_channel_without_frames_begins_when_it_went_live() -> None:
    """No liquidation had come yet, but one may be missing."""
    running = Running()
    running.take(a_note("up", LIQUIDATIONS, at_ms=AT_MS))

    records = running.take(
        a_note("down", LIQUIDATIONS, reason="no live line"), a_note("up", LIQUIDATIONS, at_ms=AT_MS + 2_000)
    )

    (gap,) = values(records, GAPS)
    assert (gap["from"], gap["to"], gap["from_sequence"]) == (
        "2024-05-15T04:52:42.000Z",
        "2024-05-15T04:52:44.000Z",
        None,
    )


def test_gap_never_ends_before_it_begins(running: Running) -> None:
    """Our clock may be behind Bybit's."""
    records = running.take(a_note("down", TRADES, reason="no live line"), a_note("up", TRADES, at_ms=AT_MS - 5_000))

    (gap,) = values(records, GAPS)
    assert gap["from"] == gap["to"] == "2024-05-15T04:52:42.000Z"


def test_gap_comes_before_the_frame_that_ends_it(running: Running) -> None:
    """A consumer that reads in order sees first that something is missing."""
    records = running.take(a_note("down", TRADES, reason="no live line"), a_trade("t9", ts=AT_MS + 2_000))

    assert [record.topic for record in records] == [GAPS, Topic.MARKET_TRADES]


def test_undecodable_frame_closes_no_gap(running: Running) -> None:
    """The gap stays open until a valid frame comes."""
    running.take(a_note("down", TRADES, reason="no live line"))
    bad = running.take(a_trade("t9", T=10**15))
    good = running.take(a_trade("t9", ts=AT_MS + 2_000))

    assert [record.topic for record in bad] == [Topic.INGEST_DEAD_LETTERS]
    assert len(values(good, GAPS)) == 1


def test_channel_never_seen_begins_with_a_gap_when_the_journal_has_lost_frames(running: Running) -> None:
    """Its first frames may be among those that the journal has lost."""
    other = TRADES.replace("BTC", "ETH")
    running.translator.lose_frames(AT_MS + 9_000)

    records = running.take(
        a_frame(a_trade("t9", symbol="ETHUSDT", ts=AT_MS + 20_000), received_ns=(AT_MS + 20_000) * 1_000_000)
    )

    (gap,) = values(records, GAPS)
    assert (gap["feed"], gap["from"], gap["to"]) == (other, "2024-05-15T04:52:42.000Z", "2024-05-15T04:53:02.000Z")
    assert "damaged" in gap["reason"]


@pytest.mark.parametrize("is_saved_between", [False, True])
def test_lost_state_opens_a_gap_in_every_channel_of_the_next_start(is_saved_between: bool) -> None:
    """A channel without any frame left has a gap too: the note of the start lists all channels."""
    running = Running()
    running.translator.lose_frames(AT_MS)
    records = running.take(a_trade("t9", ts=AT_MS + 1_000))
    if is_saved_between:
        running.translator = Translator(running.translator.save())
    records += running.take(
        a_note("started", TRADES, LIQUIDATIONS, BOOK, PRIVATE_ORDERS, at_ms=AT_MS + 2_000, reason="stopped"),
        a_note("up", TRADES, LIQUIDATIONS, BOOK, PRIVATE_ORDERS, at_ms=AT_MS + 3_000),
        a_snapshot(update_id=30, ts=AT_MS + 4_000),
    )

    gaps = [(gap["feed"], gap["from"][-7:], gap["to"][-7:]) for gap in values(records, GAPS)]
    assert gaps == [
        (TRADES, "42.000Z", "43.000Z"),
        (TRADES, "43.000Z", "45.000Z"),
        (LIQUIDATIONS, "42.000Z", "45.000Z"),
        (BOOK, "42.000Z", "46.000Z"),
    ]
    assert running.translator.last_seen_ms(PRIVATE_ORDERS) == AT_MS  # REST is asked from there on


def test_channel_that_is_new_after_the_next_start_has_no_gap() -> None:
    """The note of the start lists the channels; a later one cannot be among the lost frames."""
    running = Running()
    running.translator.lose_frames(AT_MS)

    records = running.take(a_note("started", BOOK, at_ms=AT_MS + 2_000), a_trade(ts=AT_MS + 3_000))

    assert values(records, GAPS) == []


def test_spot_ticker_without_a_quote_closes_no_gap() -> None:
    """It gives no record, so the gap stays open; sent again, it is not a copy of a published frame."""
    running = Running()
    running.translator.lose_frames(AT_MS)

    records = running.take(
        a_spot_ticker(ts=AT_MS + 1_000), a_snapshot(ts=AT_MS + 2_000), a_spot_ticker(ts=AT_MS + 1_000), line="spot-a"
    )

    gaps = [(gap["feed"], gap["to"][-7:]) for gap in values(records, GAPS)]
    assert gaps == [("spot:orderbook.50.BTCUSDT", "44.000Z"), ("spot:tickers.BTCUSDT", "43.000Z")]
    assert len(values(records, Topic.MARKET_DATA)) == 1
