"""Requests of gap filling when feeds come up, against the REST of the simulated exchange."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.gap_fill import GapFill
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue, GapFillTiming
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.protocol.frames import NOTE, Frame
from hedgelock_ingest.protocol.private_messages import PRIVATE_CHANNELS
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest_tests.bybit.rest import client_for
from hedgelock_ingest_tests.pipeline.recorded_arrivals import RecordedArrivals
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

PRIVATE_FEEDS = [f"private:{channel}" for channel in PRIVATE_CHANNELS]
TRADES = "linear:publicTrade.BTCUSDT"
PARTS = {"rest-wallet", "rest-positions", "rest-orders", "rest-executions", "rest-collateral", "rest-loans"}
TIMES = {"rest-wallet": 3, "rest-positions": 3, "rest-orders": 2, "rest-executions": 2}
QUICK = GapFillTiming(
    gather_s=0.01,
    confirm_s=0.3,
    second_list_s=0.05,
    retry_initial_s=0.05,
    retry_max_s=2.0,
    refused_retry_s=0.1,
    trades_interval_s=0.1,
    trades_within_s=3.0,
)
WEEK_MS = 7 * 86_400_000


@dataclass
class GapFillStage:
    """A running gap fill, and the answers that it passed on."""

    queue: GapFillQueue
    gap_fill: GapFill
    rest: RestClient
    exchange: SimulatedExchange
    recorded: RecordedArrivals

    @property
    def frames(self) -> list[Frame]:
        return self.recorded.arrivals.frames

    @property
    def answered(self) -> Counter[str]:
        return Counter(frame.origin for frame in self.frames)

    def answers(self, origin: str) -> list[RestAnswer]:
        """Return the answers about one part."""
        return [msgspec.json.decode(frame.raw, type=RestAnswer) for frame in self.frames if frame.origin == origin]

    def rows(self, origin: str, name: str) -> list[dict[str, Any]]:
        """Return the rows of all answers about one part."""
        return [row for answer in self.answers(origin) for row in json.loads(bytes(answer.results[name]))["list"]]


@asynccontextmanager
async def filling_gaps(
    *,
    key: ApiKey | None = KEYS["read-only"],
    feeds_with_gap: Iterable[str] = (),
    seen_ago_ms: int = 60_000,
    may_request: Callable[[], bool] = lambda: True,
    timing: GapFillTiming = QUICK,
    **scenario: Any,
) -> AsyncIterator[GapFillStage]:
    """Run gap filling over an exchange."""
    async with running_exchange(**scenario) as exchange, client_for(exchange, key) as rest:

        async def last_seen_ms(feed: str) -> int:
            return exchange.now_ms() - seen_ago_ms

        queue = GapFillQueue(feeds_with_gap)
        receiver = Receiver([*PRIVATE_FEEDS, TRADES], lambda: None, clock=SystemClock())
        gap_fill = GapFill(
            rest, receiver, last_seen_ms, queue, may_request=may_request, clock=SystemClock(), timing=timing
        )
        stage = GapFillStage(queue, gap_fill, rest, exchange, RecordedArrivals(receiver))
        task = asyncio.create_task(stage.gap_fill.run())
        try:
            yield stage
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_account_that_comes_up_is_requested_completely() -> None:
    """The stream carries only changes, and no loans; REST may lag behind it, so what has a gap is requested again."""
    async with filling_gaps() as stage:
        stage.queue.went_up(PRIVATE_FEEDS)
        await eventually(lambda: stage.gap_fill.stats.answers == 12 and stage.gap_fill.is_idle)

    assert stage.answered == TIMES | {"rest-collateral": 1, "rest-loans": 1}
    assert [answer.closes_gaps for answer in stage.answers("rest-executions")] == [False, True]


async def test_one_feed_that_comes_up_is_requested_without_the_others() -> None:
    """If only the orders were down, positions and balances are current; loans have no stream."""
    async with filling_gaps() as stage:
        stage.queue.went_up(["private:order"])
        await eventually(lambda: stage.answered["rest-orders"] == 2)

    assert set(stage.answered) == {"rest-orders", "rest-collateral", "rest-loans"}


async def test_part_that_fails_is_requested_again_and_delays_no_other() -> None:
    """A failing endpoint must not delay the other parts of the account."""
    async with filling_gaps() as stage:
        stage.exchange.fail_rest("ret_code", path="/v5/position", ret_code=10005, count=None)
        stage.queue.went_up(PRIVATE_FEEDS)
        await eventually(lambda: set(stage.answered) == PARTS - {"rest-positions"} | {NOTE})
        [note] = [json.loads(frame.raw) for frame in stage.frames if frame.origin == NOTE]
        assert (note["note"], note["channels"]) == ("unhealed", ["private:position"]), "a gap must not wait for ever"
        assert "Contract" in stage.gap_fill.stats.troubles["positions"]
        stage.exchange.restore_rest()
        await eventually(lambda: set(stage.answered) == PARTS | {NOTE})

    assert stage.gap_fill.stats.troubles == {}


async def test_account_is_requested_until_bybit_has_recovered() -> None:
    """However long REST is unavailable, the account's gaps are filled in the end."""
    async with filling_gaps() as stage:
        stage.exchange.fail_rest("status", count=None)
        stage.queue.went_up(PRIVATE_FEEDS)
        await eventually(lambda: stage.gap_fill.stats.failures >= 3)
        assert not stage.answered
        stage.exchange.restore_rest()
        await eventually(lambda: set(stage.answered) == PARTS, timeout_s=20)


async def test_fills_are_requested_from_the_last_one_seen() -> None:
    """An outage of three weeks is requested in spans that Bybit accepts."""
    async with filling_gaps(seen_ago_ms=3 * WEEK_MS) as stage:
        stage.exchange.account.fill("BTCUSDT", "Buy", "0.01", fills=3)
        stage.queue.went_up(["private:execution"])
        await eventually(lambda: "rest-executions" in stage.answered)
        found = {row["execId"] for row in stage.rows("rest-executions", "linear")}

    assert found == {each.exec_id for each in stage.exchange.account.executions}


async def test_trades_that_rest_lists_late_are_found() -> None:
    """REST may lag behind the stream, so trades from before the feed came up may be in later answers only."""
    timing = replace(QUICK, confirm_s=2.0)  # a busy machine still publishes within it
    async with filling_gaps(key=None, feeds_with_gap=[TRADES], timing=timing) as stage:
        stage.exchange.publish("linear", "publicTrade.BTCUSDT", 3)
        stage.queue.went_up([TRADES])
        await eventually(lambda: stage.answered["rest-trades"] == 1)
        stage.exchange.publish("linear", "publicTrade.BTCUSDT", 2)
        await eventually(lambda: stage.gap_fill.is_idle)
        found = {row["execId"] for row in stage.rows("rest-trades", "linear")}

    assert found >= set(stage.exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False))
    assert [answer.closes_gaps for answer in stage.answers("rest-trades")][-2:] == [False, True]


async def test_trades_are_requested_while_no_line_carries_them() -> None:
    """Bybit lists 60 trades of spot: after a long outage the first ones would be gone."""
    async with filling_gaps(key=None, feeds_with_gap=[TRADES]) as stage:
        for _ in range(5):
            stage.exchange.publish("linear", "publicTrade.BTCUSDT", 40)
            sent = set(stage.exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False))
            await eventually(lambda: {row["execId"] for row in stage.rows("rest-trades", "linear")} >= sent)  # noqa: B023
        answers = stage.answers("rest-trades")

    assert not any(answer.closes_gaps for answer in answers), "the gap is still open"
    listed = [row["execId"] for row in stage.rows("rest-trades", "linear")]
    repeated = len(listed) - len(set(listed))
    assert repeated <= 2 * len(answers), "a list is passed on with what the one before lacked, and two rows of it"


async def test_nothing_stands_in_while_answers_cannot_be_taken() -> None:
    """When the journal is full, lines are closed so that nothing is read which cannot be kept."""
    async with filling_gaps(key=None, feeds_with_gap=[TRADES], may_request=lambda: False) as stage:
        await asyncio.sleep(0.5)

    assert stage.rest.status.requests == 0


async def test_trades_of_a_symbol_that_bybit_does_not_know_are_hardly_requested() -> None:
    """Its channel is refused for ever, and requests for others must not wait for it."""
    timing = replace(QUICK, trades_interval_s=0.02, refused_retry_s=60.0)
    async with filling_gaps(feeds_with_gap=["linear:publicTrade.NONEUSDT", TRADES], timing=timing) as stage:
        await eventually(lambda: stage.gap_fill.stats.answers >= 10)

        assert stage.gap_fill.stats.failures == 1


async def test_feed_without_a_gap_is_not_requested() -> None:
    """On the first start nothing is missing; after the first loss something is."""
    async with filling_gaps(key=None) as stage:
        stage.queue.went_up([TRADES, "linear:tickers.BTCUSDT"])
        await asyncio.sleep(0.5)
        assert stage.rest.status.requests == 0
        stage.queue.went_down([TRADES])
        stage.queue.went_up([TRADES])
        await eventually(lambda: stage.answered["rest-trades"] >= 1)


async def test_gap_that_rest_cannot_fill_is_given_up_with_the_reason() -> None:
    """REST lists trades only for a short time, so requests end after some attempts."""
    async with filling_gaps(key=None, feeds_with_gap=[TRADES], timing=replace(QUICK, trades_within_s=0.5)) as stage:
        stage.exchange.fail_rest("status", status=500, count=None)
        stage.queue.went_up([TRADES])
        await eventually(lambda: stage.answered[NOTE] == 1)

    note = json.loads(stage.frames[0].raw)
    assert (note["note"], note["channels"]) == ("unhealed", [TRADES])
    assert "HTTP 500" in note["reason"]
    assert stage.gap_fill.stats.given_up == 1
