"""Tickers: merged field by field, one record a frame, null only where Bybit has no value."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.models.market import MarketData
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.ticker_fields import NUMBERS, TEXTS, TIMES
from hedgelock_ingest.translate.tickers import PUBLISHED_NAMES
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import (
    AT_MS,
    LINEAR_FIELDS,
    Side,
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


QUOTED = ["lastPrice", "volume24h", "bid1Price", "ask1Price", "bid1Size", "ask1Size"]


@pytest.mark.parametrize("name", QUOTED)
def test_empty_value_is_published_as_null_until_there_is_one(name: str) -> None:
    """One side of a thin book may be empty for hours, while mark and index price go on."""
    running, published = Running(), PUBLISHED_NAMES[name]
    frames = (a_ticker(), a_change(1, **{name: ""}), a_change(2, markPrice="7"), a_change(3, **{name: "5"}))
    records = running.take(*frames)

    tickers = values(records, MARKET_DATA)
    assert [ticker[published] for ticker in tickers] == [LINEAR_FIELDS[name], None, None, "5"]
    assert [ticker["mark_price"] for ticker in tickers[1:]] == [LINEAR_FIELDS["markPrice"], "7", "7"]
    check_contracts(records)
    assert not running.translator.counts


def test_contract_before_its_market_opens_has_tickers() -> None:
    """Bybit leaves price, volume and both sides empty then; the index price and the phase are known."""
    empty = dict.fromkeys([*QUOTED, "prevPrice24h", "fundingRate", "nextFundingTime"], "")
    fields = LINEAR_FIELDS | empty | {"curPreListingPhase": "CallAuction", "preOpenPrice": "12.5"}
    records = Running().take(a_ticker(fields=dict(fields)), a_change(1, indexPrice="13"))

    first, second = values(records, MARKET_DATA)
    assert {first[PUBLISHED_NAMES[name]] for name in QUOTED} == {None}
    assert (first["pre_listing_phase"], first["pre_open_price"]) == ("CallAuction", "12.5")
    assert second["index_price"] == "13"
    check_contracts(records)


def test_zero_is_a_value_of_bybit() -> None:
    """Only an empty text states that there is no value (Bybit V5, Ticker)."""
    fields = LINEAR_FIELDS | {"bid1Price": "0", "bid1Size": "0", "volume24h": "0.0000"}
    (ticker,) = values(Running().take(a_ticker(fields=dict(fields))), MARKET_DATA)

    assert (ticker["bid"], ticker["bid_size"], ticker["volume_24h"]) == ("0", "0", "0.0000")


def test_funding_time_of_zero_is_none() -> None:
    """It would be 1970."""
    (ticker,) = values(Running().take(a_ticker(fields={**LINEAR_FIELDS, "nextFundingTime": "0"})), MARKET_DATA)

    assert ticker["next_funding_time"] is None


@pytest.mark.parametrize("value", ["", "5"])
@pytest.mark.parametrize("name", QUOTED[:4])
def test_frames_before_a_required_field_was_named_are_counted(name: str, value: str) -> None:
    """A missing field is no empty one: whether there is a price is not known. The frame that names it has a record."""
    running = Running()
    fields = {other: text for other, text in LINEAR_FIELDS.items() if other != name}

    assert running.take(a_ticker(fields=dict(fields)), a_change(1, markPrice="7")) == []
    assert running.translator.counts["tickers_incomplete"] == 2
    restarted = Running(Translator(running.translator.save(), state_interval_ms=0))
    (ticker,) = values(restarted.take(a_change(2, **{name: value}), line="linear-a"), MARKET_DATA)
    assert (ticker[PUBLISHED_NAMES[name]], ticker["mark_price"]) == (value or None, "7")


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
    assert running.translator.counts["tickers_incomplete"] == 1
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


@pytest.mark.parametrize(("bids", "asks"), [([], [("21110", "3")]), ([("21109.1", "2")], []), ([], [])])
def test_spot_has_null_for_an_empty_side_of_the_book(bids: Side, asks: Side) -> None:
    """The time of the book shows that it is known to be empty."""
    running = Running()
    records = running.take(a_snapshot(bids=bids, asks=asks), a_spot_ticker(), line="spot-a")

    (ticker,) = values(records, MARKET_DATA)
    assert (ticker["bid"], ticker["bid_size"]) == (bids[0] if bids else (None, None))
    assert (ticker["ask"], ticker["ask_size"]) == (asks[0] if asks else (None, None))
    assert ticker["quote_timestamp"] == "2024-05-15T04:52:42.120Z"
    check_contracts(records)


def test_spot_without_any_quote_has_null_while_the_book_has_a_gap() -> None:
    """Price and volume go on; a quote of null without a time is unknown."""
    running = Running()
    broken = (a_snapshot(), a_delta(update_id=9, bids=[("99999", "1")]))
    records = running.take(*broken, a_spot_ticker(), a_spot_ticker(cs=101, ts=AT_MS + 500), line="spot-a")

    first, second = values(records, MARKET_DATA)
    assert (first["price"], first["bid"], first["ask"], first["quote_timestamp"]) == ("21109.77", None, None, None)
    assert second["bid"] is None
    check_contracts(records)


def test_spot_keeps_an_empty_side_while_the_book_is_broken() -> None:
    """The last known quote may have one side only; a restart keeps it, too."""
    running = Running()
    running.take(a_snapshot(asks=[]), a_spot_ticker(), a_delta(update_id=9, asks=[("99999", "1")]), line="spot-a")
    restarted = Running(Translator(running.translator.save(), state_interval_ms=0))
    (ticker,) = values(restarted.take(a_spot_ticker(cs=101, ts=AT_MS + 500), line="spot-a"), MARKET_DATA)

    assert (ticker["bid"], ticker["ask"]) == ("61873.90", None)
    assert ticker["quote_timestamp"] == "2024-05-15T04:52:42.120Z"


def test_gap_of_a_spot_ticker_is_closed_by_a_record_with_an_empty_side() -> None:
    """The gap ends where records begin again."""
    running = Running()
    running.take(a_snapshot(bids=[]), a_spot_ticker(), line="spot-a")
    running.take(a_note("down", "spot:tickers.BTCUSDT", reason="no live line"))
    records = running.take(a_spot_ticker(cs=101, ts=AT_MS + 500), line="spot-a")

    assert [record.topic for record in records] == [Topic.INGEST_GAPS, MARKET_DATA]


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
        (record,) = running.take(a_change(n, **fields))
        ticker = json.loads(record.value)
        numbers = {name: value for name, value in by_hand.items() if name in NUMBERS}
        assert {name: ticker[PUBLISHED_NAMES[name]] or "" for name in numbers} == numbers


def test_unknown_field_is_ignored() -> None:
    """Bybit adds fields several times a year."""
    raw = a_ticker(fields={**LINEAR_FIELDS, "newField": {"deep": [1, None]}})

    assert [record.topic for record in Running().take(a_frame(raw))] == [MARKET_DATA]
