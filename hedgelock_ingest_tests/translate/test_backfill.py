"""Backfill: events in REST answers, and the records built from them."""

import json

import msgspec
import pytest

from hedgelock_ingest.errors import FrameError
from hedgelock_ingest.models.account import Execution
from hedgelock_ingest.models.market import Trade
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.translate.backfill import EventId, events_in, identity_in, records_of
from hedgelock_ingest_tests.builders import AT_MS, a_frame

# Bybit V5, Get Public Recent Trading History, response example; read in 2026.
TRADE = {
    "execId": "2100000000007764263",
    "symbol": "BTCUSDT",
    "price": "16618.49",
    "size": "0.00012",
    "side": "Buy",
    "time": "1672052955758",
    "isBlockTrade": False,
    "isRPITrade": True,
    "seq": "123456",
}
# Bybit V5, Get Trade History, response example; read in 2026.
FILL = {
    "symbol": "ETHPERP",
    "orderType": "Market",
    "underlyingPrice": "",
    "orderLinkId": "",
    "side": "Buy",
    "indexPrice": "",
    "orderId": "8c065341-7b52-4ca9-ac2c-37e31ac55c94",
    "stopOrderType": "UNKNOWN",
    "leavesQty": "0",
    "execTime": "1672282722429",
    "feeCurrency": "",
    "isMaker": False,
    "execFee": "0.071409",
    "feeRate": "0.0006",
    "execId": "e0cbe81d-0f18-5866-9415-cf319b5dab3b",
    "tradeIv": "",
    "blockTradeId": "",
    "markPrice": "1183.54",
    "execPrice": "1190.15",
    "markIv": "",
    "orderQty": "0.1",
    "orderPrice": "1236.9",
    "execValue": "119.015",
    "execType": "Trade",
    "execQty": "0.1",
    "closedSize": "",
    "extraFees": "",
    "seq": 4688002127,
}


def an_answer(part: Part, category: str, *rows: dict[str, object]) -> RestAnswer:
    return RestAnswer(part, Purpose.GAP_FILL, AT_MS, {category: msgspec.Raw(json.dumps({"list": rows}).encode())})


def test_documented_trade_becomes_a_record_with_the_same_identity() -> None:
    """The next backfill must recognise the published trade."""
    (event,), _ = events_in(an_answer(Part.TRADES, "spot", TRADE), "desk")
    (record,) = records_of([event], 3, a_frame(b""), account_id="desk", answered_ms=AT_MS)
    value = Trade.model_validate_json(record.value)
    assert event.event_id == EventId(b"spot:BTCUSDT", "2100000000007764263")
    assert (value.source, value.healed, value.is_rpi_trade) == ("rest-backfill", True, True)
    assert EventId(record.key, identity_in(record.value) or "") == event.event_id
    assert (record.topic, record.position, record.number) == (Topic.MARKET_TRADES, 3, 0)


def test_documented_execution_becomes_a_record_with_the_same_identity() -> None:
    """REST rows do not contain their category; the account is part of the key."""
    (event,), _ = events_in(an_answer(Part.EXECUTIONS, "linear", FILL), "desk")
    (record,) = records_of([event], 3, a_frame(b""), account_id="desk", answered_ms=AT_MS)
    value = Execution.model_validate_json(record.value)
    assert event.event_id == EventId(b"desk:linear:ETHPERP", "e0cbe81d-0f18-5866-9415-cf319b5dab3b")
    assert (value.account_id, value.category, value.healed) == ("desk", "linear", True)
    assert EventId(record.key, identity_in(record.value) or "") == event.event_id
    assert record.topic is Topic.EXECUTIONS


def test_rows_are_listed_once_and_in_order() -> None:
    """REST returns the newest first, and a page may repeat the end of the previous one."""
    times = ["1672052955760", "1672052955758", "1672052955759", "1672052955758"]
    rows = [TRADE | {"execId": f"t{at_ms}", "time": at_ms} for at_ms in times]
    found, undecodable = events_in(an_answer(Part.TRADES, "spot", *rows), "desk")
    assert not undecodable
    assert [event.at_ms for event in found] == [1672052955758, 1672052955759, 1672052955760]


@pytest.mark.parametrize(("part", "row"), [(Part.TRADES, TRADE), (Part.EXECUTIONS, FILL)])
@pytest.mark.parametrize("wrong", [{"symbol": ""}, {"side": 7, "execId": None}, {"execTime": "then", "time": "then"}])
def test_row_that_cannot_be_decoded_does_not_take_the_others_along(
    part: Part, row: dict[str, object], wrong: dict[str, object]
) -> None:
    """It is returned beside them, so that the hour is not called complete."""
    events, [undecodable] = events_in(an_answer(part, "linear", row | {"execId": "a"}, row | wrong, row), "desk")
    assert {event.event_id.identity for event in events} == {"a", row["execId"]}
    assert undecodable.result == "linear"
    assert "Expected" in undecodable.reason


@pytest.mark.parametrize("raw", [b'{"execId":"\xff"}', b'{"execId":' + b"[" * 500 + b"]" * 500 + b"}"])
def test_row_of_foreign_bytes_does_not_take_the_others_along(raw: bytes) -> None:
    """Invalid UTF-8 and deep nesting are errors of other classes than a wrong type."""
    result = msgspec.Raw(b'{"list":[' + raw + b"," + json.dumps(TRADE).encode() + b"]}")
    events, undecodable = events_in(RestAnswer(Part.TRADES, Purpose.GAP_FILL, AT_MS, {"spot": result}), "desk")
    assert [event.event_id.identity for event in events] == [TRADE["execId"]]
    assert [row.raw for row in undecodable] == [raw]


@pytest.mark.parametrize("result", [b"{}", b'{"list":{}}', b"[]", b'{"list":' + b"[" * 200_000])
def test_answer_of_another_shape_is_refused(result: bytes) -> None:
    """How many rows it lacks is unknown, so the backfill must fail."""
    with pytest.raises(FrameError):
        events_in(RestAnswer(Part.TRADES, Purpose.GAP_FILL, AT_MS, {"spot": msgspec.Raw(result)}), "desk")


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b'{"symbol": "BTCUSDT"}', b'{"trade_id": 7}', b'{"trade_id":"\xff"}', b'{"x":' + b"[" * 200_000],
)
def test_other_records_have_no_identity(value: bytes) -> None:
    """Settings may route several kinds of records to one topic."""
    assert identity_in(value) is None
