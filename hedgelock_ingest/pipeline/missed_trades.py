"""Trades that no line carried: requested from REST while a feed has no live line, and until its gap is filled."""

from collections.abc import Callable, Set

import msgspec
import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import FrameError, RestError, RestLimited
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue, GapFillStats, GapFillTiming
from hedgelock_ingest.pipeline.gap_fill_requests import checked, pause_s
from hedgelock_ingest.pipeline.ports import AnswerReceiver, RestSource
from hedgelock_ingest.protocol.channels import category_and_symbol
from hedgelock_ingest.protocol.rest_rows import raw_rows

log = structlog.get_logger(__name__)


class MissedTrades:
    """Requests the trades of feeds with a gap, and passes on the rows that the list before did not have."""

    def __init__(
        self,
        rest: RestSource,
        answers: AnswerReceiver,
        queue: GapFillQueue,
        stats: GapFillStats,
        *,
        may_request: Callable[[], bool],
        clock: Clock,
        timing: GapFillTiming,
    ) -> None:
        """Prepare; see `GapFill`."""
        self._rest = rest
        self._answers = answers
        self._queue = queue
        self._stats = stats
        self._may_request = may_request
        self._clock = clock
        self._timing = timing
        self._listed: dict[str, Set[bytes]] = {}

    async def follow(self, feed: str) -> None:
        """Request the trades of a feed until it comes up or goes down, or until its gap is filled or given up."""
        epoch = self._queue.epoch(feed)
        self._listed.pop(feed, None)  # rows that lay in no gap may lie in the next one
        if not self._queue.is_live(feed):
            await self._stand_in(feed, epoch)
            return
        try:
            await self._fill(feed, epoch)
        except RestError as error:
            if epoch == self._queue.epoch(feed):
                self._stats.given_up += 1
                log.warning("gap_not_filled", feed=feed, reason=str(error))
                self._answers.gap_fill_failed(feed, str(error))

    async def _stand_in(self, feed: str, epoch: int) -> None:
        """Request at intervals: Bybit lists only the last trades."""
        interval_s = self._timing.trades_interval_s
        while epoch == self._queue.epoch(feed):
            if self._may_request():
                try:
                    async with self._clock.timeout(self._timing.stand_in_timeout_s):
                        await self._request(feed, epoch, closes_gaps=False)
                    interval_s = self._timing.trades_interval_s
                except (RestError, TimeoutError) as error:
                    self._stats.failures += 1
                    if isinstance(error, RestError) and not error.transient:
                        interval_s = self._timing.refused_retry_s
                    elif isinstance(error.__cause__, FrameError):  # each such answer is a dead letter
                        interval_s = self._timing.retry_max_s
            await self._clock.sleep(interval_s)

    async def _fill(self, feed: str, epoch: int) -> None:
        """Request at intervals until REST no longer lags behind the moment at which the line went live."""
        live_s = self._clock.monotonic()
        while self._clock.monotonic() < live_s + self._timing.confirm_s:
            await self._request_in_time(feed, epoch, live_s, closes_gaps=False)
            await self._clock.sleep(self._timing.trades_interval_s)
        await self._request_in_time(feed, epoch, live_s, closes_gaps=True)

    async def _request_in_time(self, feed: str, epoch: int, live_s: float, *, closes_gaps: bool) -> None:
        while True:
            try:
                await self._request(feed, epoch, closes_gaps=closes_gaps)
            except RestError as error:
                self._stats.failures += 1
                left_s = live_s + self._timing.trades_within_s - self._clock.monotonic()
                wait_s = pause_s(error, self._timing.retry_initial_s, self._timing)
                refused_s = error.wait_s if isinstance(error, RestLimited) else 0.0
                if not error.transient or max(wait_s, refused_s) > left_s:
                    raise
                await self._clock.sleep(wait_s)
            else:
                return

    async def _request(self, feed: str, epoch: int, *, closes_gaps: bool) -> None:
        category, symbol = category_and_symbol(feed)
        answer = checked(await self._rest.recent_trades(category, symbol), self._answers)
        if epoch != self._queue.epoch(feed):
            return
        self._stats.answers += 1
        rows = [bytes(row) for row in raw_rows(answer.results[category])]
        listed, self._listed[feed] = self._listed.get(feed, frozenset()), frozenset(rows)
        known = [row for row in rows if row in listed]
        if len(known) == len(rows) and not closes_gaps:
            return
        # One row of the last list on either side shows that nothing is missing between the lists, however they are
        # sorted.
        kept = {*known[:1], *known[-1:]}
        news = [msgspec.Raw(row) for row in rows if row not in listed or row in kept]
        results = {category: msgspec.Raw(msgspec.json.encode({"list": news}))}
        self._answers.answer_received(msgspec.structs.replace(answer, results=results, closes_gaps=closes_gaps))
