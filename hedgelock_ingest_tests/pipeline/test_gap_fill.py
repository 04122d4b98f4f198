"""What is asked for when feeds come up, against the REST of the simulated exchange."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.gap_fill import GapFill, GapFillTiming
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.protocol.frames import NOTE, Frame
from hedgelock_ingest.protocol.private_messages import PRIVATE_CHANNELS
from hedgelock_ingest.protocol.rest_messages import RestAnswer
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest.sandbox.exchange.keys import KEYS, ApiKey
from hedgelock_ingest_tests.bybit.rest import client_for
from hedgelock_ingest_tests.pipeline.taken import Taken
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

PRIVATE_FEEDS = [f"private:{channel}" for channel in PRIVATE_CHANNELS]
TRADES = "linear:publicTrade.BTCUSDT"
PARTS = {"rest-wallet", "rest-positions", "rest-orders", "rest-executions", "rest-collateral", "rest-loans"}
QUICK = GapFillTiming(gather_s=0.01, lag_s=0.2, retry_initial_s=0.05, retry_max_s=2.0, refused_retry_s=0.1)
WEEK_MS = 7 * 86_400_000


@dataclass
class Life:
    """A gap fill at work, and what it hands over."""

    healing: GapFill
    rest: RestClient
    exchange: SimulatedExchange
    taken: Taken

    @property
    def frames(self) -> list[Frame]:
        return self.taken.arrivals.frames

    @property
    def answered(self) -> Counter[str]:
        return Counter(frame.origin for frame in self.frames)

    def rows(self, origin: str, name: str) -> list[dict[str, Any]]:
        """Return the rows of the last answer of one part."""
        frame = [frame for frame in self.frames if frame.origin == origin][-1]
        answer = msgspec.json.decode(frame.raw, type=RestAnswer)
        rows: list[dict[str, Any]] = json.loads(bytes(answer.results[name]))["list"]
        return rows


@asynccontextmanager
async def healing(
    *,
    key: ApiKey | None = KEYS["read-only"],
    feeds_with_gap: Iterable[str] = (TRADES,),
    seen_ago_ms: int = 60_000,
    timing: GapFillTiming = QUICK,
    **scenario: Any,
) -> AsyncIterator[Life]:
    """Run healing over an exchange."""
    async with running_exchange(**scenario) as exchange, client_for(exchange, key) as rest:

        async def last_seen_ms(feed: str) -> int:
            return exchange.now_ms() - seen_ago_ms

        receiver = Receiver([*PRIVATE_FEEDS, TRADES], lambda: None, clock=SystemClock())
        at_work = GapFill(
            rest, receiver, last_seen_ms, feeds_with_gap=feeds_with_gap, clock=SystemClock(), timing=timing
        )
        life = Life(at_work, rest, exchange, Taken(receiver))
        task = asyncio.create_task(life.healing.run())
        try:
            yield life
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_account_that_comes_up_is_asked_for_whole() -> None:
    """The stream tells only changes, and nothing of loans: every part is asked for, each once."""
    async with healing() as life:
        life.healing.went_up(PRIVATE_FEEDS)
        await eventually(lambda: set(life.answered) == PARTS)

    assert set(life.answered.values()) == {1}


async def test_one_feed_that_comes_up_is_asked_for_alone() -> None:
    """Where only the orders were away, positions and balances are known; loans are never told by a stream."""
    async with healing() as life:
        life.healing.went_up(["private:order"])
        await eventually(lambda: len(life.answered) == 3)

    assert set(life.answered) == {"rest-orders", "rest-collateral", "rest-loans"}


async def test_part_that_fails_is_asked_for_again_and_holds_up_no_other() -> None:
    """One endpoint in trouble must not keep the rest of the account away."""
    async with healing() as life:
        life.exchange.fail_rest("ret_code", path="/v5/position", ret_code=10005, count=None)
        life.healing.went_up(PRIVATE_FEEDS)
        await eventually(lambda: set(life.answered) == PARTS - {"rest-positions"})
        assert "Contract" in life.healing.stats.troubles["positions"]
        life.exchange.restore_rest()
        await eventually(lambda: set(life.answered) == PARTS)

    assert life.healing.stats.troubles == {}


async def test_account_is_asked_for_until_bybit_is_back() -> None:
    """However long REST is away, the account's holes are filled in the end."""
    async with healing() as life:
        life.exchange.fail_rest("status", count=None)
        life.healing.went_up(PRIVATE_FEEDS)
        await eventually(lambda: life.healing.stats.failures >= 3)
        assert not life.answered
        life.exchange.restore_rest()
        await eventually(lambda: set(life.answered) == PARTS, timeout_s=20)


async def test_answer_does_not_count_once_its_feed_is_down_again() -> None:
    """It would close a hole that is still open; when the feed is back, it is asked for anew."""
    async with healing() as life:
        life.exchange.fail_rest("silence", path="/v5/account/wallet-balance", seconds=0.3, count=1)
        life.healing.went_up(["private:wallet"])
        await eventually(lambda: life.rest.status.requests == 2)  # the clock, and the wallet that is silent
        life.healing.went_down(["private:wallet"])
        await eventually(lambda: "rest-loans" in life.answered)
        assert "rest-wallet" not in life.answered
        life.healing.went_up(["private:wallet"])
        await eventually(lambda: "rest-wallet" in life.answered)


async def test_fills_are_asked_for_from_the_last_one_seen() -> None:
    """An outage of three weeks is asked for in spans that Bybit takes."""
    async with healing(seen_ago_ms=3 * WEEK_MS) as life:
        life.exchange.account.fill("BTCUSDT", "Buy", "0.01", fills=3)
        life.healing.went_up(["private:execution"])
        await eventually(lambda: "rest-executions" in life.answered)
        found = {row["execId"] for row in life.rows("rest-executions", "linear")}

    assert found == {each.exec_id for each in life.exchange.account.executions}


async def test_trades_that_rest_shows_late_are_found() -> None:
    """REST may lag behind the stream, so the last trades before the feed came up stand in a second answer."""
    timing = replace(QUICK, lag_s=2.0)  # a busy machine still publishes within it
    async with healing(key=None, timing=timing) as life:
        life.exchange.publish("linear", "publicTrade.BTCUSDT", 3)
        life.healing.went_up([TRADES])
        await eventually(lambda: life.rest.status.requests == 1)
        life.exchange.publish("linear", "publicTrade.BTCUSDT", 2)
        await eventually(lambda: "rest-trades" in life.answered)
        found = {row["execId"] for row in life.rows("rest-trades", "linear")}

    assert found >= set(life.exchange.sent("linear", "publicTrade.BTCUSDT", delivered=False))
    assert life.answered["rest-trades"] == 1


async def test_feed_without_a_hole_is_not_asked_for() -> None:
    """On the first start nothing is missing; after the first loss there is."""
    async with healing(key=None, feeds_with_gap=()) as life:
        life.healing.went_up([TRADES])
        life.healing.went_up(["linear:tickers.BTCUSDT"])
        life.healing.went_down([TRADES])
        life.healing.went_up([TRADES])
        await eventually(lambda: life.answered["rest-trades"] == 1)

    assert life.rest.status.requests == 2


async def test_hole_that_rest_cannot_fill_is_given_up_with_the_reason() -> None:
    """Trades are soon out of REST's reach, so they are not waited for without end."""
    async with healing(key=None) as life:
        life.exchange.fail_rest("status", status=500, count=None)
        life.healing.went_up([TRADES])
        await eventually(lambda: life.answered[NOTE] == 1)

    note = json.loads(life.frames[0].raw)
    assert (note["note"], note["channels"]) == ("unhealed", [TRADES])
    assert "HTTP 500" in note["reason"]
    assert life.healing.stats.given_up == 1
