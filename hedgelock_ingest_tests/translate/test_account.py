"""The account: records translated from private frames and REST answers, digit for digit."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.loans import LIQUIDATION_LTV, MARGIN_CALL_LTV, price_factor_at
from hedgelock_ingest.protocol.rest_messages import Part, Purpose
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.translate.account_feeder import (
    ALL_EMPTY,
    FLEXIBLE,
    LOAN_POSITION,
    SAMPLES,
    Feeder,
    a_feeder,
    a_position_frame,
    a_rest_trade,
    a_row,
    a_trade_frame,
    a_wallet,
    a_wallet_frame,
    sample,
    values,
)


def test_every_recorded_private_frame_becomes_valid_records() -> None:
    """Frames recorded from Bybit decode, and none becomes a dead letter."""
    feeder = Feeder()
    for line in SAMPLES.read_bytes().splitlines():
        if "topic" in json.loads(line):
            assert all(record.topic is not Topic.INGEST_DEAD_LETTERS for record in feeder.frame(line))


def test_wallet_frame_becomes_an_account_raw_record_with_the_coins_of_the_frame() -> None:
    """Existing consumers read exactly these fields; parts that are not in the frame are null."""
    [raw] = values(Feeder().frame(sample("wallet")), Topic.ACCOUNT_RAW)
    assert raw["balances"] == {
        "USDC": {"coin": "USDC", "wallet_balance": "0", "available_balance": "0"},
        "USDT": {"coin": "USDT", "wallet_balance": "9998.58103788", "available_balance": "9694.45167558"},
    }
    assert (raw["positions"], raw["collateral_info"], raw["loan_info"]) == (None, None, None)
    assert (raw["source"], raw["origin"], raw["account_id"]) == ("collector", "websocket:wallet", "acc")


def test_empty_available_balance_is_null() -> None:
    """Bybit sends an empty string in some account modes; any other value would be a wrong balance."""
    [raw] = values(Feeder().frame(sample("wallet", 5)), Topic.ACCOUNT_RAW)
    assert raw["balances"] == {"USDT": {"coin": "USDT", "wallet_balance": "1000.05007561", "available_balance": None}}


def test_merged_view_waits_for_every_part_and_then_follows_each_change() -> None:
    """The view never contains nulls or guesses, so it needs every part, the loan included."""
    feeder = Feeder()
    assert not values(feeder.frame(sample("wallet")), Topic.ACCOUNT_UPDATES)
    assert not values(feeder.answer(Part.POSITIONS, {"linear": {"list": []}}, time_ms=10), Topic.ACCOUNT_UPDATES)
    assert not values(feeder.answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=11), Topic.ACCOUNT_UPDATES)
    assert feeder.translator.missing_account_parts == ["loans"]
    [first] = values(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=12), Topic.ACCOUNT_UPDATES)
    assert first["balances"] == {"USDC": "0", "USDT": "9998.58103788"}
    assert (first["loan_amount"], first["collateral_value"], first["ltv"]) == ("9638.17", "18381.41", "0.524344")
    assert first["positions"] == []
    [second] = values(feeder.frame(sample("position")), Topic.ACCOUNT_UPDATES)
    assert [position["symbol"] for position in second["positions"]] == ["XRPUSDT"]  # type: ignore[attr-defined]


def test_collateral_answer_gives_ratio_and_free_collateral_exactly() -> None:
    """The risk engine reads these: 18381.41 / 9638.17 = 1.9071…; Bybit's digits are unchanged."""
    [raw] = values(Feeder().answer(Part.COLLATERAL, {"position": LOAN_POSITION}, time_ms=5), Topic.ACCOUNT_RAW)
    assert raw["collateral_info"] == {
        "ltv": "0.524344",
        "collateral_value": "18381.41",
        "borrowed_amount": "9638.17",
        "collateral_ratio": "1.9071",
        "free_collateral": "8743.24",
    }


def test_account_without_a_loan_has_no_ratio_and_an_ltv_of_zero() -> None:
    """An empty ltv means that nothing is owed."""
    nothing = LOAN_POSITION | {"ltv": "", "totalDebt": "0", "borrowList": []}
    [raw] = values(Feeder().answer(Part.COLLATERAL, {"position": nothing}, time_ms=5), Topic.ACCOUNT_RAW)
    assert raw["collateral_info"]["ltv"] == "0"  # type: ignore[index]
    assert raw["collateral_info"]["collateral_ratio"] is None  # type: ignore[index]


def test_loan_rows_keep_bybits_values_under_snake_case_names() -> None:
    """Rows of different kinds of loans differ too much for one model; empty strings become null."""
    [raw] = values(Feeder().answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=5), Topic.ACCOUNT_RAW)
    assert raw["loan_info"] == {
        "flexible": [
            {
                "hourly_interest_rate": "0.0000018847396",
                "loan_currency": "ETH",
                "total_debt": "0.10000019",
                "unpaid_amount": "0.1",
                "unpaid_interest": None,
            }
        ],
        "fixed": None,
        "legacy": None,
    }


def test_position_that_did_not_change_is_not_published() -> None:
    """Bybit sends positions with every order; only changes are published."""
    feeder = Feeder()
    [change] = values(feeder.frame(sample("position")), Topic.POSITION_CHANGES)
    assert change["before"] is None
    assert not feeder.frame(sample("position"))
    assert feeder.translator.counts == {"positions_known": 1}


@pytest.mark.parametrize("channel", ["position", "order", "execution"])
def test_row_that_gives_no_record_is_counted(channel: str) -> None:
    """No frame vanishes without a record, a dead letter or a count."""
    feeder = Feeder()
    feeder.frame(sample(channel))
    assert not feeder.translator.counts

    assert not feeder.frame(sample(channel))
    assert feeder.translator.counts == {f"{channel}s_known": 1}


def test_position_row_without_content_is_counted() -> None:
    """It is about a symbol that was never traded."""
    feeder = Feeder()

    assert not feeder.frame(a_position_frame(a_row(size="0", side="", updatedTime="", seq=-1)))
    assert feeder.translator.counts == {"positions_blank": 1}


def test_position_change_holds_before_after_and_the_change_of_pnl() -> None:
    """PnL change is realised and unrealised together: (0.06 + 1.5) - (0.05007561 + 1.392)."""
    feeder = Feeder()
    feeder.frame(sample("position"))
    later = json.loads(sample("position"))
    later["data"][0] |= {"updatedTime": "1737725800000", "seq": 19371738700, "size": "5"}
    later["data"][0] |= {"cumRealisedPnl": "0.06", "unrealisedPnl": "1.5"}
    [change] = values(feeder.frame(json.dumps(later).encode()), Topic.POSITION_CHANGES)
    assert (change["before"]["size"], change["after"]["size"]) == ("4", "5")  # type: ignore[index]
    assert change["pnl_change"] == "0.11792439"


def test_change_of_pnl_keeps_digits_beyond_those_of_a_float_or_the_default_context() -> None:
    """Python's default context rounds sums to 28 digits and raises no error."""
    feeder = Feeder()
    first = json.loads(sample("position"))
    first["data"][0] |= {"cumRealisedPnl": "0", "unrealisedPnl": "0.000000000000000001"}
    feeder.frame(json.dumps(first).encode())
    first["data"][0] |= {"updatedTime": "1737725800000", "seq": 19371738700}
    first["data"][0] |= {"cumRealisedPnl": "123456789012345678901.123456789012345678", "unrealisedPnl": "0"}
    [change] = values(feeder.frame(json.dumps(first).encode()), Topic.POSITION_CHANGES)
    assert change["pnl_change"] == "123456789012345678901.123456789012345677"


def test_wallet_frame_is_applied_after_a_rest_answer_of_a_later_time() -> None:
    """REST may lag behind the stream: an answer with a later time is not necessarily newer."""
    feeder = a_feeder()
    feeder.answer(Part.WALLET, a_wallet(USDT="900"), time_ms=2_000)

    records = feeder.frame(a_wallet_frame(1_990, USDT="1000"))

    [raw] = values(records, Topic.ACCOUNT_RAW)
    [update] = values(records, Topic.ACCOUNT_UPDATES)
    assert raw["balances"] == {"USDT": {"coin": "USDT", "wallet_balance": "1000", "available_balance": None}}
    assert update["balances"] == {"USDT": "1000"}


def test_rest_wallet_of_an_earlier_time_is_published_but_not_merged() -> None:
    """Each poll gives a record, but the merged view keeps the values of a later frame."""
    feeder = a_feeder()
    feeder.frame(a_wallet_frame(2_000, USDT="1000"))

    records = feeder.answer(Part.WALLET, a_wallet(USDT="900"), time_ms=1_990, purpose=Purpose.POLL)

    assert [raw["origin"] for raw in values(records, Topic.ACCOUNT_RAW)] == ["rest:wallet"]
    assert values(records, Topic.ACCOUNT_UPDATES) == []
    [update] = values(feeder.answer(Part.LOANS, {"flexible": FLEXIBLE}, time_ms=2_001), Topic.ACCOUNT_UPDATES)
    assert update["balances"] == {"USDT": "1000"}


def test_older_rest_positions_do_not_replace_those_of_a_later_frame() -> None:
    """REST may lag: the time of the row decides, not the time of the answer."""
    feeder = Feeder()
    feeder.frame(sample("position"))
    old = json.loads(sample("position"))["data"][0] | {"updatedTime": "1", "seq": 1, "size": "9"}
    assert not values(feeder.answer(Part.POSITIONS, {"linear": {"list": [old]}}, time_ms=20), Topic.POSITION_CHANGES)


def test_position_missing_from_a_complete_list_has_become_flat() -> None:
    """By settle coin Bybit lists open positions only: one that closed while no line was live is not listed."""
    feeder = Feeder()
    feeder.frame(sample("position"))
    at_ms = 1_737_725_900_000
    assert not values(
        feeder.answer(Part.POSITIONS, {"linear": {"list": []}}, time_ms=at_ms - 1), Topic.POSITION_CHANGES
    )
    [change] = values(feeder.answer(Part.POSITIONS, {"linear": {"list": []}}, time_ms=at_ms), Topic.POSITION_CHANGES)
    assert change["after"]["size"] == "0"  # type: ignore[index]
    assert (change["source"], change["healed"], change["pnl_change"]) == ("rest-backfill", True, None)


def test_execution_is_published_once_from_stream_and_rest() -> None:
    """Gap filling requests an overlap on purpose; a fill published twice would be hedged twice."""
    feeder = Feeder()
    [execution] = values(feeder.frame(sample("execution")), Topic.EXECUTIONS)
    assert (execution["price"], execution["size"], execution["fee"]) == ("41553.9", "0.001", "0.02285465")
    row = json.loads(sample("execution"))["data"][0]
    other = row | {"execId": "new", "execTime": "1705761437600"}
    healed = values(feeder.answer(Part.EXECUTIONS, {"linear": {"list": [other, row]}}, time_ms=30), Topic.EXECUTIONS)
    assert [(fill["exec_id"], fill["healed"], fill["source"]) for fill in healed] == [("new", True, "rest-backfill")]


def test_two_filled_states_of_one_order_are_both_published() -> None:
    """A cancel that meets a fill brings Filled twice, with different reasons."""
    feeder = Feeder()
    order = json.loads(sample("order"))
    assert len(values(feeder.frame(json.dumps(order).encode()), Topic.ORDER_UPDATES)) == 1
    order["data"][0] |= {"cancelType": "CancelByUser", "rejectReason": "EC_OrigClOrdIDDoesNotExist"}
    assert len(values(feeder.frame(json.dumps(order).encode()), Topic.ORDER_UPDATES)) == 1
    assert not feeder.frame(json.dumps(order).encode())


@pytest.mark.parametrize(
    ("part", "results", "feed", "healed"),
    [
        (Part.WALLET, {"wallet": {"list": [{"coin": []}]}}, "private:wallet", "partly"),
        (Part.POSITIONS, {"linear": {"list": []}}, "private:position", "partly"),
        (Part.ORDERS, {"linear": {"list": []}}, "private:order", "partly"),
        (Part.EXECUTIONS, ALL_EMPTY, "private:execution", "yes"),
    ],
)
def test_gap_of_a_private_channel_is_closed_by_the_answer_that_fills_it(
    part: Part, results: dict[str, object], feed: str, healed: str
) -> None:
    """Exactly one `Gap` is recorded: from the last frame until the feed was live, with how far it was filled."""
    feeder = Feeder()
    feeder.note("up", feed, at_ms=1_000)
    feeder.note("down", feed, at_ms=2_000, reason="no live line: reset")
    assert not values(feeder.note("up", feed, at_ms=3_000), Topic.INGEST_GAPS)
    [gap] = values(feeder.answer(part, results, time_ms=4_000, purpose=Purpose.SNAPSHOT), Topic.INGEST_GAPS)
    assert (gap["from"], gap["to"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:03.000Z")
    assert (gap["healed"], gap["reason"]) == (healed, "no live line: reset")


TRADES = "linear:publicTrade.BTCUSDT"


def _feeder_with_a_gap_of_trades() -> Feeder:
    feeder = Feeder()
    feeder.note("started", TRADES, fills_gaps=True)
    feeder.note("up", TRADES, at_ms=1_000)
    feeder.frame(a_trade_frame(1, 1_500), "linear-a")
    feeder.note("down", TRADES, at_ms=1_600, reason="no live line: reset")
    feeder.note("up", TRADES, at_ms=3_000)
    assert not values(feeder.frame(a_trade_frame(5, 3_100), "linear-a"), Topic.INGEST_GAPS)
    return feeder


def test_gap_of_trades_is_filled_when_rest_reaches_back_to_a_known_trade() -> None:
    """Only missing trades are published, marked `healed`, and the `Gap` reports that nothing is missing."""
    feeder = _feeder_with_a_gap_of_trades()
    rows = [a_rest_trade(5, 3_100), a_rest_trade(3, 2_500), a_rest_trade(2, 2_000), a_rest_trade(1, 1_500)]
    records = feeder.answer(
        Part.TRADES, {"linear": {"list": rows}}, time_ms=3_200, purpose=Purpose.GAP_FILL, feed=TRADES
    )
    trades = values(records, Topic.MARKET_TRADES)
    assert [(trade["trade_id"], trade["healed"]) for trade in trades] == [("t2", True), ("t3", True)]
    [gap] = values(records, Topic.INGEST_GAPS)
    assert (gap["healed"], gap["healed_by"], gap["missing"]) == ("yes", "rest", None)


def test_gap_of_trades_is_partly_filled_when_rest_does_not_reach_far_enough() -> None:
    """Spot lists 60 trades at most; older ones stay lost, and `missing` states them."""
    feeder = _feeder_with_a_gap_of_trades()
    records = feeder.answer(
        Part.TRADES,
        {"linear": {"list": [a_rest_trade(3, 2_500)]}},
        time_ms=3_200,
        purpose=Purpose.GAP_FILL,
        feed=TRADES,
    )
    [gap] = values(records, Topic.INGEST_GAPS)
    assert (gap["healed"], gap["missing"]) == ("partly", "trades before 1970-01-01T00:00:02.500Z")


def test_gap_that_rest_cannot_fill_is_recorded_with_the_cause() -> None:
    """A failed gap fill must be visible in `ingest-gaps`."""
    feeder = _feeder_with_a_gap_of_trades()
    [gap] = values(feeder.note("unhealed", TRADES, reason="REST answered 503"), Topic.INGEST_GAPS)
    assert (gap["healed"], gap["missing"]) == ("no", "everything: REST answered 503")


def test_gap_that_waits_for_rest_is_recorded_at_the_next_start_without_rest() -> None:
    """The process ended before REST answered, and nothing will fill the gap."""
    feeder = _feeder_with_a_gap_of_trades()
    saved = feeder.translator.save()
    feeder.translator = Translator(saved, account_id="acc")
    [gap] = values(feeder.note("started", TRADES, reason="the process ended", fills_gaps=False), Topic.INGEST_GAPS)
    assert gap["healed"] == "no"
    assert gap["reason"] == "no live line: reset"


def test_next_gap_begins_at_bybits_time_although_our_clock_is_ahead() -> None:
    """Otherwise fills of the next gap would lie before the time from which REST is asked."""
    feeder = Feeder()
    feeder.note("up", "private:execution", at_ms=60_000)
    feeder.answer(Part.EXECUTIONS, {"linear": {"list": []}}, time_ms=1_000, purpose=Purpose.GAP_FILL)
    assert feeder.translator.last_seen_ms("private:execution") == 1_000


def test_wrong_answer_becomes_a_dead_letter_and_changes_nothing() -> None:
    """REST answers are validated like any frame."""
    feeder = Feeder()
    broken = LOAN_POSITION | {"totalDebt": "much"}
    records = feeder.answer(Part.COLLATERAL, {"position": broken}, time_ms=5)
    [letter] = values(records, Topic.INGEST_DEAD_LETTERS)
    assert letter["origin"] == "rest"
    assert "much" not in str(letter["reason"])
    assert "collateral" in feeder.translator.missing_account_parts


@pytest.mark.parametrize("origin", ["linear-a", "spot-b"])
def test_private_topic_on_a_public_line_becomes_a_dead_letter(origin: str) -> None:
    """A public line cannot carry account data."""
    [record] = Feeder().frame(sample("wallet"), origin)
    assert record.topic is Topic.INGEST_DEAD_LETTERS


def test_thresholds_and_ltv_follow_bybits_example() -> None:
    """At the present price LTV is 0.524344 in Bybit's example; margin call at 85 %, liquidation at 95 %."""
    now, debt, collateral = (Decimal(str(LOAN_POSITION[name])) for name in ("ltv", "totalDebt", "totalCollateral"))
    factor = price_factor_at(now, debt=debt, moving=collateral, steady=Decimal(0))
    assert factor is not None
    assert round(factor, 5) == 1
    assert (Decimal("0.85"), Decimal("0.95")) == (MARGIN_CALL_LTV, LIQUIDATION_LTV)


@given(
    debt=st.decimals("1", "1e9", places=2),
    moving=st.decimals("1", "1e9", places=2),
    steady=st.decimals("0", "1e9", places=2),
    threshold=st.sampled_from([MARGIN_CALL_LTV, LIQUIDATION_LTV]),
)
def test_ltv_at_the_threshold_price_is_the_threshold(
    debt: Decimal, moving: Decimal, steady: Decimal, threshold: Decimal
) -> None:
    """At the computed price LTV equals the threshold; where there is none, no fall reaches the threshold."""
    factor = price_factor_at(threshold, debt=debt, moving=moving, steady=steady)
    if factor is None:
        assert debt / threshold <= steady
    else:
        reached = debt / (moving * factor + steady)
        assert abs(reached - threshold) < Decimal("1e-20")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_trades_at_the_edge_of_a_gap_are_remembered_however_many_came_since(is_restarted: bool) -> None:
    """REST may answer after more new trades than are normally remembered: published ones are not repeated."""
    feeder = _feeder_with_a_gap_of_trades()
    for number in range(6, 3_000):
        feeder.frame(a_trade_frame(number, 3_200 + number), "linear-a")
        if is_restarted and number == 2_000:
            feeder.translator = Translator(feeder.translator.save(), account_id="acc")
    rows = [a_rest_trade(5, 3_100), a_rest_trade(2, 2_000), a_rest_trade(1, 1_500)]
    records = feeder.answer(
        Part.TRADES, {"linear": {"list": rows}}, time_ms=3_200, purpose=Purpose.GAP_FILL, feed=TRADES
    )
    assert [trade["trade_id"] for trade in values(records, Topic.MARKET_TRADES)] == ["t2"]
    [gap] = values(records, Topic.INGEST_GAPS)
    assert gap["healed"] == "yes"
    for number in range(3_000, 4_500):
        feeder.frame(a_trade_frame(number, 3_200 + number), "linear-a")
    assert len(feeder.frame(a_trade_frame(5, 9_000), "linear-a")) == 1, "it is still remembered"
