"""Frames and rows that Bybit dates wrongly: they hide no others, and date no gap."""

import json
from random import Random
from typing import Any

import msgspec
import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.exchange_time import DEVIATING_FRAMES, ExchangeTime
from hedgelock_ingest.protocol.frames import NOTE, Frame
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestTradeRow
from hedgelock_ingest.translate.dated_trades import dated_trades
from hedgelock_ingest.translate.formatting import iso
from hedgelock_ingest.translate.state import Note
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.builders import (
    AT_MS,
    TRACE,
    a_delta,
    a_frame,
    a_liquidation,
    a_note,
    a_snapshot,
    a_ticker,
    a_trade,
)
from hedgelock_ingest_tests.translate.account_feeder import (
    ALL_EMPTY,
    Feeder,
    a_position_frame,
    a_rest_row,
    a_rest_trade,
    a_row,
    a_wallet,
    a_wallet_frame,
    values,
)
from hedgelock_ingest_tests.translate.translating import Running
from hedgelock_ingest_tests.translate.translating import values as values_of

TRADES, BOOK, TICKER = "linear:publicTrade.BTCUSDT", "linear:orderbook.50.BTCUSDT", "linear:tickers.BTCUSDT"
LIQUIDATIONS = "linear:allLiquidation.BTCUSDT"
WRONG_MS = pytest.mark.parametrize("wrong_ms", [6_000, 10_000, 3_600_000, -10_000, -AT_MS])


def read_at(raw: bytes, at_ms: int, *, line: str = "linear-a") -> Frame:
    """Journal a frame as read at a time."""
    return a_frame(raw, received_ns=at_ms * 1_000_000, line=line)


KINDS = {
    TRADES: lambda n, ts: a_trade(f"t{n}", ts=ts, T=ts, seq=n),
    LIQUIDATIONS: lambda n, ts: a_liquidation(ts=ts, T=ts, v=str(n)),
    BOOK: lambda n, ts: a_snapshot(update_id=n, ts=ts),
    TICKER: lambda n, ts: a_ticker(cs=n, ts=ts),
}


@WRONG_MS
@pytest.mark.parametrize("feed", KINDS)
def test_gap_after_a_frame_with_a_wrong_time_begins_at_the_true_one(feed: str, wrong_ms: int) -> None:
    """From an hour ahead, it would begin after missing frames; from 1970, REST would be asked for all since.

    It begins with the frame before, since this one may have been under way for long.
    """
    running = Running()
    running.take(*[read_at(KINDS[feed](n, AT_MS + 1_000 * n), AT_MS + 1_000 * n) for n in range(1, 7)])
    running.take(read_at(KINDS[feed](7, AT_MS + 7_000 + wrong_ms), AT_MS + 7_000))
    running.take(a_note("down", feed, at_ms=AT_MS + 7_500, reason="no live line"))

    assert running.translator.last_seen_ms(feed) == AT_MS + 6_000


@pytest.mark.parametrize("clock_ms", [0, -600_000])
@WRONG_MS
@pytest.mark.parametrize("feed", KINDS)
def test_first_frame_of_a_process_with_a_wrong_time_dates_no_gap(feed: str, wrong_ms: int, clock_ms: int) -> None:
    """The note of the start has Bybit's time by REST, also if our clock is wrong."""
    running = Running()
    note = Note("started", AT_MS, [feed])
    running.take(read_at(msgspec.json.encode(note), AT_MS + clock_ms, line=NOTE))
    for n in range(1, 4):
        frame = KINDS[feed](n, AT_MS + 1_000 * n + (wrong_ms if n == 1 else 0))
        running.take(read_at(frame, AT_MS + 1_000 * n + clock_ms))

    assert running.translator.last_seen_ms(feed) == AT_MS + 3_000


@WRONG_MS
@pytest.mark.parametrize("feed", KINDS)
def test_gap_that_a_frame_with_a_wrong_time_closes_ends_at_the_true_one(feed: str, wrong_ms: int) -> None:
    """Else trades of the gap would not count as missing, or those of the next hour would."""
    running = Running()
    running.take(*[read_at(KINDS[feed](n, AT_MS + 1_000 * n), AT_MS + 1_000 * n) for n in range(1, 7)])
    running.take(a_note("down", feed, at_ms=AT_MS + 6_500, reason="no live line"))
    (gap,) = values_of(
        running.take(read_at(KINDS[feed](9, AT_MS + 60_000 + wrong_ms), AT_MS + 60_000)), Topic.INGEST_GAPS
    )

    assert (gap["from"], gap["to"]) == (iso(AT_MS + 6_000), iso(AT_MS + 60_000))


@pytest.mark.parametrize("feed", KINDS)
def test_time_that_is_a_little_ahead_makes_a_gap_longer(feed: str) -> None:
    """Our clock may have been set back instead: then it is right."""
    running = Running()
    running.take(*[read_at(KINDS[feed](n, AT_MS + 1_000 * n), AT_MS + 1_000 * n) for n in range(1, 7)])
    running.take(read_at(KINDS[feed](7, AT_MS + 10_000), AT_MS + 7_000))
    running.take(a_note("down", feed, at_ms=AT_MS + 7_500, reason="no live line"))
    (gap,) = values_of(running.take(read_at(KINDS[feed](9, AT_MS + 18_000), AT_MS + 15_000)), Topic.INGEST_GAPS)

    assert (gap["from"], gap["to"]) == (iso(AT_MS + 6_000), iso(AT_MS + 18_000))


@WRONG_MS
def test_frame_with_a_wrong_time_is_published_with_it(wrong_ms: int) -> None:
    """Bybit's values are published as they are."""
    running = Running()
    running.take(read_at(a_trade("t1"), AT_MS))
    (trade,) = values_of(
        running.take(read_at(a_trade("t2", ts=AT_MS + wrong_ms, T=AT_MS + wrong_ms), AT_MS + 10)), Topic.MARKET_TRADES
    )

    assert trade["timestamp"] == iso(AT_MS + wrong_ms)


@WRONG_MS
def test_full_snapshots_go_on_after_a_book_frame_with_a_wrong_time(wrong_ms: int) -> None:
    """The next one would be an hour away."""
    running = Running(Translator(state_interval_ms=1_000))
    running.take(read_at(a_snapshot(update_id=6, ts=AT_MS), AT_MS))
    running.take(read_at(a_delta(update_id=7, ts=AT_MS + 100 + wrong_ms), AT_MS + 100))
    records = running.take(
        *[read_at(a_delta(update_id=8 + n, ts=AT_MS + 200 + 1_000 * n), AT_MS + 200 + 1_000 * n) for n in range(5)]
    )

    states = [each for each in values_of(records, Topic.MARKET_ORDER_BOOKS) if each["type"] == "state"]
    assert len(states) >= 4


@pytest.mark.parametrize("ahead_ms", [1_500, 3_000, 4_900, 3_600_000])
def test_ticker_from_the_future_hides_no_later_ones(ahead_ms: int) -> None:
    """Its sequence may stay the same while the mark price changes."""
    running = Running()
    running.take(read_at(a_ticker(), AT_MS))
    running.take(read_at(a_ticker(kind="delta", ts=AT_MS + ahead_ms), AT_MS + 10))
    records = running.take(
        *[read_at(a_ticker(kind="delta", ts=AT_MS + 100 * n), AT_MS + 100 * n) for n in range(1, 20)]
    )

    assert len(values_of(records, Topic.MARKET_DATA)) == 19


@WRONG_MS
def test_wrong_time_of_a_state_is_not_saved_as_bybits(wrong_ms: int) -> None:
    """The process may end just after such a frame; the next one continues with the right time."""
    running = Running()
    running.take(*[read_at(a_trade(f"t{n}", ts=AT_MS + n), AT_MS + n) for n in range(5)])
    running.take(read_at(a_trade("t7", ts=AT_MS + 7 + wrong_ms), AT_MS + 7))
    running.translator = Translator(running.translator.save())
    running.take(read_at(a_trade("t9", ts=AT_MS + 9), AT_MS + 9))

    assert running.translator.last_seen_ms(TRADES) == AT_MS + 9


def test_time_of_our_clock_is_learned_again_when_it_was_set() -> None:
    """All frames deviate then; after a few of them theirs is the right time."""
    time = ExchangeTime(AT_MS - 1_000)
    assert time.plausible_ms(AT_MS, 1_000) == AT_MS
    found = [time.plausible_ms(AT_MS + n, 3_600_000 + n) for n in range(2 * DEVIATING_FRAMES)]

    assert found[: DEVIATING_FRAMES - 1] == [AT_MS - 1_000 + 3_600_000 + n for n in range(DEVIATING_FRAMES - 1)]
    assert found[DEVIATING_FRAMES - 1 :] == [AT_MS + n for n in range(DEVIATING_FRAMES - 1, 2 * DEVIATING_FRAMES)]


@pytest.mark.parametrize("wrong_ms", [6_000, 10_000, 3_600_000, -10_000, -AT_MS])
def test_wrong_time_of_the_first_frame_is_not_learned(wrong_ms: int) -> None:
    """Nothing but our clock is known before it."""
    time = ExchangeTime()

    assert time.plausible_ms(AT_MS + wrong_ms, AT_MS) == AT_MS
    assert [time.plausible_ms(AT_MS + n, AT_MS + n) for n in (1, 2)] == [AT_MS + 1, AT_MS + 2]
    assert time.plausible_ms(AT_MS + 3 + wrong_ms, AT_MS + 3) == AT_MS + 3


def test_second_frame_shows_that_our_clock_is_wrong() -> None:
    """Two frames that deviate alike from a clock are right."""
    time = ExchangeTime()

    found = [time.plausible_ms(AT_MS + n, AT_MS + 3_600_000 + n) for n in range(3)]

    assert found == [AT_MS + 3_600_000, AT_MS + 1, AT_MS + 2]


def test_wrong_time_is_not_learned_amid_others_after_our_clock_was_set() -> None:
    """It would be the last of the frames by which the new difference is learned."""
    time = ExchangeTime()
    time.plausible_ms(AT_MS, AT_MS)
    for n in range(DEVIATING_FRAMES - 1):
        time.plausible_ms(AT_MS + n, AT_MS - 7_000 + n)

    assert time.plausible_ms(AT_MS + 3_600_000, AT_MS - 6_000) == AT_MS - 6_000


# Rows of REST


def rows_of(*times_ms: int, has_sequence: bool = True) -> list[RestTradeRow]:
    """Build the rows of a list in a random order; their numbers are their order."""
    found = [
        RestTradeRow(execId=f"t{n}", symbol="BTCUSDT", price="1", size="1", side="Buy", time=str(at_ms), seq=str(n))
        for n, at_ms in enumerate(times_ms, 10)
    ]
    Random(len(found)).shuffle(found)
    return found if has_sequence else [_without_sequence(row) for row in found]


def _without_sequence(row: RestTradeRow) -> RestTradeRow:
    return RestTradeRow(
        execId=row.execId, symbol=row.symbol, price=row.price, size=row.size, side=row.side, time=row.time
    )


@pytest.mark.parametrize(
    ("times_ms", "bounds"),
    [
        ((100, 200, 300), [(100, 100), (200, 200), (300, 300)]),
        ((100, 900_000, 300), [(100, 100), (100, 300), (300, 300)]),
        ((100, 250, 240, 300), [(100, 100), (100, 300), (100, 300), (300, 300)]),
        ((50, 80, 100, 0, 0, 300), [(50, 50), (80, 80), (100, 100), (100, 300), (100, 300), (300, 300)]),
        ((900_000, 200, 300), [(0, 200), (200, 200), (300, 300)]),
        ((100, 200, 300, 0), [(100, 100), (200, 200), (300, 300), (300, 11_000)]),
        ((100, 100, 100), [(100, 100)] * 3),
        ((), []),
    ],
)
def test_trades_beside_one_with_a_wrong_time_bound_it(times_ms: tuple[int, ...], bounds: list[tuple[int, int]]) -> None:
    """The sequence shows where it belongs, and nothing is later than the answer."""
    found = dated_trades(rows_of(*times_ms), 10_000)

    assert [trade.row.execId for trade in found] == [f"t{n}" for n in range(10, 10 + len(times_ms))]
    assert [(trade.begin_ms, trade.end_ms) for trade in found] == bounds


def test_trades_without_a_sequence_are_sorted_by_time() -> None:
    """A time after that of the answer is wrong all the same."""
    found = dated_trades(rows_of(100, 900_000, 300, has_sequence=False), 10_000)

    assert [(trade.begin_ms, trade.end_ms) for trade in found] == [(100, 100), (300, 300), (300, 11_000)]


@pytest.mark.parametrize("wrong_ms", [8_900, 3_600_000, 0])
@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_missing_trade_with_a_wrong_time_is_filled(number: int, wrong_ms: int) -> None:
    """A gap that is filled lacks no trade, whatever its time."""
    feeder = Feeder()
    feeder.note("started", TRADES, fills_gaps=True)
    feeder.note("up", TRADES, at_ms=1_000)
    feeder.frame(a_trade(f"t{1}", ts=1_500, T=1_497, seq=1), "linear-a")
    feeder.note("down", TRADES, at_ms=1_600, reason="no live line: reset")
    feeder.note("up", TRADES, at_ms=3_000)
    feeder.frame(a_trade("t6", ts=3_500, T=3_497, seq=6), "linear-a")
    times = {n: 1_497 + 300 * n for n in range(2, 6)} | {1: 1_497, 6: 3_497} | {number: wrong_ms}
    rows = [a_rest_trade(n, at_ms) for n, at_ms in times.items()]
    records = []
    for is_last in (False, True):
        records += feeder.answer(
            Part.TRADES,
            {"linear": {"list": rows}},
            time_ms=9_000,
            purpose=Purpose.GAP_FILL,
            feed=TRADES,
            closes_gaps=is_last,
        )

    assert {trade["trade_id"] for trade in values(records, Topic.MARKET_TRADES)} == {"t2", "t3", "t4", "t5"}
    # Which of the first two has the wrong time is unknown, so the list may not reach back to the gap's beginning.
    is_certain = (number, wrong_ms) != (2, 0)
    assert [gap["healed"] for gap in values(records, Topic.INGEST_GAPS)] == ["yes" if is_certain else "partly"]


def test_list_with_a_trade_of_the_future_does_not_cover_what_follows() -> None:
    """What the next list lacks after this one is named."""
    feeder = Feeder()
    feeder.note("started", TRADES, fills_gaps=True)
    feeder.note("up", TRADES, at_ms=1_000)
    feeder.frame(a_trade("t1", ts=1_500, T=1_500, seq=1), "linear-a")
    feeder.note("down", TRADES, at_ms=1_600, reason="no live line: reset")
    feeder.note("up", TRADES, at_ms=8_000)
    records = []
    for rows in ([(1, 1_500), (2, 3_600_000), (3, 2_500)], [(8, 7_000), (9, 7_500)]):
        records += feeder.answer(
            Part.TRADES,
            {"linear": {"list": [a_rest_trade(n, at_ms) for n, at_ms in rows]}},
            time_ms=9_000,
            purpose=Purpose.GAP_FILL,
            feed=TRADES,
            closes_gaps=rows[0][0] == 8,
        )

    (gap,) = values(records, Topic.INGEST_GAPS)
    assert (gap["healed"], gap["missing"]) == ("partly", f"trades after {iso(2_500)} and before {iso(7_000)}")


# The account


class Account:
    """A feeder whose frames are read at given times."""

    def __init__(self) -> None:
        self.feeder = Feeder()

    def frame(self, raw: bytes, at_ms: int) -> list[dict[str, object]]:
        """Translate a private frame, and return the positions that changed."""
        self.feeder.position += 1
        records = self.feeder.translator.translate(
            self.feeder.position, Frame("private-a", at_ms * 1_000_000, TRACE, raw)
        )
        return values(records, Topic.POSITION_CHANGES)


def test_wallet_from_the_future_does_not_hold_back_what_rest_says() -> None:
    """The list after a gap is an hour older than that frame."""
    account = Account()
    account.frame(a_wallet_frame(AT_MS, USDT="1"), AT_MS)
    account.frame(a_wallet_frame(AT_MS + 3_600_000, USDT="2"), AT_MS + 100)

    records = account.feeder.answer(Part.WALLET, a_wallet(USDT="3"), time_ms=AT_MS + 10_000)

    (raw,) = values(records, Topic.ACCOUNT_RAW)
    balances: Any = raw["balances"]
    assert balances["USDT"]["wallet_balance"] == "3"


def test_first_wallet_from_the_future_does_not_hold_back_what_rest_says() -> None:
    """Nor do the right frames after it count as wrong."""
    account = Account()
    account.frame(a_wallet_frame(AT_MS + 3_600_000, USDT="1"), AT_MS)
    for n in range(1, 4):
        account.frame(a_wallet_frame(AT_MS + 20_000 * n, USDT=str(10 + n)), AT_MS + 20_000 * n)

    late = account.feeder.answer(Part.WALLET, a_wallet(USDT="98"), time_ms=AT_MS + 59_000)
    next_one = account.feeder.answer(Part.WALLET, a_wallet(USDT="99"), time_ms=AT_MS + 90_000)

    found: list[Any] = [raw["balances"] for raw in values([*late, *next_one], Topic.ACCOUNT_RAW)]
    assert [balances["USDT"]["wallet_balance"] for balances in found] == ["13", "99"]


def test_position_from_the_future_is_followed_by_the_next_one() -> None:
    """Its sequence is greater, and so is that of the list."""
    account = Account()
    account.frame(a_position_frame(a_row(size="1", updatedTime=str(AT_MS), seq=1), at_ms=AT_MS), AT_MS)
    ahead_ms = AT_MS + 3_600_000
    account.frame(a_position_frame(a_row(size="2", updatedTime=str(ahead_ms), seq=2), at_ms=ahead_ms), AT_MS + 100)
    later = a_position_frame(a_row(size="3", updatedTime=str(AT_MS + 200), seq=3), at_ms=AT_MS + 200)

    assert len(account.frame(later, AT_MS + 200)) == 1


def test_list_after_a_position_from_the_future_counts() -> None:
    """It was changed while no line was live."""
    account, ahead_ms = Account(), AT_MS + 3_600_000
    account.frame(a_position_frame(a_row(size="1", updatedTime=str(AT_MS), seq=1), at_ms=AT_MS), AT_MS)
    account.frame(a_position_frame(a_row(size="2", updatedTime=str(ahead_ms), seq=2), at_ms=ahead_ms), AT_MS + 100)
    changed = a_rest_row(size="3", updatedTime=str(AT_MS + 5_000), seq=3)
    records = account.feeder.answer(
        Part.POSITIONS,
        {"linear": {"list": [changed]}, "inverse": {"list": []}, "option": {"list": []}},
        time_ms=AT_MS + 10_000,
    )

    assert len(values(records, Topic.POSITION_CHANGES)) == 1


def test_position_from_the_future_is_flat_once_lists_lack_it() -> None:
    """Two lists lack it, an hour before its time."""
    account, ahead_ms = Account(), AT_MS + 3_600_000
    account.frame(a_position_frame(a_row(size="1", updatedTime=str(AT_MS), seq=1), at_ms=AT_MS), AT_MS)
    account.frame(a_position_frame(a_row(size="2", updatedTime=str(ahead_ms), seq=2), at_ms=ahead_ms), AT_MS + 100)
    lists = {name: result for name, result in ALL_EMPTY.items() if name != "spot"}
    records = []
    for at_ms in (AT_MS + 10_000, AT_MS + 12_000):
        records += account.feeder.answer(Part.POSITIONS, lists, time_ms=at_ms)

    assert len(values(records, Topic.POSITION_CHANGES)) == 1


@pytest.mark.parametrize("status", ["Filled", "Cancelled"])
def test_end_of_an_order_is_published_after_a_state_from_the_future(status: str) -> None:
    """It came while no line was live; only REST has it."""
    account = Account()
    order = {
        "symbol": "BTCUSDT",
        "category": "linear",
        "orderId": "o1",
        "orderStatus": "New",
        "createdTime": str(AT_MS),
        "updatedTime": str(AT_MS + 3_600_000),
        "qty": "1",
        "cumExecQty": "0",
    }
    frame = {"id": "o", "topic": "order", "creationTime": AT_MS, "data": [order]}
    account.frame(json.dumps(frame).encode(), AT_MS)
    ended = order | {"orderStatus": status, "updatedTime": str(AT_MS + 900)}
    ended["cumExecQty"] = "1" if status == "Filled" else "0"
    records = account.feeder.answer(
        Part.ORDERS,
        ALL_EMPTY | {"linear_history": {"list": [ended]}} | {"linear": {"list": [ended]}},
        time_ms=AT_MS + 10_000,
        purpose=Purpose.GAP_FILL,
    )

    assert [each["status"] for each in values(records, Topic.ORDER_UPDATES)] == [status]
