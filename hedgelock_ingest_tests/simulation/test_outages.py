"""Outages of the network and of lines, in virtual time: what REST brings, and when."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from hedgelock_ingest.models.topics import Topic
from hedgelock_ingest_tests.processes.evidence import PublishedRecord, gap_of
from hedgelock_ingest_tests.simulation.exchange import Exchange
from hedgelock_ingest_tests.simulation.small_stage import SmallStage, staged

BEGIN_S, END_S = 5.0, 50.0
LONG_S = 120.0
FILLS = "private:execution"


def _lose_network(exchange: Exchange, until_s: float, *, hangs: bool) -> None:
    (exchange.rest_hangs if hangs else exchange.rest_down)(until_s)
    _lose_lines(exchange, until_s)


def _lose_lines(exchange: Exchange, until_s: float) -> None:
    exchange.hang_connects(until_s)
    for socket in exchange.connections():
        exchange.drop(socket)


def _gap_ends_ms(stage: SmallStage, feed: str) -> list[int]:
    return [gap_of(record).to_ms for record in stage.records_of(Topic.INGEST_GAPS) if record.key == feed]


def _received_ms(record: PublishedRecord) -> int:
    return int(record.headers["received-ns"]) // 1_000_000


def _of_rest(records: Sequence[PublishedRecord]) -> list[PublishedRecord]:
    return [record for record in records if record.value["source"] == "rest"]


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("outage_s", [41.0, 43.0, 45.0, 47.0])
def test_fills_of_an_outage_are_published_as_soon_as_a_line_is_back(outage_s: float, hangs: bool) -> None:
    """REST's breaker would wait on, and a request may hang in a dead connection."""

    async def test(stage: SmallStage) -> None:
        until_s = stage.clock.monotonic() + BEGIN_S + outage_s
        await stage.run((BEGIN_S, lambda: _lose_network(stage.exchange, until_s, hangs=hangs)), seconds=75.0)
        [live_ms] = _gap_ends_ms(stage, FILLS)
        listed = [one for one in stage.records_of(Topic.ACCOUNT_RAW) if one.value["origin"] == "rest:positions"]
        assert any(0 < _received_ms(one) - live_ms < 2_000 for one in listed)
        healed = [record for record in stage.records_of(Topic.EXECUTIONS) if record.value["healed"]]

        assert healed
        assert max(map(_received_ms, healed)) - live_ms < 2_000

    staged(test, requests_per_second=5)


def test_trades_of_a_long_outage_of_lines_are_complete() -> None:
    """Bybit lists 60 trades of spot, far less than an outage has: they are requested while it lasts."""

    async def test(stage: SmallStage) -> None:
        lost = BEGIN_S, lambda: _lose_lines(stage.exchange, stage.clock.monotonic() + LONG_S)
        await stage.run(lost, seconds=LONG_S + 30.0)
        trades = stage.exchange.sent()["spot", "publicTrade.BTCUSDT"]
        [gap] = [one for one in stage.records_of(Topic.INGEST_GAPS) if one.key == "spot:publicTrade.BTCUSDT"]
        missed = sum(len(event.identities) for event in trades if gap_of(gap).holds(event.sent_ms, None))

        assert missed > 60
        assert (gap.value["healed"], gap.value["missing"]) == ("yes", None)

    staged(test)


def test_rest_stands_in_for_lines() -> None:
    """Prices every second, wallet and positions every two: a hedger needs them although no line is live."""

    async def test(stage: SmallStage) -> None:
        lost = BEGIN_S, lambda: _lose_lines(stage.exchange, stage.clock.monotonic() + END_S - BEGIN_S)
        await stage.run(lost, seconds=70.0)
        tickers = _of_rest(stage.records_of(Topic.MARKET_DATA))
        [gap] = [gap_of(one) for one in stage.records_of(Topic.INGEST_GAPS) if one.key == FILLS]
        raw = [one for one in stage.records_of(Topic.ACCOUNT_RAW) if gap.holds(_received_ms(one), None)]

        for category in ("spot", "linear"):
            times_ms = [_received_ms(record) for record in tickers if record.value["category"] == category]
            assert _longest_ms(times_ms) < 1_500
            assert times_ms[-1] - times_ms[0] > 42_000
        for origin in ("rest:wallet", "rest:positions"):
            times_ms = [_received_ms(record) for record in raw if record.value["origin"] == origin]
            assert _longest_ms(times_ms) < 3_000
            assert times_ms[-1] - times_ms[0] > 40_000

    staged(test)


def _longest_ms(times_ms: Sequence[int]) -> int:
    return max(later - earlier for earlier, later in pairwise(times_ms))
