"""Gap filling: when a feed has a live line again, request its missing data from REST for the receiver."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import msgspec
import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import RestError, RestLimited, RestUnavailable
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue, GapFillStats, GapFillTiming
from hedgelock_ingest.pipeline.gap_fill_requests import checked, pause_s
from hedgelock_ingest.pipeline.missed_trades import MissedTrades
from hedgelock_ingest.pipeline.ports import AnswerReceiver, RestSource
from hedgelock_ingest.protocol.rest_messages import PRIVATE_FEED_BY_PART, Part, Purpose, RestAnswer
from hedgelock_ingest.protocol.rest_rows import rows_in

log = structlog.get_logger(__name__)

_URGENCY = (Part.POSITIONS, Part.EXECUTIONS, Part.WALLET, Part.COLLATERAL, Part.ORDERS, Part.LOANS)
"""A hedge depends on the first ones; all requests together take seconds under Bybit's limits."""
_LISTS = (Part.WALLET, Part.POSITIONS)
"""What such a list lacks is gone only if a second one lacks it, too, and neither can lag behind the last frame."""


class GapFill:
    """
    Fills the gaps of feeds; `run` is its task.

    An answer counts only if its feed has neither gone down nor come up since the request.
    """

    def __init__(
        self,
        rest: RestSource,
        answers: AnswerReceiver,
        last_seen_ms: Callable[[str], Awaitable[int | None]],
        queue: GapFillQueue,
        *,
        may_request: Callable[[], bool],
        on_rise: Callable[[], None] = lambda: None,
        clock: Clock,
        timing: GapFillTiming | None = None,
    ) -> None:
        """
        Prepare.

        Args:
            rest: Source of the answers.
            answers: Receives the answers.
            last_seen_ms: Returns Bybit's time from which on frames of a feed may be missing; None if none were seen.
            queue: What is to be requested.
            may_request: Returns whether answers can be taken while no line is live.
            on_rise: Called when feeds have come up, before anything is requested.
            clock: Used for waits.
            timing: Delays and attempts.
        """
        self._clock = clock
        self.stats = GapFillStats()
        self._rest = rest
        self._answers = answers
        self._last_seen_ms = last_seen_ms
        self._timing = timing or GapFillTiming()
        self._queue = queue
        self._on_rise = on_rise
        self._trades = MissedTrades(
            rest, answers, queue, self.stats, may_request=may_request, clock=clock, timing=self._timing
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to request, and no request is under way."""
        return self._queue.is_empty and all(task.done() for task in self._tasks.values())

    async def run(self) -> None:
        """Fill gaps until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._queue.changed.wait()
                self._queue.changed.clear()
                if self._queue.take_rise():
                    self._on_rise()
                    self._rest.probe_now()
                for feed in self._queue.take_feeds():  # before the account, which can be requested later as well
                    self._restart(tasks, feed, self._trades.follow(feed))
                for part in self._queue.take_parts():
                    epoch = self._queue.epoch(PRIVATE_FEED_BY_PART.get(part, ""))
                    self._restart(tasks, part, self._fill_part(part, epoch))

    def _restart(self, tasks: asyncio.TaskGroup, name: str, requests: Coroutine[None, None, None]) -> None:
        """Request anew, and end earlier requests for the same: they may hang in a connection that is gone."""
        earlier = self._tasks.get(name)
        if earlier is not None:
            earlier.cancel()
        self._tasks[name] = tasks.create_task(requests, name=f"gap_fill-{name}")

    async def _fill_part(self, part: Part, epoch: int) -> None:
        feed = PRIVATE_FEED_BY_PART.get(part, "")
        await self._clock.sleep(self._timing.gather_s + self._timing.step_s * _URGENCY.index(part))
        since_ms = await self._since_ms(feed)
        await self._request_until_answered(part, epoch, since_ms, closes_gaps=False)
        if not feed:
            return
        await self._clock.sleep(self._timing.confirm_s)
        if part in _LISTS:
            await self._request_until_answered(part, epoch, since_ms, closes_gaps=False)
            await self._clock.sleep(self._timing.second_list_s)
        await self._request_until_answered(part, epoch, since_ms, closes_gaps=True)

    async def _request_until_answered(self, part: Part, epoch: int, since_ms: int, *, closes_gaps: bool) -> None:
        """Request a part until all its rows can be decoded, or its feed has gone down."""
        feed = PRIVATE_FEED_BY_PART.get(part, "")
        retry_s, undecodable_answers, is_refused = self._timing.retry_initial_s, 0, False
        while epoch == self._queue.epoch(feed):
            try:
                answer = checked(await self._request(part, since_ms), self._answers)
                if epoch != self._queue.epoch(feed):
                    return
                undecodable = 0 if part is Part.COLLATERAL else len(rows_in(answer).undecodable)
                undecodable_answers += bool(undecodable)
                is_last = not undecodable or undecodable_answers >= self._timing.undecodable_attempts
                answer = msgspec.structs.replace(answer, closes_gaps=closes_gaps and is_last)
                self._answers.answer_received(answer)
                if not undecodable:
                    self._note_answer(part)
                    return
                raise RestUnavailable(f"{undecodable} rows of Bybit's answer about {part} cannot be decoded")
            except RestError as error:
                self._note_trouble(part, error)
                if undecodable_answers >= self._timing.undecodable_attempts:
                    return
                if feed and not error.transient and not is_refused and epoch == self._queue.epoch(feed):
                    is_refused = True
                    self._answers.gap_fill_failed(feed, str(error))
                await self._clock.sleep(pause_s(error, retry_s, self._timing))
                if not isinstance(error, RestLimited):
                    retry_s = min(retry_s * 2, self._timing.retry_max_s)

    async def _request(self, part: Part, since_ms: int) -> RestAnswer:
        rest = self._rest
        match part:
            case Part.WALLET:
                return await rest.wallet(Purpose.SNAPSHOT)
            case Part.POSITIONS:
                return await rest.positions(Purpose.SNAPSHOT)
            case Part.ORDERS:
                return await rest.orders(Purpose.GAP_FILL, since_ms=since_ms)
            case Part.EXECUTIONS:
                return await rest.executions(Purpose.GAP_FILL, since_ms=since_ms)
            case Part.COLLATERAL:
                return await rest.collateral(Purpose.SNAPSHOT)
            case Part.LOANS:
                return await rest.loans(Purpose.SNAPSHOT)
            case Part.TRADES | Part.TICKER:
                raise AssertionError("requested by feed")

    async def _since_ms(self, feed: str) -> int:
        seen_ms = await self._last_seen_ms(feed)
        return self._rest.now_ms() if seen_ms is None else seen_ms

    def _note_trouble(self, part: Part, error: RestError) -> None:
        self.stats.failures += 1
        if part not in self.stats.troubles:
            log.warning("account_part_missing", part=part, reason=str(error))
        self.stats.troubles[part] = str(error)

    def _note_answer(self, part: Part) -> None:
        self.stats.answers += 1
        if self.stats.troubles.pop(part, None) is not None:
            log.info("account_part_recovered", part=part)
