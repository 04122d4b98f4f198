"""`account_raw`: the message of HedgeLock's first collector, with every part as last known."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from hedgelock_ingest.models.account import AccountRaw
from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose
from hedgelock_ingest.translate.absence import REST_LAG_MS
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.translate.account_feeder import (
    AT_MS,
    FLEXIBLE,
    LOAN_POSITION,
    NO_POSITIONS,
    Feeder,
    a_feeder,
    a_position_frame,
    a_rest_row,
    a_row,
    a_transferable_wallet,
    a_wallet,
    a_wallet_frame,
    sample,
    values,
)

# Source: HedgeLock, src/hedgelock/collector/README.md, "Account Update".
README_EXAMPLE = """
{
  "timestamp": "2024-01-01T12:00:00Z",
  "account_id": "default_account",
  "balances": {
    "BTC": {
      "coin": "BTC",
      "wallet_balance": "2.5",
      "available_balance": "2.0"
    }
  },
  "positions": [...],
  "collateral_info": {
    "ltv": "0.65",
    "collateral_value": "100000.00",
    "borrowed_amount": "65000.00",
    "collateral_ratio": "1.54",
    "free_collateral": "35000.00"
  },
  "loan_info": {...},
  "source": "collector",
  "trace_id": "uuid-v4"
}
"""
NOON_MS = 1_704_110_400_000  # 2024-01-01T12:00:00Z


def the_raw(records: list[Any]) -> dict[str, Any]:
    """Return the only message of `account_raw`."""
    [raw] = values(records, Topic.ACCOUNT_RAW)
    return raw


def a_detailed_frame(at_ms: int, account: dict[str, object], **coin: object) -> bytes:
    """Build a frame of the wallet with figures of the account and of BTC."""
    row = {"coin": "BTC", "walletBalance": "2.5"} | coin
    data = [{"accountType": "UNIFIED", "coin": [row]} | account]
    return json.dumps({"topic": "wallet", "id": f"w{at_ms}", "creationTime": at_ms, "data": data}).encode()


# The message of the first collector


def test_message_is_that_of_the_collectors_readme() -> None:
    """Existing consumers read these fields of every message, with these types."""
    example = json.loads(README_EXAMPLE.replace("[...]", "[]").replace("{...}", "{}"))
    loan = LOAN_POSITION | {"ltv": "0.65", "totalCollateral": "100000.00", "totalDebt": "65000.00"}
    feeder = Feeder()
    feeder.translator = Translator()
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=NOON_MS - 3)
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=NOON_MS - 2)
    feeder.answer(Part.COLLATERAL, {"position": loan}, time_ms=NOON_MS - 1)
    raw = the_raw(
        feeder.answer(
            Part.WALLET, a_transferable_wallet({"BTC": "2.0"}, BTC="2.5"), time_ms=NOON_MS, purpose=Purpose.POLL
        )
    )

    assert {name: type(raw[name]) for name in example} == {name: type(value) for name, value in example.items()}
    for name in ("account_id", "balances", "positions", "source"):
        assert raw[name] == example[name]
    ours, theirs = (
        AccountRaw.model_validate(raw),
        AccountRaw.model_validate(
            example
            | {"schema_version": 1, "origin": "rest:wallet", "trace_id": raw["trace_id"]}
            | {"loan_info": raw["loan_info"]}
        ),
    )
    assert ours.timestamp == theirs.timestamp
    assert ours.collateral_info is not None
    assert theirs.collateral_info is not None
    assert set(raw["collateral_info"]) == set(example["collateral_info"])
    assert round(Decimal(raw["collateral_info"].pop("collateral_ratio")), 2) == Decimal("1.54")
    assert raw["collateral_info"] == {k: v for k, v in example["collateral_info"].items() if k != "collateral_ratio"}


# A whole message


def test_part_is_null_only_until_it_was_seen() -> None:
    """A consumer that reads the LTV of every message must find it, whatever the message is about."""
    feeder = Feeder()
    first = the_raw(feeder.frame(a_wallet_frame(1_000, BTC="5")))
    feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=2_000)
    feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=3_000)
    feeder.answer(Part.POSITIONS, NO_POSITIONS, time_ms=4_000)
    last = the_raw(feeder.frame(a_wallet_frame(5_000, BTC="6")))

    assert [first[part] for part in ("positions", "collateral_info", "loan_info")] == [None] * 3
    nothing = {"positions": None, "collateral_info": None, "loan_info": None}
    assert first["as_of"] == nothing | {"balances": iso(1_000)}
    assert last["collateral_info"]["ltv"] == "0.524344"
    assert last["loan_info"]["flexible"][0]["loan_currency"] == "ETH"
    assert (last["positions"], last["origin"]) == ([], "websocket:wallet")
    assert last["as_of"] == {
        "balances": iso(5_000),
        "positions": iso(4_000),
        "collateral_info": iso(2_000),
        "loan_info": iso(3_000),
    }


@pytest.mark.parametrize(
    ("part", "results", "origin"),
    [
        (Part.WALLET, a_wallet(USDT="2"), "rest:wallet"),
        (Part.POSITIONS, {"linear": {"list": [a_rest_row()]}}, "rest:positions"),
        (Part.COLLATERAL, {"position": LOAN_POSITION}, "rest:collateral"),
        (Part.LOANS, {"flexible": FLEXIBLE}, "rest:loans"),
    ],
)
def test_message_of_every_poll_holds_all_parts(part: Part, results: dict[str, object], origin: str) -> None:
    """0 of 120 messages held more than one part."""
    raw = the_raw(a_feeder().answer(part, results, time_ms=AT_MS, purpose=Purpose.POLL))
    assert raw["origin"] == origin
    assert not [name for name in ("balances", "positions", "collateral_info", "loan_info") if raw[name] is None]
    assert None not in raw["as_of"].values()


def test_whole_message_survives_a_restart() -> None:
    """The state keeps every part."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    feeder.frame(sample("wallet"))
    before = the_raw(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=AT_MS, purpose=Purpose.POLL))
    feeder.translator = Translator(feeder.translator.save(), account_id="acc")
    after = the_raw(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=AT_MS, purpose=Purpose.POLL))
    assert after == before


def test_message_of_another_part_does_not_undo_a_later_frame() -> None:
    """A poll that is older than the frames shows what the frames reported."""
    feeder = a_feeder()
    feeder.frame(a_wallet_frame(2_000, USDT="1000"))
    raw = the_raw(feeder.answer(Part.WALLET, a_wallet(USDT="900"), time_ms=1_990, purpose=Purpose.POLL))
    assert (raw["balances"]["USDT"]["wallet_balance"], raw["as_of"]["balances"]) == ("1000", iso(2_000))


def test_positions_are_all_open_ones_and_those_reported_as_flat() -> None:
    """A frame holds the positions of one order; the others are still open."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row(), a_row("SOLUSDT", "0.2")))
    later = {"updatedTime": str(AT_MS + 1), "seq": 19_371_738_700}
    flat = the_raw(feeder.frame(a_position_frame(a_row("SOLUSDT", "0", **later), at_ms=AT_MS + 1)))
    next_one = the_raw(feeder.frame(a_wallet_frame(AT_MS + 2, USDT="2")))

    assert {one["symbol"]: one["size"] for one in flat["positions"]} == {"XRPUSDT": "4", "SOLUSDT": "0"}
    assert {one["symbol"]: one["size"] for one in next_one["positions"]} == {"XRPUSDT": "4"}


def test_mark_price_of_an_unchanged_position_is_the_last_one_reported() -> None:
    """A repetition is no change, but its mark price and PnL are later."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    moved = a_rest_row(markPrice="3.2", unrealisedPnl="1.6")
    feeder.answer(Part.POSITIONS, {"linear": {"list": [moved]}}, time_ms=AT_MS + 1)
    feeder.answer(Part.POSITIONS, {"linear": {"list": [a_rest_row(markPrice="2.9")]}}, time_ms=AT_MS - 1)
    [position] = the_raw(feeder.frame(a_wallet_frame(AT_MS + 2, USDT="2")))["positions"]
    assert (position["mark_price"], position["unrealised_pnl"]) == ("3.2", "1.6")


def test_change_in_a_list_that_is_older_than_a_repetition_is_shown() -> None:
    """The frame repeated the position as it had been before the change."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row(), at_ms=AT_MS + 10))
    changed = a_rest_row(size="5", updatedTime=str(AT_MS + 3), seq=19_371_738_700)
    raw = the_raw(feeder.answer(Part.POSITIONS, {"linear": {"list": [changed]}}, time_ms=AT_MS + 5))
    assert [position["size"] for position in raw["positions"]] == ["5"]


# The available balance


def test_frame_carries_the_available_balance_that_rest_reported_and_its_time() -> None:
    """The stream leaves it empty for unified accounts: it was null in 52 of 52 balances."""
    feeder = a_feeder()
    feeder.answer(Part.WALLET, a_transferable_wallet({"BTC": "1.99990000"}, BTC="5"), time_ms=1_000)
    records = feeder.frame(a_wallet_frame(2_000, BTC="4"))

    raw = the_raw(records)
    assert raw["balances"]["BTC"] == {"coin": "BTC", "wallet_balance": "4", "available_balance": "1.99990000"}
    [view] = values(records, Topic.ACCOUNT_UPDATES)
    for message in (raw, view):
        detail: Any = message["balances_detail"]
        assert detail["BTC"]["available_balance"] == "1.99990000"
        assert (detail["BTC"]["available_balance_at"], detail["BTC"]["as_of"]) == (iso(1_000), iso(2_000))


@pytest.mark.parametrize(
    "results",
    [a_wallet(BTC="4"), a_transferable_wallet({}, BTC="4"), a_transferable_wallet({"BTC": ""}, BTC="4")],
)
def test_wallet_without_an_answer_about_the_available_balance_leaves_it_as_known(results: dict[str, object]) -> None:
    """Bybit refused that request, did not answer it, or reported no amount."""
    feeder = a_feeder()
    feeder.answer(Part.WALLET, a_transferable_wallet({"BTC": "2"}, BTC="5"), time_ms=1_000)
    raw = the_raw(feeder.answer(Part.WALLET, results, time_ms=2_000))
    assert raw["balances"]["BTC"] == {"coin": "BTC", "wallet_balance": "4", "available_balance": "2"}
    assert raw["balances_detail"]["BTC"]["available_balance_at"] == iso(1_000)


def test_older_available_balance_does_not_replace_a_later_one() -> None:
    """Answers may arrive in another order than they were made."""
    feeder = a_feeder()
    feeder.answer(Part.WALLET, a_transferable_wallet({"BTC": "2"}, BTC="5"), time_ms=2_000)
    raw = the_raw(feeder.answer(Part.WALLET, a_transferable_wallet({"BTC": "3"}, BTC="5"), time_ms=1_000))
    assert raw["balances"]["BTC"]["available_balance"] == "2"


def test_available_balance_is_taken_although_the_balance_beside_it_is_older_than_a_frame() -> None:
    """The stream does not report it, so a frame makes it no older."""
    feeder = a_feeder()
    feeder.frame(a_wallet_frame(2_000, BTC="4"))
    raw = the_raw(feeder.answer(Part.WALLET, a_transferable_wallet({"BTC": "3"}, BTC="5"), time_ms=1_990))
    assert raw["balances"]["BTC"] == {"coin": "BTC", "wallet_balance": "4", "available_balance": "3"}
    assert raw["balances_detail"]["BTC"]["available_balance_at"] == iso(1_990)


@pytest.mark.parametrize("available", [{"BTC": "much", "ETH": "1"}, {"BTC": 7, "ETH": "1"}])
def test_available_balance_that_cannot_be_decoded_is_a_dead_letter_alone(available: dict[str, object]) -> None:
    """The balances, and the available balances of other coins, count."""
    feeder = a_feeder()
    records = feeder.answer(Part.WALLET, a_transferable_wallet(available, BTC="5", ETH="3"), time_ms=2_000)

    assert the_raw(records)["balances"] == {
        "USDT": {"coin": "USDT", "wallet_balance": "1", "available_balance": None},
        "BTC": {"coin": "BTC", "wallet_balance": "5", "available_balance": None},
        "ETH": {"coin": "ETH", "wallet_balance": "3", "available_balance": "1"},
    }
    [letter] = values(records, Topic.INGEST_DEAD_LETTERS)
    raw = msgspec.convert(letter["raw"], bytes, strict=False)
    assert msgspec.json.decode(raw)["results"] == {"withdrawal": {"availableWithdrawalMap": {"BTC": available["BTC"]}}}
    assert "much" not in str(letter["reason"])
    again = feeder.frame(raw, "rest-wallet")
    assert [record.topic for record in again] == [Topic.INGEST_DEAD_LETTERS], "its replay changed the account"


def test_answer_of_another_shape_about_the_available_balance_loses_no_balance() -> None:
    """It is kept as a dead letter."""
    feeder = a_feeder()
    results = a_wallet(USDT="2") | {"withdrawal": {"list": []}}
    records = feeder.answer(Part.WALLET, results, time_ms=2_000)
    assert the_raw(records)["balances"]["USDT"]["wallet_balance"] == "2"
    assert len(values(records, Topic.INGEST_DEAD_LETTERS)) == 1


# Margin and figures of coins


MARGIN: dict[str, object] = {
    "totalEquity": "1001.52819962",
    "totalWalletBalance": "840.11430712",
    "totalMarginBalance": "841.28368768",
    "totalAvailableBalance": "837.6076437",
    "totalPerpUPL": "1.16938055",
    "totalInitialMargin": "3.67604398",
    "totalMaintenanceMargin": "0.30525761",
    "accountIMRate": "0.0043",
    "accountMMRate": "0.0003",
}
PUBLISHED_MARGIN = {
    "total_equity": "1001.52819962",
    "total_wallet_balance": "840.11430712",
    "total_margin_balance": "841.28368768",
    "total_available_balance": "837.6076437",
    "total_perp_upl": "1.16938055",
    "total_initial_margin": "3.67604398",
    "total_maintenance_margin": "0.30525761",
    "account_im_rate": "0.0043",
    "account_mm_rate": "0.0003",
}


def test_figures_of_a_recorded_frame_are_published_digit_by_digit() -> None:
    """A hedger needs the margin of the account, in both topics."""
    records = a_feeder().frame(sample("wallet", 5))
    raw = the_raw(records)
    [view] = values(records, Topic.ACCOUNT_UPDATES)
    for message in (raw, view):
        details: Any = message["balances_detail"]
        assert message["margin"] == PUBLISHED_MARGIN
        assert details["USDT"] == {
            "equity": "1001.44207561",
            "usd_value": "1001.52819962",
            "unrealised_pnl": "1.392",
            "borrow_amount": "0",
            "accrued_interest": "0",
            "locked": "0",
            "collateral_switch": True,
            "margin_collateral": True,
            "available_balance": None,
            "available_balance_at": None,
            "as_of": "2025-01-24T13:36:35.605Z",
        }


def test_figure_that_bybit_leaves_empty_is_null() -> None:
    """It does not apply, in isolated margin for example; zero would be a wrong figure."""
    frame = a_detailed_frame(1_000, MARGIN | {"accountIMRate": "", "accountMMRate": ""}, equity="", locked="")
    raw = the_raw(Feeder().frame(frame))
    assert raw["margin"] == PUBLISHED_MARGIN | {"account_im_rate": None, "account_mm_rate": None}
    assert (raw["balances_detail"]["BTC"]["equity"], raw["balances_detail"]["BTC"]["locked"]) == (None, None)


@pytest.mark.parametrize("value", [7, None, "much", "1e5", ["1"], True])
def test_figure_of_an_unexpected_kind_loses_no_balance(value: object) -> None:
    """It only describes the account; the balance beside it counts."""
    frame = a_detailed_frame(1_000, MARGIN | {"totalEquity": value}, equity=value, collateralSwitch="yes")
    raw = the_raw(Feeder().frame(frame))
    assert raw["balances"]["BTC"]["wallet_balance"] == "2.5"
    assert raw["margin"] == PUBLISHED_MARGIN | {"total_equity": None}
    detail = raw["balances_detail"]["BTC"]
    assert (detail["equity"], detail["collateral_switch"]) == (None, None)


def test_figures_of_rest_are_taken_unless_a_frame_is_later() -> None:
    """A change of unrealised PnL alone sends no frame, so polls are what keeps them current."""
    account = {"accountType": "UNIFIED", "coin": [{"coin": "BTC", "walletBalance": "2.5", "equity": "3"}]}
    polled = {"wallet": {"list": [account | MARGIN | {"totalEquity": "7"}]}}
    feeder = Feeder()
    feeder.frame(a_detailed_frame(1_000, MARGIN, equity="2"))

    older = the_raw(feeder.answer(Part.WALLET, polled, time_ms=999))
    later = the_raw(feeder.answer(Part.WALLET, polled, time_ms=1_001 + REST_LAG_MS))
    seen = [(raw["margin"]["total_equity"], raw["balances_detail"]["BTC"]["equity"]) for raw in (older, later)]
    assert seen == [("1001.52819962", "2"), ("7", "3")]


def test_figures_of_a_second_wallet_are_not_the_accounts() -> None:
    """Bybit leaves them empty there, which would hide those of the unified account."""
    feeder = Feeder()
    feeder.frame(a_detailed_frame(1_000, MARGIN))
    second: dict[str, object] = {**dict.fromkeys(MARGIN, ""), "accountType": "CONTRACT"}
    raw = the_raw(feeder.frame(a_detailed_frame(1_001, second)))
    assert raw["margin"] == PUBLISHED_MARGIN


# State of earlier versions


def test_state_of_the_previous_version_has_no_figures_and_no_loans() -> None:
    """They are null until they are reported again; everything else is there."""
    feeder = a_feeder()
    feeder.frame(a_position_frame(a_row()))
    old = msgspec.msgpack.decode(feeder.translator.save())
    for name in ("margin", "margin_ms", "positions_repeated", "loans"):
        del old["account"][name]
    for coin in old["account"]["coins"].values():
        del coin["available_ms"], coin["detail"]
    feeder.translator = Translator(msgspec.msgpack.encode(old), account_id="acc")

    raw = the_raw(feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=AT_MS))
    assert (raw["margin"], raw["loan_info"], raw["as_of"]["loan_info"]) == (None, None, None)
    assert raw["balances"]["USDT"]["wallet_balance"] == "1"
    assert raw["balances_detail"]["USDT"]["equity"] is None
    assert [position["symbol"] for position in raw["positions"]] == ["XRPUSDT"]
