"""Translation of any frame: contracts, exact digits, dead letters, reproducible records."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import (
    AT_MS,
    LINEAR_FIELDS,
    a_delta,
    a_frame,
    a_liquidation,
    a_note,
    a_snapshot,
    a_spot_ticker,
    a_ticker,
    a_trade,
    in_json,
)
from hedgelock_ingest_tests.translate.translating import Running, check_contracts, sample_lines, values

GOOD = [
    a_snapshot(),
    a_delta(),
    a_ticker(),
    a_ticker(kind="delta", fields={"lastPrice": "1"}),
    a_trade(),
    a_liquidation(),
]
decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?", fullmatch=True)


@pytest.mark.parametrize(("name", "line"), [("linear_public.jsonl", "linear-a"), ("spot_public.jsonl", "spot-a")])
def test_recorded_frames_give_values_of_the_models(name: str, line: str) -> None:
    """Each frame recorded from Bybit decodes, and each value is the JSON of its model."""
    frames = [raw for raw in sample_lines(name) if b'"pong"' not in raw]

    records = Running(Translator()).take(*frames, line=line)

    assert Topic.INGEST_DEAD_LETTERS not in {record.topic for record in records}
    assert len(records) >= len(frames) - 1
    check_contracts(records)


@pytest.mark.parametrize(
    ("raw", "topic"),
    [
        (a_snapshot(), Topic.MARKET_ORDER_BOOKS),
        (a_ticker(), Topic.MARKET_DATA),
        (a_trade("t1", "t2", RPI=True), Topic.MARKET_TRADES),
        (a_liquidation(rows=2), Topic.MARKET_LIQUIDATIONS),
        (b"?", Topic.INGEST_DEAD_LETTERS),
    ],
)
def test_each_topic_holds_values_of_its_model(raw: bytes, topic: Topic) -> None:
    """The contract for consumers is generated from the models, so every value must match its model."""
    records = Running().take(raw)

    assert {record.topic for record in records} == {topic}
    check_contracts(records)


@given(price=decimals, size=decimals)
def test_digits_are_unchanged(price: str, size: str) -> None:
    """No digit is added, lost or turned into an exponent, in any kind of frame."""
    bare = price.removeprefix("-"), size.removeprefix("-")
    records = Running().take(
        a_trade(p=price, v=size),
        a_liquidation(p=price, v=size),
        a_ticker(fields={**LINEAR_FIELDS, "lastPrice": price, "volume24h": size}),
        a_snapshot(bids=[bare], asks=[]),
    )

    trade, liquidation, ticker, book = (json.loads(record.value) for record in records)
    assert (trade["price"], trade["size"]) == (price, size)
    assert (liquidation["price"], liquidation["size"]) == (price, size)
    assert (ticker["price"], ticker["volume_24h"]) == (price, size)
    assert book["bids"] == [list(bare)]
    check_contracts(records)


def test_record_carries_its_origin() -> None:
    """Headers and resumption are built from key, trace, times and numbers."""
    frame = a_frame(a_trade("t1", "t2", ts=AT_MS), received_ns=42)
    records = Translator().translate(7, frame)

    assert [(record.position, record.number) for record in records] == [(7, 0), (7, 1)]
    assert {record.key for record in records} == {b"linear:BTCUSDT"}
    assert {(record.exchange_ms, record.received_ns) for record in records} == {(AT_MS, 42)}
    assert {record.trace_id for record in records} == {json.loads(record.value)["trace_id"] for record in records}
    assert {record.trace_id.replace("-", "") for record in records} == {frame.trace.hex()}


BAD = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "text": b'"SECRET"',
    "not JSON": b"SECRET",
    "NUL bytes": b"\0\0\0",
    "invalid UTF-8": b'{"topic":"tickers.BTCUSDT","type":"\xff\xfe"}',
    "half a surrogate pair": a_trade().replace(b'"t1"', b'"\\ud800"'),
    "deep nesting": b'{"topic":"tickers.BTCUSDT","data":' + b"[" * 100_000,
    "deep nesting of our own field": a_trade().replace(b'"t1"', b"[" * 5_000 + b"]" * 5_000),
    "NaN": a_trade().replace(b'"0.001"', b"NaN"),
    "Infinity": a_trade().replace(b'"0.001"', b"-Infinity"),
    "a number beyond any type": a_trade(seq=0).replace(b'"seq":0', b'"seq":' + b"9" * 6_000),
    "a sequence beyond 64 bits": a_trade(seq=2**63),
    "a negative time": a_trade(ts=-1),
    "a time after the year 9999": a_trade(ts=253_402_300_800_000),
    "a row's time after the year 9999": a_trade(T=10**15),
    "a time with a fraction": a_trade().replace(str(AT_MS).encode(), b"1715748762000.5"),
    "a time as text": in_json({"topic": "publicTrade.X", "ts": "1715748762000", "data": []}),
    "a truth as time": in_json({"topic": "tickers.X", "type": "snapshot", "ts": True, "data": {"symbol": "X"}}),
    "a trade without rows": in_json({"topic": "publicTrade.X", "ts": AT_MS, "data": []}),
    "a trade without id": a_trade(""),
    "a number for a price": a_trade(p=16578.5),
    "an exponent": a_trade(p="1e5"),
    "a price with a line break": a_trade(p="1\n"),
    "an empty price": a_trade(p=""),
    "foreign digits": a_trade(p="١٢٣"),
    "an unknown side": a_trade(S="SECRET"),
    "another symbol's trade": a_trade(s="ETHUSDT"),
    "another symbol's book": a_snapshot().replace(b'"s":"BTCUSDT"', b'"s":"ETHUSDT"'),
    "another symbol's ticker": a_ticker().replace(b'"symbol":"BTCUSDT"', b'"symbol":"ETHUSDT"'),
    "no symbol": a_trade().replace(b"BTCUSDT", b""),
    "an unknown topic": in_json({"topic": "kline.1.BTCUSDT", "ts": AT_MS, "data": []}),
    "a topic and no channel": in_json({"topic": "orderbook", "type": "delta", "ts": AT_MS, "data": {}}),
    "a book without depth": a_snapshot().replace(b"orderbook.50.", b"orderbook.rpi."),
    "two topics": a_ticker()[:-1] + b',"topic":"orderbook.50.BTCUSDT"}',
    "three elements a level": a_snapshot(bids=[("1", "2", "3")]),  # type: ignore[list-item]
    "a level of numbers": a_snapshot(asks=[(1, 2)]),  # type: ignore[list-item]
    "a negative update id": a_delta(update_id=-7, ts=AT_MS),
    "an unknown book type": a_delta().replace(b'"delta"', b'"SECRET"'),
    "a wrong ticker number": a_ticker(fields={"lastPrice": "12,5"}),
    "a ticker number that is none": a_ticker(fields={"volume24h": 5}),
    "two numbers in one": a_ticker(fields={"volume24h": "5 6"}),
    "a wrong ticker time": a_ticker(fields={"nextFundingTime": "999999999999999"}),
    "a wrong ticker text": a_ticker(fields={"tickDirection": ["SECRET"]}),
    "an answer, not data": b'{"success":true,"ret_msg":"SECRET","op":"subscribe"}',
    "neither topic nor answer": b'{"SECRET":1}',
    "cut off": a_snapshot()[:-9],
    "twice": a_trade() * 2,
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_undecodable_frame_becomes_one_dead_letter(raw: bytes) -> None:
    """All its bytes are kept, with a reason that contains no value, and it has no effect on later frames."""
    running, undisturbed = Running(), Running()
    running.take(*GOOD)
    undisturbed.take(*GOOD)
    before = running.translator.save()

    records = running.take(raw, line="linear-b")

    (letter,) = values(records, Topic.INGEST_DEAD_LETTERS)
    assert len(records) == 1
    check_contracts(records)
    assert base64.b64decode(letter["raw"]) == raw
    assert (letter["line"], letter["origin"], letter["attempts"]) == ("linear-b", "websocket", 1)
    assert letter["reason"]
    assert "SECRET" not in letter["reason"]
    assert running.translator.save() == before
    following = [a_delta(update_id=8), a_ticker(kind="delta", cs=101, ts=AT_MS + 1, fields={"lastPrice": "2"})]
    undisturbed.position += 1
    assert running.take(*following) == undisturbed.take(*following)


def test_dead_letter_has_its_channel_where_that_can_be_found() -> None:
    """A search for one channel's losses also finds the frame that was cut off."""
    records = Running().take(a_snapshot()[:60], b"?")

    assert [letter["feed"] for letter in values(records, Topic.INGEST_DEAD_LETTERS)] == [
        "linear:orderbook.50.BTCUSDT",
        "linear",
    ]


def test_note_of_another_version_becomes_a_dead_letter() -> None:
    """A journal written by a later version must not stop the stream."""
    records = Running().take(a_frame(b'{"note":"renamed","at_ms":1,"channels":[]}', line="note"))

    assert len(values(records, Topic.INGEST_DEAD_LETTERS)) == 1


cuts = st.tuples(st.integers(0, 400), st.integers(0, 12), st.binary(max_size=12))
odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | decimals,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(raw=st.sampled_from([*GOOD, a_spot_ticker()]), cut=cuts)
def test_no_damage_to_the_bytes_stops_the_translator(raw: bytes, cut: tuple[int, int, bytes]) -> None:
    """Bytes cut out, inserted or replaced anywhere give valid records, or one dead letter and an unchanged state."""
    start, length, replacement = cut
    start %= len(raw)
    check_any_frame(raw[:start] + replacement + raw[start + length :])


@settings(max_examples=300, deadline=None)
@given(raw=st.sampled_from(GOOD), place=st.integers(0, 200), value=odd_values)
def test_no_value_in_any_place_stops_the_translator(raw: bytes, place: int, value: object) -> None:
    """Any JSON value may replace any other."""
    check_any_frame(with_value(raw, place, value))


@given(raw=st.binary(max_size=60))
def test_no_random_bytes_stop_the_translator(raw: bytes) -> None:
    """A socket may deliver anything."""
    check_any_frame(raw)


def check_any_frame(raw: bytes) -> None:
    """Fail unless the frame gives valid records, or one dead letter and an unchanged state."""
    running = Running()
    running.take(*GOOD)
    before = running.translator.save()

    records = running.take(raw)

    check_contracts(records)
    running.translator.save()
    letters = values(records, Topic.INGEST_DEAD_LETTERS)
    if letters:
        assert len(records) == 1
        assert base64.b64decode(letters[0]["raw"]) == raw
        assert re.fullmatch(r"[\w\s,.;:'`$\[\]()*<>=^?\\+{}/|-]+", letters[0]["reason"])
        assert running.translator.save() == before


def with_value(raw: bytes, place: int, value: object) -> bytes:
    """Replace the value at one of the places of a message, counted in depth-first order."""
    message = json.loads(raw)
    places = list(_places(message))
    holder, name = places[place % len(places)]
    holder[name] = value
    return in_json(message)


def _places(value: Any) -> list[tuple[Any, Any]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found: list[tuple[Any, Any]] = []
    for name, inner in items:
        found += [(value, name), *_places(inner)]
    return found


def a_day() -> list[Frame]:
    """Build frames of all kinds from several channels, with gaps, skips, copies, invalid ones and notes."""
    linear, feed = [], "linear:orderbook.50.BTCUSDT"
    linear += [a_note("started", feed, "linear:publicTrade.BTCUSDT", reason="the process was not running")]
    linear += [a_note("up", feed, "linear:publicTrade.BTCUSDT", at_ms=AT_MS)]
    linear += [a_frame(raw) for raw in (*GOOD, *GOOD, a_delta(update_id=8), a_delta(update_id=10), b"{}")]
    linear += [a_note("down", feed, "linear:tickers.BTCUSDT", "linear:publicTrade.BTCUSDT", reason="no live line")]
    linear += [a_frame(a_snapshot(update_id=20)), a_frame(a_ticker(cs=200, ts=AT_MS + 900))]
    linear += [a_note("up", "linear:publicTrade.BTCUSDT", at_ms=AT_MS + 950), a_frame(a_trade("t1", "t7"))]
    linear += [a_frame(a_liquidation(rows=3)), a_frame(a_delta(update_id=21, ts=AT_MS + 5_000))]
    spot = [a_snapshot(depth=1), a_spot_ticker(), a_snapshot(depth=1, update_id=9, asks=[("61873.95", "5")])]
    return linear + [a_frame(raw, line="spot-b") for raw in (*spot, a_spot_ticker(cs=101, ts=AT_MS + 50))]


@settings(max_examples=60, deadline=None)
@given(cuts=st.sets(st.integers(1, len(a_day()) - 1), max_size=5))
def test_continuing_from_a_saved_state_gives_the_same_bytes(cuts: set[int]) -> None:
    """After a stop anywhere and a start from the saved state, records and state equal those of an uninterrupted run."""
    frames = a_day()
    uninterrupted = Translator()
    expected = translated(uninterrupted, frames, 0)

    records: list[Record] = []
    state: bytes | None = None
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(frames)], strict=True):
        part = Translator(state)
        records += translated(part, frames[begin:end], begin)
        state = part.save()

    assert records == expected
    assert state == uninterrupted.save()


def translated(translator: Translator, frames: Sequence[Frame], begin: int) -> list[Record]:
    """Translate frames whose positions begin after `begin`."""
    return [record for number, frame in enumerate(frames, begin + 1) for record in translator.translate(number, frame)]
