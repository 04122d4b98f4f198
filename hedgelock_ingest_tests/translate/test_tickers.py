"""Tickers: merged field by field, one record a frame, no nulls in the fields that consumers require."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.models.market import MarketData
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.ticker_fields import NUMBERS, TEXTS, TIMES
from hedgelock_ingest.translate.tickers import PUBLISHED_NAMES
from hedgelock_ingest_tests.builders import (
    AT_MS,
    LINEAR_FIELDS,
    a_delta,
    a_frame,
    a_note,
    a_snapshot,
    a_spot_ticker,
    a_ticker,
)
from hedgelock_ingest_tests.translate.translating import Running, check_contracts, values

MARKET_DATA = Topic.MARKET_DATA


def a_change(number: int, **fields: object) -> bytes:
    """Build the delta of a linear ticker, `number` hundred milliseconds after the snapshot."""
    return a_ticker(kind="delta", cs=100 + number, ts=AT_MS + 100 * number, fields=fields)


def test_absent_field_is_unchanged_and_an_empty_one_is_null() -> None:
    """Bybit distinguishes the two, and a record holds every field."""
    first, second = values(Running().take(a_ticker(), a_change(1, lastPrice="61880.00", fundingRate="")), MARKET_DATA)

    assert second["price"] == "61880.00"
    assert second["funding_rate"] is None
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"timestamp", "price", "funding_rate", "sequence"}
    assert first["next_funding_time"] == "2024-05-15T08:00:00.000Z"


def test_snapshot_replaces_all_fields() -> None:
    """A field that the new snapshot does not carry becomes null."""
    running = Running()
    running.take(a_ticker())
    fields = {name: LINEAR_FIELDS[name] for name in ("lastPrice", "volume24h", "bid1Price", "ask1Price")}

    (ticker,) = values(running.take(a_ticker(cs=101, ts=AT_MS + 100, fields=dict(fields))), MARKET_DATA)

    assert ticker["mark_price"] is None


def test_each_ticker_frame_gives_one_record() -> None:
    """Frames are never coalesced, even when no published field has changed."""
    running = Running()
    records = running.take(a_ticker(), a_change(1), a_change(2, lastPrice="1"), a_change(3, lastPrice="1"))

    assert [record.topic for record in records] == [MARKET_DATA] * 4


@pytest.mark.parametrize("name", ["lastPrice", "volume24h", "bid1Price", "ask1Price"])
def test_no_record_before_price_volume_bid_and_ask_are_all_known(name: str) -> None:
    """Consumers rely on these four; the first record comes with the frame that completes them."""
    running = Running()

    assert running.take(a_ticker(fields={**LINEAR_FIELDS, name: ""})) == []
    assert len(running.take(a_change(1, **{name: "5"}))) == 1


def test_copy_of_the_last_frame_gives_no_record() -> None:
    """Nor does an older frame, such as the snapshot of a slower line after a restart."""
    running = Running()
    running.take(a_ticker(), a_change(1, lastPrice="1"))

    assert running.take(a_change(1, lastPrice="1"), a_ticker()) == []
    assert running.translator.counts["tickers_known"] == 2


def test_delta_without_its_snapshot_becomes_a_dead_letter() -> None:
    """Merged into an empty or outdated state it would give a wrong ticker."""
    running = Running()
    early = running.take(a_change(1))
    running.take(a_ticker(), a_note("down", "linear:tickers.BTCUSDT", reason="no live line"))
    late = running.take(a_change(2))

    assert [record.topic for record in early + late] == [Topic.INGEST_DEAD_LETTERS] * 2


def test_spot_takes_bid_and_ask_from_the_top_of_the_book() -> None:
    """Spot tickers carry none; `quote_timestamp` is the time of the book."""
    running = Running()
    assert running.take(a_spot_ticker(), line="spot-a") == []
    running.take(a_snapshot(bids=[("21109.1", "2"), ("21109.5", "1")], asks=[("21110", "3")]), line="spot-a")

    (ticker,) = values(running.take(a_spot_ticker(cs=101, ts=AT_MS + 50), line="spot-a"), MARKET_DATA)

    assert (ticker["bid"], ticker["bid_size"], ticker["ask"], ticker["ask_size"]) == ("21109.5", "1", "21110", "3")
    assert ticker["quote_timestamp"] == "2024-05-15T04:52:42.120Z"


def test_spot_takes_the_shallowest_book() -> None:
    """Bybit pushes it most often."""
    running = Running()
    running.take(a_snapshot(depth=200, bids=[("1", "1")]), a_snapshot(depth=1, bids=[("2", "1")]), line="spot-a")

    (ticker,) = values(running.take(a_spot_ticker(), line="spot-a"), MARKET_DATA)

    assert ticker["bid"] == "2"


def test_spot_never_takes_the_book_of_another_category() -> None:
    """Symbols and channels have the same names; only the line determines the category."""
    running = Running()
    running.take(a_snapshot(), line="linear-a")

    assert running.take(a_spot_ticker(), line="spot-a") == []


def test_spot_keeps_its_last_quote_while_the_book_is_broken() -> None:
    """A skipped update makes the book unusable, not the record; `quote_timestamp` is the time of bid and ask."""
    running = Running()
    running.take(a_snapshot(), a_spot_ticker(), a_delta(update_id=9, bids=[("99999", "1")]), line="spot-a")

    (ticker,) = values(running.take(a_spot_ticker(cs=101, ts=AT_MS + 500), line="spot-a"), MARKET_DATA)

    assert ticker["bid"] == "61873.90"
    assert ticker["quote_timestamp"] == "2024-05-15T04:52:42.120Z"
    check_contracts(running.take(a_spot_ticker(cs=102, ts=AT_MS + 600), line="spot-a"))


def test_book_frame_gives_no_market_data() -> None:
    """Only ticker frames give ticker records."""
    running = Running()
    running.take(a_snapshot(), a_spot_ticker(), line="spot-a")

    records = running.take(a_delta(bids=[("61873.95", "1")]), line="spot-a")

    assert [record.topic for record in records] == [Topic.MARKET_ORDER_BOOKS]


def test_every_field_that_is_checked_is_published() -> None:
    """Bybit's fields are listed in two places, which must agree."""
    assert set(PUBLISHED_NAMES) == NUMBERS | TEXTS | TIMES
    assert set(PUBLISHED_NAMES.values()) < set(MarketData.model_fields)


names = st.sampled_from(sorted(NUMBERS))
deltas = st.lists(st.dictionaries(names, st.sampled_from(["", "0", "1.50", "-3"]), max_size=6), max_size=10)


@settings(max_examples=60, deadline=None)
@given(changes=deltas)
def test_merged_ticker_equals_the_fields_merged_by_hand(changes: list[dict[str, str]]) -> None:
    """After any deltas each field has the last value that Bybit sent."""
    running, by_hand = Running(), dict(LINEAR_FIELDS)
    running.take(a_ticker())
    for n, fields in enumerate(changes, 1):
        by_hand |= fields
        records = running.take(a_change(n, **fields))
        if all(by_hand[name] for name in ("lastPrice", "volume24h", "bid1Price", "ask1Price")):
            (record,) = records
            ticker = json.loads(record.value)
            numbers = {name: value for name, value in by_hand.items() if name in NUMBERS}
            assert {name: ticker[PUBLISHED_NAMES[name]] or "" for name in numbers} == numbers
        else:
            assert records == []


def test_unknown_field_is_ignored() -> None:
    """Bybit adds fields several times a year."""
    raw = a_ticker(fields={**LINEAR_FIELDS, "newField": {"deep": [1, None]}})

    assert [record.topic for record in Running().take(a_frame(raw))] == [MARKET_DATA]
