"""What gap filling requests again after an answer: lists to confirm them, and rows that cannot be decoded."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.gap_fill import GapFill
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue, GapFillTiming
from hedgelock_ingest.protocol.rest_messages import CATEGORIES_BY_PART, Part, Purpose, RestAnswer
from hedgelock_ingest_tests.builders import AT_MS
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually

QUICK = GapFillTiming(
    second_list_s=0.01, gather_s=0.001, retry_initial_s=0.01, retry_max_s=0.02, confirm_s=0.05, undecodable_attempts=3
)
WRONG = {"symbol": 7}


class ScriptedRest:
    """REST in memory: lists are empty; the next `wrong` ones of a part hold a row that cannot be decoded."""

    def __init__(self) -> None:
        self.requests: list[tuple[Part, int | None]] = []
        self.answers_wallet = asyncio.Event()
        self.answers_wallet.set()
        self.wrong: Counter[Part] = Counter()

    def now_ms(self) -> int:
        return AT_MS

    async def wallet(self, purpose: Purpose) -> RestAnswer:
        answer = self._answer(Part.WALLET, purpose, ["wallet"])
        await self.answers_wallet.wait()
        return answer

    async def positions(self, purpose: Purpose) -> RestAnswer:
        return self._answer(Part.POSITIONS, purpose)

    async def orders(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        return self._answer(Part.ORDERS, purpose, since_ms=since_ms)

    async def executions(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        return self._answer(Part.EXECUTIONS, purpose, since_ms=since_ms)

    async def collateral(self, purpose: Purpose) -> RestAnswer:
        loan = {"borrowList": [], "collateralList": [], "ltv": "", "totalCollateral": "0", "totalDebt": "0"}
        self.requests.append((Part.COLLATERAL, None))
        return RestAnswer(Part.COLLATERAL, purpose, AT_MS, {"position": msgspec.Raw(json.dumps(loan).encode())})

    async def loans(self, purpose: Purpose) -> RestAnswer:
        return self._answer(Part.LOANS, purpose, ["flexible"])

    def probe_now(self) -> None:
        pass

    async def ticker(self, category: str, symbol: str) -> RestAnswer:
        raise AssertionError("no ticker is requested here")

    async def recent_trades(self, category: str, symbol: str) -> RestAnswer:
        raise AssertionError("no trades are requested here")

    def asked(self, part: Part) -> list[int | None]:
        """Return from when on each request about a part was."""
        return [since_ms for each, since_ms in self.requests if each is part]

    def _answer(
        self, part: Part, purpose: Purpose, names: list[str] | None = None, *, since_ms: int | None = None
    ) -> RestAnswer:
        self.requests.append((part, since_ms))
        rows = [WRONG] if self.wrong[part] > 0 else []
        self.wrong[part] -= 1
        result = msgspec.Raw(json.dumps({"list": rows}).encode())
        return RestAnswer(part, purpose, AT_MS, dict.fromkeys(names or CATEGORIES_BY_PART[part], result))


class Answers:
    """Counts the answers that were passed on."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def answer_received(self, answer: RestAnswer) -> str:
        self.parts.append(answer.part)
        return ""

    def gap_fill_failed(self, feed: str, reason: str) -> None:
        raise AssertionError("no trades are requested here")


@asynccontextmanager
async def filling(
    rest: ScriptedRest, queue: GapFillQueue, timing: GapFillTiming = QUICK
) -> AsyncIterator[tuple[GapFill, Answers]]:
    """Run gap filling over scripted answers; each look at the last frame finds a later one."""
    answers, seen_ms = Answers(), iter(range(1_000, 9_000, 1_000))

    async def last_seen_ms(feed: str) -> int:
        return next(seen_ms)

    gap_fill = GapFill(rest, answers, last_seen_ms, queue, may_request=lambda: True, clock=SystemClock(), timing=timing)
    task = asyncio.create_task(gap_fill.run())
    try:
        yield gap_fill, answers
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_answer_does_not_count_once_its_feed_is_down_again() -> None:
    """It would close a gap that began after the request; when the feed is up again, it is requested again."""
    rest, queue = ScriptedRest(), GapFillQueue()
    rest.answers_wallet.clear()
    async with filling(rest, queue) as (gap_fill, answers):
        queue.went_up(["private:wallet"])
        await eventually(lambda: rest.asked(Part.WALLET))
        queue.went_down(["private:wallet"])
        rest.answers_wallet.set()
        await eventually(lambda: gap_fill.is_idle)
        assert Part.WALLET not in answers.parts
        queue.went_up(["private:wallet"])
        await eventually(lambda: answers.parts.count(Part.WALLET) == 3 and gap_fill.is_idle)


async def test_list_is_confirmed_while_its_feed_stays_live_only() -> None:
    """Once the feed is down, all lists are requested again when it comes up."""
    rest, queue = ScriptedRest(), GapFillQueue()
    async with filling(rest, queue, replace(QUICK, confirm_s=0.3)) as (gap_fill, answers):
        queue.went_up(["private:position"])
        await eventually(lambda: Part.POSITIONS in answers.parts)
        queue.went_down(["private:position"])
        queue.went_up(["private:position"])
        await eventually(lambda: answers.parts.count(Part.POSITIONS) == 4 and gap_fill.is_idle)

    assert len(rest.asked(Part.POSITIONS)) == 4


async def test_history_is_requested_from_the_same_time_until_its_gap_is_filled() -> None:
    """The feed is live again, so that its last frame is later than what is missing."""
    rest, queue = ScriptedRest(), GapFillQueue()
    rest.wrong[Part.EXECUTIONS] = 2
    async with filling(rest, queue) as (gap_fill, answers):
        queue.went_up(["private:execution"])
        await eventually(lambda: len(rest.asked(Part.EXECUTIONS)) == 4 and gap_fill.is_idle)

    assert rest.asked(Part.EXECUTIONS) == [1_000, 1_000, 1_000, 1_000], "two with a wrong row, and two that count"
    assert answers.parts.count(Part.EXECUTIONS) == 4, "each answer is passed on: its other rows count"
    assert (gap_fill.stats.failures, gap_fill.stats.troubles) == (2, {})


async def test_row_that_is_never_decoded_is_not_requested_for_ever() -> None:
    """Each answer makes a dead letter of it again."""
    rest, queue = ScriptedRest(), GapFillQueue()
    rest.wrong[Part.POSITIONS] = 1_000
    async with filling(rest, queue) as (gap_fill, _):
        queue.went_up(["private:position"])
        await eventually(lambda: len(rest.asked(Part.POSITIONS)) >= 3 and gap_fill.is_idle)

    assert len(rest.asked(Part.POSITIONS)) == 3 * 3, "three for each of the three lists"
    assert "cannot be decoded" in gap_fill.stats.troubles[Part.POSITIONS]
