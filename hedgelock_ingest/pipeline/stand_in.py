"""REST in place of lines: tickers, wallet and positions while their feeds have no live line."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import FrameError, RestError
from hedgelock_ingest.pipeline.ports import AnswerReceiver, RestSource
from hedgelock_ingest.protocol.channels import category_and_symbol, is_ticker_feed
from hedgelock_ingest.protocol.rest_messages import PRIVATE_FEED_BY_PART, Part, Purpose, RestAnswer
from hedgelock_ingest.protocol.rest_rows import rows_in

log = structlog.get_logger(__name__)

type Request = Callable[[], Awaitable[RestAnswer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInTiming:
    """
    Intervals of requests about one feed without a live line, in seconds.

    A request that is not answered within `timeout_s`, one about the account within `account_timeout_s`, holds the next
    ones back no longer. After an answer that cannot be decoded, which is a dead letter, its feed pauses; it pauses for
    longer if Bybit refuses a ticker, such as that of a symbol that it does not know.
    """

    ticker_s: float = 1.0
    account_s: float = 2.0
    timeout_s: float = 5.0
    account_timeout_s: float = 15.0
    undecodable_retry_s: float = 10.0
    refused_retry_s: float = 60.0


@dataclass(slots=True)
class StandInStats:
    """Counters of answers that took the place of frames."""

    answers: int = 0
    failures: int = 0


class StandIn:
    """
    Requests the present state of feeds that no line carries; `run` is its task.

    An answer counts only if the feed has no live line when it arrives. Trades that are missed are gap filling's.
    """

    def __init__(
        self,
        rest: RestSource,
        answers: AnswerReceiver,
        without_line: Collection[str],
        *,
        may_request: Callable[[], bool],
        may_request_account: Callable[[], bool],
        clock: Clock,
        timing: StandInTiming | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            rest: Source of the answers.
            answers: Receives the answers.
            without_line: The feeds without a live line, at any time.
            may_request: Returns whether answers can be taken now.
            may_request_account: Returns whether the account may be requested now.
            clock: Times the requests.
            timing: Intervals.
        """
        self.stats = StandInStats()
        self._rest = rest
        self._answers = answers
        self._without_line = without_line
        self._may_request = may_request
        self._may_request_account = may_request_account
        self._clock = clock
        self._timing = timing or StandInTiming()
        self._not_before_s: dict[str, float] = {}
        self._pending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Request until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            timing = self._timing
            tasks.create_task(self._repeat(timing.ticker_s, timing.timeout_s, self._ticker_requests))
            tasks.create_task(self._repeat(timing.account_s, timing.account_timeout_s, self._account_requests))

    def end_requests(self) -> None:
        """End requests about feeds that are live again: they would delay those that fill the gap."""
        for feed, task in self._pending.items():
            if feed not in self._without_line:
                task.cancel()

    async def _repeat(self, interval_s: float, timeout_s: float, requests: Callable[[], Mapping[str, Request]]) -> None:
        next_s = self._clock.monotonic()
        while True:
            next_s = max(next_s + interval_s, self._clock.monotonic())
            await self._clock.sleep(next_s - self._clock.monotonic())
            async with asyncio.TaskGroup() as tasks:
                for feed, request in requests().items():
                    self._pending[feed] = tasks.create_task(self._request(feed, request, timeout_s))

    def _ticker_requests(self) -> Mapping[str, Request]:
        if not self._may_request():
            return {}
        feeds = [feed for feed in sorted(self._without_line) if is_ticker_feed(feed) and self._may_request_about(feed)]
        return {feed: partial(self._rest.ticker, *category_and_symbol(feed)) for feed in feeds}

    def _account_requests(self) -> Mapping[str, Request]:
        if not (self._may_request() and self._may_request_account()):
            return {}
        requests: dict[str, Request] = {
            PRIVATE_FEED_BY_PART[Part.WALLET]: partial(self._rest.wallet, Purpose.POLL),
            PRIVATE_FEED_BY_PART[Part.POSITIONS]: partial(self._rest.positions, Purpose.POLL),
        }
        return {
            feed: request
            for feed, request in requests.items()
            if feed in self._without_line and self._may_request_about(feed)
        }

    def _may_request_about(self, feed: str) -> bool:
        return self._clock.monotonic() >= self._not_before_s.get(feed, float("-inf"))

    async def _request(self, feed: str, request: Request, timeout_s: float) -> None:
        try:
            async with self._clock.timeout(timeout_s):
                answer = await request()
        except (RestError, TimeoutError) as error:  # the session logs lasting failures
            self.stats.failures += 1
            if is_ticker_feed(feed) and isinstance(error, RestError) and not error.transient:
                self._not_before_s[feed] = self._clock.monotonic() + self._timing.refused_retry_s
            return
        if feed not in self._without_line:
            return
        self._answers.answer_received(answer)
        try:
            rows = rows_in(answer)
        except FrameError:  # a dead letter now
            is_decoded = False
        else:
            is_decoded = bool(rows.decoded) or not rows.undecodable
        if not is_decoded:
            self.stats.failures += 1
            self._not_before_s[feed] = self._clock.monotonic() + self._timing.undecodable_retry_s
        else:
            self.stats.answers += 1
