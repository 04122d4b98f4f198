"""Polls beside the stream, against the REST of the simulated exchange."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.poll_loop import Polling
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest_tests.bybit.rest import client_for
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

COLLATERAL = "/v5/crypto-loan-common/position"


@dataclass
class PollStage:
    """Running polls, and their answers."""

    polling: Polling
    exchange: SimulatedExchange
    receiver: Receiver

    def answers(self, part: Part) -> int:
        return self.polling.stats[part].answers


@asynccontextmanager
async def polling(
    *,
    collateral_s: float = 0.1,
    loans_s: float = 30.0,
    may_request: Callable[[], bool] = lambda: True,
) -> AsyncIterator[PollStage]:
    """Poll an exchange."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        receiver = Receiver([], lambda: None, clock=SystemClock())
        polls = Polling(
            rest,
            receiver,
            collateral_interval_s=collateral_s,
            loan_interval_s=loans_s,
            may_request=may_request,
            clock=SystemClock(),
        )
        task = asyncio.create_task(polls.run())
        try:
            yield PollStage(polls, exchange, receiver)
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.mark.proof
async def test_slow_answers_do_not_make_the_grid_drift() -> None:
    """Polls follow fixed ticks, not an interval after the last answer, which would drop some polls per minute."""
    async with polling(collateral_s=0.3) as stage:
        await eventually(lambda: stage.answers(Part.COLLATERAL) == 1)
        began_s = time.monotonic()
        stage.exchange.fail_rest("silence", path=COLLATERAL, seconds=0.15, count=None)
        await eventually(lambda: stage.answers(Part.COLLATERAL) == 7)

        assert time.monotonic() - began_s < 6 * 0.45 - 0.3
        assert stage.polling.stats[Part.COLLATERAL].missed == 0


async def test_answer_that_outlasts_its_tick_counts_missed_ticks() -> None:
    """Two polls of one part never run concurrently, and the skipped ones are counted."""
    async with polling() as stage:
        stage.exchange.fail_rest("silence", path=COLLATERAL, seconds=0.35, count=2)
        await eventually(lambda: stage.answers(Part.COLLATERAL) == 3)

        assert stage.polling.stats[Part.COLLATERAL].missed >= 4


async def test_failed_poll_is_reported_until_the_next_answer() -> None:
    """Health shows a failure for as long as it lasts, and the count of failures stays."""
    async with polling() as stage:
        stage.exchange.fail_rest("ret_code", path=COLLATERAL, ret_code=10005, count=None)
        await eventually(lambda: stage.polling.stats[Part.COLLATERAL].trouble)
        assert "Spot" in (stage.polling.stats[Part.COLLATERAL].trouble or "")
        stage.exchange.restore_rest()
        await eventually(lambda: stage.answers(Part.COLLATERAL))

        assert stage.polling.stats[Part.COLLATERAL].trouble is None
        assert stage.polling.stats[Part.COLLATERAL].failures >= 1


async def test_nothing_is_requested_with_a_key_that_is_not_accepted() -> None:
    """Polls wait for the key gate as private lines do."""
    is_open = False
    async with polling(may_request=lambda: is_open) as stage:
        began_s = time.monotonic()
        await eventually(lambda: time.monotonic() - began_s > 0.5)
        assert stage.receiver.waiting == 0
        is_open = True
        await eventually(lambda: stage.answers(Part.COLLATERAL))
