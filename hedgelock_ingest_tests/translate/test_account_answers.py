"""REST answers about the account beside frames: what each of them may change, and what it may not."""

import json
from typing import Any

import msgspec
import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose
from hedgelock_ingest.translate.absence import REST_LAG_MS
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.translate.account_feeder import (
    AT_MS,
    EMPTY,
    FLEXIBLE,
    LOAN_POSITION,
    NO_POSITIONS,
    Feeder,
    a_feeder,
    a_position_frame,
    a_rest_row,
    a_rest_trade,
    a_row,
    a_trade_frame,
    a_wallet,
    a_wallet_frame,
    sample,
    values,
)

SURE_MS = AT_MS + REST_LAG_MS
"""A later list cannot be behind a frame of `AT_MS`."""


def three_positions() -> bytes:
    """Build the frame of an account in hedge mode with three open positions."""
    return a_position_frame(a_row(), a_row("SOLUSDT", "0.2"), a_row("ADAUSDT", "43", positionIdx=1))


def the_view(feeder: Feeder) -> dict[str, Any]:
    """Return the merged view, by an answer that changes nothing."""
    at_ms = 2 * AT_MS + feeder.position
    [view] = values(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=at_ms), Topic.ACCOUNT_UPDATES)
    return view


def sizes(view: dict[str, Any]) -> dict[str, str]:
    """Return the sizes of a view's positions by symbol."""
    return {position["symbol"]: position["size"] for position in view["positions"]}


# An answer that is older than what is known


@pytest.mark.parametrize("behind_ms", [0, 1, 3_000])
def test_position_list_from_before_the_frames_closes_nothing(behind_ms: int) -> None:
    """A replica behind the stream, asked right after a reconnect, closed three open positions."""
    feeder = a_feeder()
    feeder.frame(three_positions())

    for late in (0, 1, 2):
        records = feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=AT_MS - behind_ms - 2 + min(late, 1))
        assert not values(records, Topic.POSITION_CHANGES)

    assert sizes(the_view(feeder)) == {"XRPUSDT": "4", "SOLUSDT": "0.2", "ADAUSDT": "43"}


def test_position_is_flat_once_a_second_later_list_lacks_it_too() -> None:
    """By settle coin Bybit lists open positions only, and one list may come from a replica that lags."""
    feeder = a_feeder()
    feeder.frame(three_positions())
    held = {"linear": {"list": [a_rest_row("ADAUSDT", "43", positionIdx=1)]}}

    assert not values(feeder.answer(Part.POSITIONS, held, time_ms=SURE_MS + 1), Topic.POSITION_CHANGES)
    assert not values(feeder.answer(Part.POSITIONS, held, time_ms=SURE_MS + 1), Topic.POSITION_CHANGES), "the same list"
    feeder.translator = Translator(feeder.translator.save(), account_id="acc")
    changes = values(feeder.answer(Part.POSITIONS, held, time_ms=SURE_MS + 2), Topic.POSITION_CHANGES)

    assert [(change["symbol"], change["after"]["size"], change["source"]) for change in changes] == [  # type: ignore[index]
        ("XRPUSDT", "0", "rest-backfill"),
        ("SOLUSDT", "0", "rest-backfill"),
    ]
    assert sizes(the_view(feeder)) == {"ADAUSDT": "43"}


@pytest.mark.parametrize(
    ("purpose", "source", "healed"), [(Purpose.SNAPSHOT, "rest-backfill", True), (Purpose.POLL, "rest", False)]
)
def test_flat_position_states_what_found_it(purpose: Purpose, source: str, healed: bool) -> None:
    """A poll fills no gap."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=SURE_MS + 1, purpose=purpose)
    records = feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=SURE_MS + 2, purpose=purpose)
    [change] = values(records, Topic.POSITION_CHANGES)
    assert (change["source"], change["healed"]) == (source, healed)


def test_frame_between_two_lists_keeps_its_position() -> None:
    """The second list is not later than everything known of the position."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=SURE_MS + 1)
    feeder.frame(a_position_frame(a_row(takeProfit="9"), at_ms=SURE_MS))

    for time_ms in (SURE_MS + 2, SURE_MS + REST_LAG_MS, SURE_MS + REST_LAG_MS + 1):
        assert not values(feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=time_ms), Topic.POSITION_CHANGES)
    assert values(
        feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=SURE_MS + REST_LAG_MS + 2), Topic.POSITION_CHANGES
    )


def test_closed_position_is_not_opened_again_by_an_older_list() -> None:
    """The list still shows it as it was before the two lists that lacked it, whatever time the list has."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    for time_ms in (SURE_MS + 1_000, SURE_MS + 2_000):
        feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=time_ms)

    old = {"linear": {"list": [a_rest_row()]}}
    for time_ms in (SURE_MS + 1_500, SURE_MS + 2_500):
        assert not values(feeder.answer(Part.POSITIONS, old, time_ms=time_ms), Topic.POSITION_CHANGES)
    assert sizes(the_view(feeder)) == {}


def test_wallet_list_is_compared_coin_by_coin() -> None:
    """A frame about one coin made the balances of all others in the list count as old."""
    feeder = a_feeder()
    feeder.answer(Part.WALLET, a_wallet(USDT="1000", BTC="0.5"), time_ms=1_000)
    feeder.frame(a_wallet_frame(2_000, BTC="0.7"))

    [view] = values(feeder.answer(Part.WALLET, a_wallet(USDT="900", BTC="0.5"), time_ms=1_990), Topic.ACCOUNT_UPDATES)

    assert view["balances"] == {"USDT": "900", "BTC": "0.7"}


def test_coin_is_gone_once_a_second_later_list_lacks_it_too() -> None:
    """Bybit lists only coins with assets or liabilities."""
    feeder = a_feeder()
    feeder.frame(a_wallet_frame(2_000, BTC="0.7", ETH="3"))

    for time_ms, coins in ((1_990, "BTC ETH"), (5_501, "BTC ETH"), (5_501, "BTC ETH"), (5_502, "")):
        feeder.answer(Part.WALLET, a_wallet(USDT="1"), time_ms=time_ms)
        assert set(the_view(feeder)["balances"]) == {"USDT", *coins.split()}


def test_order_state_from_before_a_known_one_is_not_published() -> None:
    """An order that a frame has reported as filled would be open again for a consumer that keeps the last state."""
    feeder = Feeder()
    filled = json.loads(sample("order"))["data"][0]
    feeder.frame(sample("order"))
    before = filled | {"orderStatus": "New", "cumExecQty": "0", "updatedTime": filled["createdTime"]}
    other = before | {"orderId": "another"}

    records = feeder.answer(Part.ORDERS, {"linear": {"list": [before, other]}}, time_ms=5, purpose=Purpose.GAP_FILL)

    assert [order["order_id"] for order in values(records, Topic.ORDER_UPDATES)] == ["another"]


@pytest.mark.parametrize(
    ("part", "results"),
    [(Part.COLLATERAL, {"position": LOAN_POSITION | {"totalDebt": "0"}}), (Part.LOANS, {"flexible": EMPTY})],
)
def test_older_answer_about_loans_changes_nothing(part: Part, results: dict[str, object]) -> None:
    """A debt that seems to be repaid would end its hedge."""
    feeder = a_feeder()
    feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=1_000)
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=1_000)

    assert feeder.answer(part, results, time_ms=999) == []
    assert the_view(feeder)["loan_amount"] == "9638.17"


def test_loan_is_gone_once_a_second_later_list_lacks_it_too() -> None:
    """A debt that one list lacks, from a replica that lags, would end its hedge."""
    feeder = a_feeder()
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=1_000)
    owed = [
        [
            loan["loan_currency"]
            for loan in flexible_loans(feeder.answer(Part.LOANS, {"flexible": EMPTY}, time_ms=at_ms))
        ]
        for at_ms in (1_001, 1_001, 1_002)
    ]
    assert owed == [["ETH"], ["ETH"], []]


def test_list_of_loans_with_a_row_that_cannot_be_decoded_removes_none() -> None:
    """The row may be the loan that seems to be missing."""
    feeder = a_feeder()
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=1_000)
    for at_ms in (1_001, 1_002):
        records = feeder.answer(Part.LOANS, {"flexible": {"list": [7]}}, time_ms=at_ms)
        assert [loan["loan_currency"] for loan in flexible_loans(records)] == ["ETH"]


def flexible_loans(records: list[Record]) -> list[dict[str, Any]]:
    """Return the flexible loans of the message in these records."""
    [raw] = values(records, Topic.ACCOUNT_RAW)
    loans: Any = raw["loan_info"]
    flexible: list[dict[str, Any]] = loans["flexible"]
    return flexible


# Source and trace


@pytest.mark.parametrize(
    ("purpose", "source"),
    [(Purpose.POLL, "rest"), (Purpose.SNAPSHOT, "rest-backfill"), (Purpose.READ_BACK, "rest")],
)
@pytest.mark.parametrize(
    ("part", "results"),
    [
        (Part.WALLET, a_wallet(USDT="2")),
        (Part.POSITIONS, {"linear": {"list": [a_rest_row()]}}),
        (Part.COLLATERAL, {"position": LOAN_POSITION}),
        (Part.LOANS, {"flexible": FLEXIBLE}),
    ],
)
def test_view_states_what_made_it(part: Part, results: dict[str, object], purpose: Purpose, source: str) -> None:
    """27 of 60 views were made by REST, and all had `websocket` as their source."""
    records = a_feeder().answer(part, results, time_ms=AT_MS, purpose=purpose)
    assert [view["source"] for view in values(records, Topic.ACCOUNT_UPDATES)] == [source]
    assert {change["source"] for change in values(records, Topic.POSITION_CHANGES)} <= {source}


@pytest.mark.parametrize("frame", [a_wallet_frame(20, USDT="2"), three_positions()])
def test_view_made_by_a_frame_is_the_streams(frame: bytes) -> None:
    """The rule holds for frames as it does for answers."""
    [view] = values(a_feeder().frame(frame), Topic.ACCOUNT_UPDATES)
    assert view["source"] == "websocket"


# Categories


def test_list_does_not_cover_categories_that_were_not_requested() -> None:
    """The stream had reported an inverse position; a list of linear ones alone made it flat."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row(), a_row("BTCUSD", "1000", category="inverse")))

    for time_ms in (SURE_MS + 1, SURE_MS + 2):
        feeder.answer(Part.POSITIONS, {"linear": EMPTY}, time_ms=time_ms)
    assert sizes(the_view(feeder)) == {"BTCUSD": "1000"}

    for time_ms in (SURE_MS + 3, SURE_MS + 4):
        feeder.answer(Part.POSITIONS, {"inverse": EMPTY}, time_ms=time_ms)
    assert sizes(the_view(feeder)) == {}


@pytest.mark.parametrize(
    ("symbol", "is_covered"),
    [("BTCUSDT", True), ("BTCUSDT-27DEC24", True), ("ETHPERP", True), ("BTC-27DEC24", True), ("BTCUSDE", False)],
)
def test_list_of_linear_positions_does_not_cover_other_settle_coins(symbol: str, is_covered: bool) -> None:
    """Linear positions are requested by settle coin."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row(symbol)))
    for time_ms in (SURE_MS + 1, SURE_MS + 2):
        feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=time_ms)
    assert (symbol not in sizes(the_view(feeder))) is is_covered


@pytest.mark.parametrize(
    ("part", "feed", "missing"),
    [
        (Part.POSITIONS, "private:position", "the states in between; inverse (not requested); option (no permission)"),
        (
            Part.ORDERS,
            "private:order",
            "the states in between; inverse (not requested); option (no permission); spot (not requested)",
        ),
        (
            Part.EXECUTIONS,
            "private:execution",
            "inverse (not requested); option (no permission); spot (not requested)",
        ),
    ],
)
def test_gap_names_the_categories_that_were_not_requested(part: Part, feed: str, missing: str) -> None:
    """Gaps of orders and executions were marked filled although inverse and option were never requested."""
    feeder = Feeder()
    feeder.note("up", feed, at_ms=1_000)
    feeder.note("down", feed, at_ms=2_000, reason="no live line: reset")
    feeder.note("up", feed, at_ms=3_000)
    records = feeder.answer(part, {"linear": EMPTY}, time_ms=4_000, refused={"option": "no permission"})
    [gap] = values(records, Topic.INGEST_GAPS)
    assert (gap["healed"], gap["missing"]) == ("partly", missing)


# Rows


# A row of a symbol that was never traded, as REST returns it.
BLANK = {"symbol": "ETHUSDT", "side": "", "size": "0", "updatedTime": "", "seq": -1, "positionIdx": 0}


def test_row_without_a_time_and_content_is_passed_over() -> None:
    """It made the whole answer a dead letter, so that no merged view was ever published."""
    feeder = a_feeder()
    records = feeder.answer(Part.POSITIONS, {"linear": {"list": [BLANK, a_rest_row()]}}, time_ms=AT_MS)
    assert not values(records, Topic.INGEST_DEAD_LETTERS)
    [view] = values(records, Topic.ACCOUNT_UPDATES)
    assert sizes(view) == {"XRPUSDT": "4"}


def test_row_without_a_time_is_passed_over_in_a_frame_too() -> None:
    """The other rows of the frame count."""
    blank = BLANK | {"category": "linear"}
    [view] = values(a_feeder().frame(a_position_frame(blank, a_row())), Topic.ACCOUNT_UPDATES)
    assert sizes(view) == {"XRPUSDT": "4"}


WRONG = {"symbol": "DOGEUSDT", "side": "Buy", "size": "7", "updatedTime": "", "seq": 5}


def test_row_that_cannot_be_decoded_is_a_dead_letter_alone() -> None:
    """One such row made a dead letter of all positions, which were not requested again."""
    feeder = a_feeder()
    results: dict[str, object] = {"linear": {"list": [WRONG, a_rest_row()]}}
    records = feeder.answer(Part.POSITIONS, results, time_ms=AT_MS)

    [letter] = values(records, Topic.INGEST_DEAD_LETTERS)
    assert "no updatedTime" in str(letter["reason"])
    kept = msgspec.json.decode(_raw(letter))
    assert kept["results"] == {"linear": {"list": [WRONG]}}
    assert sizes(the_view(feeder)) == {"XRPUSDT": "4"}


def test_list_with_a_row_that_cannot_be_decoded_removes_nothing_of_its_category() -> None:
    """The row may be the position that seems to be missing."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row(), a_row("BTCUSD", "1000", category="inverse")))
    for time_ms in (SURE_MS + 1, SURE_MS + 2):
        feeder.answer(Part.POSITIONS, {"linear": {"list": [WRONG]}, "inverse": EMPTY}, time_ms=time_ms)
    assert sizes(the_view(feeder)) == {"XRPUSDT": "4"}


def test_dead_letter_of_a_row_can_be_replayed_without_removing_others() -> None:
    """A replay reads the letter as an answer that holds this row only."""
    feeder = a_feeder()
    [letter] = values(
        feeder.answer(Part.POSITIONS, {"linear": {"list": [WRONG]}}, time_ms=AT_MS), Topic.INGEST_DEAD_LETTERS
    )
    feeder.frame(a_position_frame(a_row()))
    understood = _raw(letter).replace(b'"updatedTime": ""', b'"updatedTime": "1737725795700"')
    understood = understood.replace(b'"updatedTime":""', b'"updatedTime":"1737725795700"')
    for _ in range(2):
        feeder.frame(understood.replace(str(AT_MS).encode(), str(AT_MS + 9).encode()), "rest-positions")
    assert sizes(the_view(feeder)) == {"XRPUSDT": "4", "DOGEUSDT": "7"}


def test_coin_that_cannot_be_decoded_leaves_the_others_valid_and_removes_none() -> None:
    """Balances are as separate as positions."""
    feeder = a_feeder()
    coins = [{"coin": "BTC", "walletBalance": "much"}, {"coin": "ETH", "walletBalance": "3"}]
    for time_ms in (20, 21):
        records = feeder.answer(Part.WALLET, {"wallet": {"list": [{"coin": coins}]}}, time_ms=time_ms)
        assert len(values(records, Topic.INGEST_DEAD_LETTERS)) == 1
    assert the_view(feeder)["balances"] == {"USDT": "1", "ETH": "3"}


@pytest.mark.parametrize("part", [Part.ORDERS, Part.EXECUTIONS, Part.LOANS, Part.POSITIONS, Part.WALLET])
def test_answer_of_another_shape_is_a_dead_letter_as_a_whole(part: Part) -> None:
    """There are no rows to take one by one."""
    [record] = Feeder().answer(part, {"linear": {"list": 7}}, time_ms=5)
    assert record.topic is Topic.INGEST_DEAD_LETTERS


def test_gap_with_rows_that_cannot_be_decoded_is_not_filled() -> None:
    """The fill in that row is not in Kafka, only its dead letter."""
    feeder = Feeder()
    feeder.note("up", "private:execution", at_ms=1_000)
    feeder.note("down", "private:execution", at_ms=2_000, reason="no live line: reset")
    feeder.note("up", "private:execution", at_ms=3_000)
    rows = [{"symbol": "BTCUSDT"}, json.loads(sample("execution"))["data"][0]]
    results: dict[str, object] = dict.fromkeys(("inverse", "option", "spot"), EMPTY)
    records = feeder.answer(Part.EXECUTIONS, results | {"linear": {"list": rows}}, time_ms=4_000)
    [gap] = values(records, Topic.INGEST_GAPS)
    assert (gap["healed"], gap["missing"]) == ("partly", "1 row that cannot be decoded")
    assert len(values(records, Topic.EXECUTIONS)) == 1


LONG_SEQUENCE = 9_223_372_036_854_775_807


def test_sequence_of_19_digits_is_taken_from_rest_as_from_the_stream() -> None:
    """Trades of REST were refused above 18 digits, and the gap was recorded as unfilled at the next start."""
    feeder = Feeder()
    feed = "linear:publicTrade.BTCUSDT"
    feeder.note("started", feed, fills_gaps=True)
    feeder.note("up", feed, at_ms=1_000)
    feeder.frame(a_trade_frame(1, 1_500), "linear-a")
    feeder.note("down", feed, at_ms=1_600, reason="no live line: reset")
    feeder.note("up", feed, at_ms=3_000)
    feeder.frame(a_trade_frame(5, 3_100), "linear-a")
    rows = [a_rest_trade(1, 1_500), a_rest_trade(3, 2_500, seq=str(LONG_SEQUENCE)), {"execId": "t4"}]

    records = feeder.answer(Part.TRADES, {"linear": {"list": rows}}, time_ms=3_200, purpose=Purpose.GAP_FILL, feed=feed)

    [trade] = values(records, Topic.MARKET_TRADES)
    assert (trade["trade_id"], trade["sequence"]) == ("t3", LONG_SEQUENCE)
    [gap] = values(records, Topic.INGEST_GAPS)
    assert (gap["healed"], gap["missing"]) == ("partly", "1 row that cannot be decoded")
    assert len(values(records, Topic.INGEST_DEAD_LETTERS)) == 1


def test_position_with_a_sequence_of_19_digits_is_taken_from_rest() -> None:
    """The state keeps it, too."""
    feeder = a_feeder()
    feeder.answer(Part.POSITIONS, {"linear": {"list": [a_rest_row(seq=LONG_SEQUENCE)]}}, time_ms=AT_MS)
    feeder.translator = Translator(feeder.translator.save(), account_id="acc")
    assert the_view(feeder)["positions"][0]["sequence"] == LONG_SEQUENCE


def _raw(letter: dict[str, Any]) -> bytes:
    return msgspec.convert(letter["raw"], bytes, strict=False)


# Account types


def test_balances_of_a_second_wallet_do_not_replace_those_of_the_unified_account() -> None:
    """An account of UTA 1.0 holds BTC twice: 5 became 0.2."""
    feeder = a_feeder()
    feeder.frame(a_wallet_frame(20, BTC="5"))
    [raw] = values(feeder.frame(a_wallet_frame(21, "CONTRACT", BTC="0.2")), Topic.ACCOUNT_RAW)

    assert the_view(feeder)["balances"] == {"USDT": "1", "BTC": "5"}
    assert raw["balances"]["BTC"]["wallet_balance"] == "5"  # type: ignore[index]
    other = {"coin": "BTC", "wallet_balance": "0.2", "available_balance": None}
    assert raw["other_balances"] == {"CONTRACT": {"BTC": other}}


def test_one_frame_with_both_wallets_is_published_under_both() -> None:
    """Neither is lost."""
    accounts = [
        {"accountType": account_type, "coin": [{"coin": "BTC", "walletBalance": balance}]}
        for account_type, balance in (("UNIFIED", "5"), ("CONTRACT", "0.2"))
    ]
    frame = {"topic": "wallet", "id": "w", "creationTime": 20, "data": accounts}
    records = a_feeder().frame(json.dumps(frame).encode())
    [raw] = values(records, Topic.ACCOUNT_RAW)
    assert raw["balances"]["BTC"]["wallet_balance"] == "5"  # type: ignore[index]
    assert raw["other_balances"]["CONTRACT"]["BTC"]["wallet_balance"] == "0.2"  # type: ignore[index]
    [view] = values(records, Topic.ACCOUNT_UPDATES)
    assert view["balances"] == {"USDT": "1", "BTC": "5"}


# Changes without a new time


def test_another_take_profit_is_a_change_although_time_and_sequence_are_the_same() -> None:
    """Bybit sets it without a new `updatedTime`; the frame was dropped."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    records = feeder.frame(a_position_frame(a_row(takeProfit="3.5"), at_ms=AT_MS + 1))
    [change] = values(records, Topic.POSITION_CHANGES)
    assert (change["before"]["take_profit"], change["after"]["take_profit"]) == ("0", "3.5")  # type: ignore[index]
    assert len(values(records, Topic.ACCOUNT_UPDATES)) == 1


@pytest.mark.parametrize("behind_ms", [0, 1, 2_000])
def test_other_content_of_the_same_time_in_an_older_list_is_no_change(behind_ms: int) -> None:
    """The list shows the take profit of before the frame."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row(takeProfit="3.5")))
    old = {"linear": {"list": [a_rest_row()]}}
    assert not values(feeder.answer(Part.POSITIONS, old, time_ms=AT_MS - behind_ms), Topic.POSITION_CHANGES)
    assert not values(feeder.answer(Part.POSITIONS, old, time_ms=SURE_MS), Topic.POSITION_CHANGES)
    [change] = values(feeder.answer(Part.POSITIONS, old, time_ms=SURE_MS + 1), Topic.POSITION_CHANGES)
    assert change["after"]["take_profit"] == "0"  # type: ignore[index]


@pytest.mark.parametrize(
    "changes",
    [
        {"takeProfit": "0.00"},
        {"takeProfit": ""},
        {"size": "4.0"},
        {"markPrice": "3.2", "unrealisedPnl": "1.6"},
    ],
)
def test_same_content_written_differently_is_no_change(changes: dict[str, str]) -> None:
    """REST writes unset prices differently, and the mark price of the moment is in every repetition."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    assert not feeder.frame(a_position_frame(a_row(**changes), at_ms=AT_MS + 1))


# State of earlier versions


def test_state_of_the_previous_version_is_continued() -> None:
    """It has one time for all coins, and of positions only the times in their rows."""
    feeder = a_feeder()
    feeder.frame(three_positions())
    feeder.frame(a_wallet_frame(AT_MS, BTC="5"))
    old = msgspec.msgpack.decode(feeder.translator.save())
    for name in ("other_coins", "coins_absent_ms", "positions_seen_ms", "positions_absent_ms"):
        del old["account"][name]
    for coin in old["account"]["coins"].values():
        del coin["at_ms"]
    feeder.translator = Translator(msgspec.msgpack.encode(old), account_id="acc")

    feeder.answer(Part.WALLET, a_wallet(BTC="4"), time_ms=AT_MS - 1)
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=1_737_705_600_059)

    view = the_view(feeder)
    assert view["balances"] == {"USDT": "1", "BTC": "5"}
    assert len(sizes(view)) == 3
