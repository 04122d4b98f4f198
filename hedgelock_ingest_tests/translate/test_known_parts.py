"""Messages of polls, completed with parts that are known from elsewhere."""

import json
from typing import Any

from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.known_parts import KnownParts
from hedgelock_ingest_tests.translate.account_feeder import (
    AT_MS,
    FLEXIBLE,
    LOAN_POSITION,
    NO_POSITIONS,
    Feeder,
    a_position_frame,
    a_row,
    a_transferable_wallet,
    a_wallet,
    a_wallet_frame,
    values,
)

PARTS = ("balances", "positions", "collateral_info", "loan_info")


def a_poll(part: Part, results: dict[str, object], *, time_ms: int) -> AccountRaw:
    """Build the message of one poll, as it is made without any state."""
    [raw] = values(Feeder().answer(part, results, time_ms=time_ms, purpose=Purpose.POLL), Topic.ACCOUNT_RAW)
    return AccountRaw.model_validate(raw)


def a_message_of_the_stream() -> AccountRaw:
    """Build a whole message, with a second wallet."""
    feeder = Feeder()
    feeder.answer(Part.WALLET, a_transferable_wallet({"BTC": "4.0"}, BTC="5"), time_ms=1)
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=2)
    feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=3)
    feeder.frame(a_wallet_frame(4, "CONTRACT", BTC="0.2"))
    [raw] = values(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=5), Topic.ACCOUNT_RAW)
    return AccountRaw.model_validate(raw)


def shown(message: AccountRaw) -> dict[str, Any]:
    """Return a message as it is published."""
    value: dict[str, Any] = json.loads(message.model_dump_json(by_alias=True))
    return value


def test_poll_is_completed_with_the_last_message_of_the_topic() -> None:
    """A consumer reads any part of every message, also those of an orchestrator."""
    known = KnownParts()
    known.add(a_message_of_the_stream())
    loan = LOAN_POSITION | {"totalDebt": "65000.00"}
    whole = shown(known.complete(a_poll(Part.COLLATERAL, {"position": loan}, time_ms=9)))

    stream = shown(a_message_of_the_stream())
    for name in ("balances", "balances_detail", "margin", "other_balances", "positions", "loan_info"):
        assert whole[name] == stream[name]
    assert (whole["collateral_info"]["borrowed_amount"], whole["origin"]) == ("65000.00", "rest:collateral")
    assert (whole["timestamp"], whole["account_id"]) == (iso(9), "acc")
    assert whole["as_of"] == stream["as_of"] | {"collateral_info": iso(9)}


def test_polls_of_a_session_complete_each_other() -> None:
    """Without a record in the topic, parts that were not polled yet are null."""
    known = KnownParts()
    first = shown(known.complete(a_poll(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=1)))
    known.complete(a_poll(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=2))
    third = shown(known.complete(a_poll(Part.WALLET, a_wallet(BTC="5"), time_ms=3)))

    assert [first[part] is None for part in PARTS] == [True, True, False, True]
    assert [third[part] is None for part in PARTS] == [False, True, False, False]
    assert third["as_of"] == {
        "balances": iso(3),
        "positions": None,
        "collateral_info": iso(1),
        "loan_info": iso(2),
    }


def test_part_that_was_polled_is_not_replaced_by_a_record_that_is_read_late() -> None:
    """Kafka was slow: the record is older than what the session has published meanwhile."""
    known = KnownParts()
    known.complete(a_poll(Part.COLLATERAL, {"position": LOAN_POSITION | {"totalDebt": "1.00"}}, time_ms=8))
    known.add(a_message_of_the_stream())
    whole = shown(known.complete(a_poll(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=9)))
    assert (whole["collateral_info"]["borrowed_amount"], whole["as_of"]["collateral_info"]) == ("1.00", iso(8))
    assert whole["balances"]["BTC"]["wallet_balance"] == "5"


def test_poll_without_an_available_balance_carries_the_known_one_and_its_time() -> None:
    """Bybit did not answer that request."""
    known = KnownParts()
    known.add(a_message_of_the_stream())
    whole = shown(known.complete(a_poll(Part.WALLET, a_wallet(BTC="6", ETH="1"), time_ms=9)))
    assert whole["balances"] == {
        "BTC": {"coin": "BTC", "wallet_balance": "6", "available_balance": "4.0"},
        "ETH": {"coin": "ETH", "wallet_balance": "1", "available_balance": None},
    }
    detail = whole["balances_detail"]["BTC"]
    assert (detail["available_balance"], detail["available_balance_at"], detail["as_of"]) == ("4.0", iso(1), iso(9))


def test_coin_that_a_poll_lacks_is_not_added() -> None:
    """The list of a poll is complete: a coin that it lacks is gone, or will be with the next one."""
    known = KnownParts()
    known.add(a_message_of_the_stream())
    whole = shown(known.complete(a_poll(Part.WALLET, a_wallet(ETH="1"), time_ms=9)))
    assert list(whole["balances"]) == list(whole["balances_detail"]) == ["ETH"]


def test_record_of_an_earlier_version_holds_one_part_as_of_its_own_time() -> None:
    """The topic keeps such records for 30 days."""
    value = shown(a_poll(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=1))
    for name in ("as_of", "margin", "balances_detail"):
        del value[name]
    known = KnownParts()
    known.add(AccountRaw.model_validate(value))
    whole = shown(known.complete(a_poll(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=9)))
    assert (whole["collateral_info"]["ltv"], whole["as_of"]["collateral_info"]) == ("0.524344", iso(1))


def test_part_of_the_latest_time_counts_in_whatever_order_messages_are_read() -> None:
    """The last record is nearly always a poll's, with positions as old as its session: the stream's frame is newer."""
    feeder = Feeder()
    feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=3)
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=4)
    [older] = values(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=5), Topic.ACCOUNT_RAW)
    [newer] = values(feeder.frame(a_position_frame(a_row(), at_ms=AT_MS)), Topic.ACCOUNT_RAW)
    poll = a_poll(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=AT_MS + 5)
    for order in ([older, newer], [newer, older]):
        known = KnownParts()
        for each in order:
            known.add(AccountRaw.model_validate(each))
        whole = shown(known.complete(poll))
        assert [position["symbol"] for position in whole["positions"]] == ["XRPUSDT"]
        assert whole["as_of"]["positions"] == iso(AT_MS)


def test_coin_whose_row_cannot_be_decoded_stays_as_it_was_known() -> None:
    """The poll's list may hold it; its dead letter does."""
    known = KnownParts()
    known.add(a_message_of_the_stream())
    whole = shown(known.complete(a_poll(Part.WALLET, a_wallet(ETH="1"), time_ms=9), is_whole=False))
    assert (whole["balances"]["BTC"]["wallet_balance"], whole["balances_detail"]["BTC"]["as_of"]) == ("5", iso(1))
