"""Gaps that REST fills: each interruption is one gap with separate bounds, filled as far as the answers reach."""

import json
from collections.abc import Sequence

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest.protocol.rest_messages import Part, Purpose
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.translate.account_feeder import (
    ALL_EMPTY,
    Feeder,
    a_rest_trade,
    a_trade_frame,
    sample,
    values,
)

FILLS = "private:execution"
TRADES = "spot:publicTrade.BTCUSDT"
RESET = "no live line: reset"


def _second(ms: int) -> str:
    return f"1970-01-01T00:00:{ms // 1000:02d}.{ms % 1000:03d}Z"


def _bounds(records: Sequence[Record]) -> list[tuple[object, object]]:
    return [(gap["from"], gap["to"]) for gap in values(list(records), Topic.INGEST_GAPS)]


def _fill_at(ms: int) -> bytes:
    message = json.loads(sample("execution"))
    row = message["data"][0] | {"execId": f"fill-{ms}", "execTime": str(ms)}
    return json.dumps(message | {"data": [row], "creationTime": ms}).encode()


# The account


def test_each_interruption_of_a_private_feed_is_a_gap_with_its_own_bounds() -> None:
    """REST was away for both: one gap over the two would span fills that did arrive."""
    feeder = Feeder()
    feeder.note("up", FILLS, at_ms=1_000)
    feeder.note("down", FILLS, at_ms=2_000, reason=RESET)
    feeder.note("up", FILLS, at_ms=3_000)
    assert values(feeder.frame(_fill_at(4_000)), Topic.EXECUTIONS)
    feeder.note("down", FILLS, at_ms=5_000, reason="no live line: stale")
    feeder.note("up", FILLS, at_ms=6_000)
    records = feeder.answer(Part.EXECUTIONS, ALL_EMPTY, time_ms=9_000, purpose=Purpose.GAP_FILL)

    assert _bounds(records) == [(_second(1_000), _second(3_000)), (_second(4_000), _second(6_000))]
    assert [gap["reason"] for gap in values(records, Topic.INGEST_GAPS)] == [RESET, "no live line: stale"]


def test_restarts_within_the_time_that_rest_needs_are_separate_gaps() -> None:
    """The second start came before REST had answered; what arrived between the two is in neither gap."""
    feeder = Feeder()
    feeder.note("up", FILLS, at_ms=1_000)
    feeder.note("started", FILLS, at_ms=2_000, reason="the process was stopped", fills_gaps=True)
    feeder.note("up", FILLS, at_ms=3_000)
    feeder.frame(_fill_at(4_000))
    feeder.translator = Translator(feeder.translator.save(), account_id="acc")
    assert not _bounds(feeder.note("started", FILLS, at_ms=5_000, reason="the process was stopped", fills_gaps=True))
    feeder.note("up", FILLS, at_ms=6_000)
    assert feeder.translator.last_seen_ms(FILLS) == 1_000, "REST is asked from the first gap on"
    records = feeder.answer(Part.EXECUTIONS, ALL_EMPTY, time_ms=9_000, purpose=Purpose.GAP_FILL)

    assert _bounds(records) == [(_second(1_000), _second(3_000)), (_second(4_000), _second(6_000))]


def test_answer_that_may_lag_behind_the_stream_closes_no_gap() -> None:
    """Its fills are published at once; the gap is recorded when a later answer could not lack any."""
    feeder = Feeder()
    feeder.note("up", FILLS, at_ms=1_000)
    feeder.note("down", FILLS, at_ms=2_000, reason=RESET)
    feeder.note("up", FILLS, at_ms=3_000)
    row = json.loads(_fill_at(2_500))["data"][0]
    results = ALL_EMPTY | {"linear": {"list": [row]}}
    first = feeder.answer(Part.EXECUTIONS, results, time_ms=3_100, purpose=Purpose.GAP_FILL, closes_gaps=False)
    last = feeder.answer(Part.EXECUTIONS, results, time_ms=6_600, purpose=Purpose.GAP_FILL)

    assert [fill["exec_id"] for fill in values(first, Topic.EXECUTIONS)] == ["fill-2500"]
    assert (_bounds(first), _bounds(last)) == ([], [(_second(1_000), _second(3_000))])


def test_poll_closes_no_gap() -> None:
    """It may have been requested before the line was back."""
    feeder = Feeder()
    wallet: dict[str, object] = {"wallet": {"list": [{"coin": []}]}}
    feeder.note("up", "private:wallet", at_ms=1_000)
    feeder.note("down", "private:wallet", at_ms=2_000, reason=RESET)
    feeder.note("up", "private:wallet", at_ms=3_000)

    assert not _bounds(feeder.answer(Part.WALLET, wallet, time_ms=2_900, purpose=Purpose.POLL))
    assert len(_bounds(feeder.answer(Part.WALLET, wallet, time_ms=6_600))) == 1


def test_answers_about_a_gap_publish_no_execution_twice_however_many_there_are() -> None:
    """A gap is requested at least twice; an active account has thousands of fills in a long one."""
    feeder = Feeder()
    feeder.note("up", FILLS, at_ms=1_000)
    feeder.note("down", FILLS, at_ms=2_000, reason=RESET)
    feeder.note("up", FILLS, at_ms=3_000)
    row = json.loads(_fill_at(2_500))["data"][0]
    results = ALL_EMPTY | {"linear": {"list": [row | {"execId": f"fill-{number}"} for number in range(5_200)]}}
    first = feeder.answer(Part.EXECUTIONS, results, time_ms=3_100, purpose=Purpose.GAP_FILL, closes_gaps=False)
    feeder.frame(_fill_at(3_200))
    last = feeder.answer(Part.EXECUTIONS, results, time_ms=6_600, purpose=Purpose.GAP_FILL)

    assert [len(values(records, Topic.EXECUTIONS)) for records in (first, last)] == [5_200, 0]


def test_gap_that_bybit_refuses_to_fill_is_recorded() -> None:
    """The key lacks the permission; the gap would stand in no record for ever."""
    feeder = Feeder()
    feeder.note("up", FILLS, at_ms=1_000)
    feeder.note("down", FILLS, at_ms=2_000, reason=RESET)
    feeder.note("up", FILLS, at_ms=3_000)
    [gap] = values(feeder.note("unhealed", FILLS, reason="the API key lacks a permission"), Topic.INGEST_GAPS)

    assert (gap["healed"], gap["missing"]) == ("no", "everything: the API key lacks a permission")


def test_frame_before_a_list_that_lags_is_in_no_gap() -> None:
    """The next gap begins with the last frame, although the time of the list is earlier."""
    feeder = Feeder()
    feeder.note("up", FILLS, at_ms=1_000)
    feeder.frame(_fill_at(4_000))
    feeder.answer(Part.EXECUTIONS, ALL_EMPTY, time_ms=3_000, purpose=Purpose.GAP_FILL, closes_gaps=False)

    assert feeder.translator.last_seen_ms(FILLS) == 4_000


# Trades


class Trades:
    """A feed of trades whose line is lost after trade 1 at 1,500 ms."""

    def __init__(self) -> None:
        self.feeder = Feeder()
        self.feeder.note("started", TRADES, fills_gaps=True)
        self.feeder.note("up", TRADES, at_ms=1_000)
        self.feeder.frame(a_trade_frame(1, 1_500), "spot-a")
        self.feeder.note("down", TRADES, at_ms=1_600, reason=RESET)

    def lists(self, *rows: dict[str, object], closes_gaps: bool = False) -> list[str]:
        """Answer with rows, and return the ids that are published."""
        self.records = self.feeder.answer(
            Part.TRADES,
            {"spot": {"list": rows}},
            time_ms=9_000,
            purpose=Purpose.GAP_FILL,
            feed=TRADES,
            closes_gaps=closes_gaps,
        )
        return [str(trade["trade_id"]) for trade in values(self.records, Topic.MARKET_TRADES)]

    def gap(self) -> tuple[object, object]:
        """Return how far the recorded gap was filled, and what is missing."""
        [gap] = values(self.records, Topic.INGEST_GAPS)
        return gap["healed"], gap["missing"]


def test_trades_are_published_while_no_line_carries_them() -> None:
    """A gap longer than REST reaches back is filled whole if REST was asked all the time."""
    trades = Trades()
    assert trades.lists(a_rest_trade(2, 1_700), a_rest_trade(1, 1_500)) == ["t2"]
    assert trades.lists(a_rest_trade(4, 2_400), a_rest_trade(3, 2_200), a_rest_trade(2, 1_700)) == ["t3", "t4"]
    trades.feeder.note("up", TRADES, at_ms=3_000)
    assert trades.lists(a_rest_trade(5, 2_900), a_rest_trade(4, 2_400), closes_gaps=True) == ["t5"]

    assert trades.gap() == ("yes", None)


def test_gap_between_two_lists_is_named() -> None:
    """More trades happened between two answers than Bybit lists."""
    trades = Trades()
    trades.lists(a_rest_trade(2, 1_700), a_rest_trade(1, 1_500))
    trades.feeder.note("up", TRADES, at_ms=3_000)
    assert trades.lists(a_rest_trade(9, 2_900), a_rest_trade(8, 2_800), closes_gaps=True) == ["t8", "t9"]

    assert trades.gap() == ("partly", f"trades after {_second(1_700)} and before {_second(2_800)}")


def test_list_of_known_trades_from_after_the_gap_fills_nothing() -> None:
    """The line has brought them; they do not show what the gap before them lacks."""
    trades = Trades()
    trades.feeder.note("up", TRADES, at_ms=3_000)
    trades.feeder.frame(a_trade_frame(8, 3_200), "spot-a")
    trades.lists(a_rest_trade(8, 3_200), closes_gaps=True)

    assert trades.gap() == ("no", "everything")


def test_gap_without_any_trade_is_filled() -> None:
    """The newest trade that Bybit lists is the last one before the gap."""
    trades = Trades()
    trades.feeder.note("up", TRADES, at_ms=3_000)
    trades.lists(a_rest_trade(1, 1_500), closes_gaps=True)

    assert trades.gap() == ("yes", None)


def test_list_that_lags_undoes_nothing() -> None:
    """A replica may answer with an older list than the one before."""
    trades = Trades()
    trades.lists(a_rest_trade(2, 1_700), a_rest_trade(1, 1_500))
    trades.lists(a_rest_trade(1, 1_500))
    trades.feeder.note("up", TRADES, at_ms=3_000)
    trades.lists(a_rest_trade(3, 2_900), a_rest_trade(2, 1_700), closes_gaps=True)

    assert trades.gap() == ("yes", None)


@pytest.mark.parametrize(
    ("listed", "healed", "missing"),
    [
        ([], "no", "everything: HTTP 503"),
        ([(2, 1_700), (1, 1_500)], "partly", f"trades after {_second(1_700)}: HTTP 503"),
    ],
)
def test_gap_that_rest_did_not_fill_to_its_end_names_the_rest_of_it(
    listed: list[tuple[int, int]], healed: str, missing: str
) -> None:
    """REST answered during the outage, and failed after it."""
    trades = Trades()
    if listed:
        trades.lists(*(a_rest_trade(number, ms) for number, ms in listed))
    trades.feeder.note("up", TRADES, at_ms=3_000)
    trades.records = trades.feeder.note("unhealed", TRADES, reason="HTTP 503")

    assert trades.gap() == (healed, missing)


def test_coverage_survives_a_restart() -> None:
    """What REST brought before the kill stays known, for gaps that are open and for closed ones."""
    trades = Trades()
    trades.lists(a_rest_trade(2, 1_700), a_rest_trade(1, 1_500))
    trades.feeder.translator = Translator(trades.feeder.translator.save(), account_id="acc")
    trades.feeder.note("started", TRADES, at_ms=2_000, reason="the process was killed", fills_gaps=True)
    trades.feeder.note("up", TRADES, at_ms=3_000)
    trades.feeder.translator = Translator(trades.feeder.translator.save(), account_id="acc")
    assert trades.lists(a_rest_trade(3, 2_900), a_rest_trade(2, 1_700), closes_gaps=True) == ["t3"]

    assert trades.gap() == ("yes", None)


def test_trades_of_a_feed_that_was_never_live_are_left_out() -> None:
    """Nothing of it was promised, and nothing is missing."""
    feeder = Feeder()
    records = feeder.answer(
        Part.TRADES, {"spot": {"list": [a_rest_trade(1, 1_500)]}}, time_ms=9_000, purpose=Purpose.GAP_FILL, feed=TRADES
    )

    assert not records


# Tickers

TICKER_FEED = "spot:tickers.BTCUSDT"
# Bybit's documentation, Market, Get Tickers, the example of spot.
TICKER = {
    "symbol": "BTCUSDT",
    "bid1Price": "20517.96",
    "bid1Size": "2",
    "ask1Price": "20527.77",
    "ask1Size": "1.862172",
    "lastPrice": "20533.13",
    "prevPrice24h": "20393.48",
    "price24hPcnt": "0.0068",
    "highPrice24h": "21128.12",
    "lowPrice24h": "20318.89",
    "turnover24h": "243765620.65899866",
    "volume24h": "11801.27771",
    "usdIndexPrice": "20784.12009279",
}


def _tickers(feeder: Feeder, row: dict[str, str], topic: Topic = Topic.MARKET_DATA) -> list[dict[str, object]]:
    results: dict[str, object] = {"spot": {"category": "spot", "list": [row]}}
    records = feeder.answer(Part.TICKER, results, time_ms=2_500, purpose=Purpose.POLL, feed=TICKER_FEED)
    return values(records, topic)


def test_ticker_of_rest_stands_in_while_no_line_carries_the_feed() -> None:
    """A hedger needs prices then, too; `source` names their origin."""
    feeder = Feeder()
    feeder.note("up", TICKER_FEED, at_ms=1_000)
    feeder.note("down", TICKER_FEED, at_ms=2_000, reason=RESET)
    [ticker] = _tickers(feeder, TICKER)

    assert ticker["source"] == "rest"
    assert (ticker["price"], ticker["bid"], ticker["ask"]) == ("20533.13", "20517.96", "20527.77")
    assert (ticker["volume_24h"], ticker["timestamp"]) == ("11801.27771", _second(2_500))
    assert (ticker["sequence"], ticker["quote_timestamp"]) == (None, None)


def test_ticker_of_rest_stands_in_before_a_line_was_ever_live() -> None:
    """WebSockets may be blocked where REST is not."""
    assert _tickers(Feeder(), TICKER)


def test_ticker_of_rest_is_left_out_once_a_line_carries_the_feed() -> None:
    """It was requested before, and may be older than the line's first frame."""
    feeder = Feeder()
    line = sample_ticker()
    feeder.frame(line, "linear-a")
    results: dict[str, object] = {"linear": {"list": [TICKER]}}
    feed = "linear:tickers.BTCUSDT"
    assert not feeder.answer(Part.TICKER, results, time_ms=2_500, purpose=Purpose.POLL, feed=feed)
    assert feeder.translator.counts["ticker_answers_late"] == 1


def sample_ticker() -> bytes:
    """Return a ticker's snapshot."""
    fields = TICKER | {"tickDirection": "PlusTick"}
    return json.dumps({"topic": "tickers.BTCUSDT", "type": "snapshot", "data": fields, "cs": 7, "ts": 2_000}).encode()


def test_times_that_a_contract_does_not_have_are_null() -> None:
    """REST reports them as 0, which is not 1970."""
    [ticker] = _tickers(Feeder(), TICKER | {"nextFundingTime": "0", "deliveryTime": "0"})

    assert (ticker["next_funding_time"], ticker["delivery_time"]) == (None, None)


@pytest.mark.parametrize("name", ["lastPrice", "volume24h", "bid1Price", "ask1Price"])
def test_empty_value_of_rest_is_null(name: str) -> None:
    """A thin market may have no ask, and a contract before its opening no price."""
    [ticker] = _tickers(Feeder(), TICKER | {name: ""})

    assert [ticker["price"], ticker["volume_24h"], ticker["bid"], ticker["ask"]].count(None) == 1


@pytest.mark.parametrize("wrong", [{"symbol": "ETHUSDT"}, {"ask1Price": None}])
def test_ticker_of_rest_without_ask_or_of_another_symbol_is_a_dead_letter(wrong: dict[str, str | None]) -> None:
    """No answer vanishes without a trace."""
    row = {name: value for name, value in (TICKER | wrong).items() if value is not None}
    [letter] = _tickers(Feeder(), row, Topic.INGEST_DEAD_LETTERS)

    assert letter["reason"] in {
        "expected the symbol of the feed - at `$.symbol`",
        "Object missing required field `ask1Price`",
    }


def test_answer_without_a_ticker_is_counted() -> None:
    """Bybit does not list the symbol."""
    feeder = Feeder()
    results: dict[str, object] = {"spot": {"list": []}}

    assert not feeder.answer(Part.TICKER, results, time_ms=2_500, purpose=Purpose.POLL, feed=TICKER_FEED)
    assert feeder.translator.counts["ticker_answers_empty"] == 1


@pytest.mark.parametrize("wrong", [{"lastPrice": "much"}, {"nextFundingTime": 7}])
def test_ticker_of_rest_that_cannot_be_understood_is_a_dead_letter(wrong: dict[str, object]) -> None:
    """REST answers are validated like any frame."""
    [letter] = _tickers(Feeder(), TICKER | wrong, Topic.INGEST_DEAD_LETTERS)  # type: ignore[arg-type]

    assert letter["origin"] == "rest"
