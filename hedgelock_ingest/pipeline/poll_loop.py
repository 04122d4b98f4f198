"""Polls of data without a stream: collateral and loans; and of the wallet, to check its stream."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import FrameError, RestError
from hedgelock_ingest.pipeline.ports import AnswerReceiver, RestSource
from hedgelock_ingest.protocol.rest_messages import Part, Purpose, RestAnswer
from hedgelock_ingest.protocol.rest_rows import check_results

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class PollStats:
    """Counters of one poll; `trouble` is the reason of the last failure, None after a success."""

    answers: int = 0
    failures: int = 0
    missed: int = 0
    last_answer_ns: int | None = None
    trouble: str | None = None


class Polling:
    """
    Polls on a fixed grid of ticks, so that response times do not add up; `run` is its task.

    A tick during a pending request is skipped and counted as missed.
    """

    def __init__(
        self,
        rest: RestSource,
        answers: AnswerReceiver,
        *,
        collateral_interval_s: float,
        loan_interval_s: float,
        may_request: Callable[[], bool],
        clock: Clock,
        wallet_interval_s: float = 60.0,
    ) -> None:
        """
        Prepare.

        Args:
            rest: Source of the answers.
            answers: Receives the answers.
            collateral_interval_s: Between two ticks.
            loan_interval_s: Between two ticks.
            may_request: Returns whether the account may be requested now.
            clock: Times the ticks.
            wallet_interval_s: Between two ticks of the wallet, whose stream may on rare occasions omit a message.
        """
        self._clock = clock
        self._wallet_interval_s = wallet_interval_s
        self.stats = {part: PollStats() for part in (Part.COLLATERAL, Part.LOANS, Part.WALLET)}
        self._rest = rest
        self._answers = answers
        self._collateral_interval_s = collateral_interval_s
        self._loan_interval_s = loan_interval_s
        self._may_request = may_request

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(Part.COLLATERAL, self._rest.collateral, self._collateral_interval_s))
            tasks.create_task(self._poll(Part.LOANS, self._rest.loans, self._loan_interval_s))
            tasks.create_task(self._poll(Part.WALLET, self._rest.wallet, self._wallet_interval_s))

    async def _poll(self, part: Part, request: Callable[[Purpose], Awaitable[RestAnswer]], interval_s: float) -> None:
        began_s, tick = self._clock.monotonic(), 0
        while True:
            passed = int((self._clock.monotonic() - began_s) / interval_s)
            self.stats[part].missed += max(0, passed - tick)
            tick = max(tick, passed) + 1
            await self._clock.sleep(began_s + tick * interval_s - self._clock.monotonic())
            if self._may_request():
                await self._request(part, request)

    async def _request(self, part: Part, request: Callable[[Purpose], Awaitable[RestAnswer]]) -> None:
        stats = self.stats[part]
        try:
            answer = await request(Purpose.POLL)
        except RestError as error:
            self._note_failure(part, str(error))
            return
        trace_id = self._answers.answer_received(answer)
        try:
            check_results(answer)
        except FrameError as error:
            self._note_failure(part, f"Bybit's answer cannot be decoded: {error}", trace_id)
            return
        log.debug("account_polled", part=part, trace_id=trace_id)
        if stats.trouble is not None:
            log.info("poll_recovered", part=part, trace_id=trace_id)
        stats.answers, stats.trouble, stats.last_answer_ns = stats.answers + 1, None, self._clock.wall_ns()

    def _note_failure(self, part: Part, reason: str, trace_id: str | None = None) -> None:
        stats = self.stats[part]
        stats.failures += 1
        if stats.trouble is None:
            log.warning("poll_failed", part=part, reason=reason, trace_id=trace_id)
        stats.trouble = reason
