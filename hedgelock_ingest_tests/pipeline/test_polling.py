"""Polls beside the stream, against the REST of the simulated exchange."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.pipeline.polling import Polling
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.protocol.rest_messages import Part
from hedgelock_ingest.sandbox.exchange import SimulatedExchange
from hedgelock_ingest_tests.bybit.rest import client_for
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually, running_exchange

COLLATERAL = "/v5/crypto-loan-common/position"


@dataclass
class Life:
    """Polls at work, and what they hand over."""

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
    may_ask: Callable[[], bool] = lambda: True,
    has_wallet_feed: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Life]:
    """Poll an exchange."""
    async with running_exchange() as exchange, client_for(exchange) as rest:
        receiver = Receiver([], lambda: None, clock=SystemClock())
        polls = Polling(
            rest,
            receiver,
            collateral_interval_s=collateral_s,
            loan_interval_s=loans_s,
            may_ask=may_ask,
            has_wallet_feed=has_wallet_feed,
            clock=SystemClock(),
        )
        task = asyncio.create_task(polls.run())
        try:
            yield Life(polls, exchange, receiver)
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.mark.proof
async def test_slow_answers_do_not_make_the_grid_drift() -> None:
    """Polls come at their ticks, not at an interval after the last answer, or a minute would lose some of them."""
    async with polling(collateral_s=0.3) as life:
        await eventually(lambda: life.answers(Part.COLLATERAL) == 1)
        began_s = time.monotonic()
        life.exchange.fail_rest("silence", path=COLLATERAL, seconds=0.15, count=None)
        await eventually(lambda: life.answers(Part.COLLATERAL) == 7)

        assert time.monotonic() - began_s < 6 * 0.45 - 0.3
        assert life.polling.stats[Part.COLLATERAL].missed == 0


async def test_answer_that_outlasts_its_tick_misses_ticks_and_says_so() -> None:
    """Two polls of one part never run beside each other, and the missed ones are counted."""
    async with polling() as life:
        life.exchange.fail_rest("silence", path=COLLATERAL, seconds=0.35, count=2)
        await eventually(lambda: life.answers(Part.COLLATERAL) == 3)

        assert life.polling.stats[Part.COLLATERAL].missed >= 4


async def test_failed_poll_is_told_and_forgotten_with_the_next_answer() -> None:
    """Health shows a trouble for as long as it lasts, and the count of failures stays."""
    async with polling() as life:
        life.exchange.fail_rest("ret_code", path=COLLATERAL, ret_code=10005, count=None)
        await eventually(lambda: life.polling.stats[Part.COLLATERAL].trouble)
        assert "Spot" in (life.polling.stats[Part.COLLATERAL].trouble or "")
        life.exchange.restore_rest()
        await eventually(lambda: life.answers(Part.COLLATERAL))

        assert life.polling.stats[Part.COLLATERAL].trouble is None
        assert life.polling.stats[Part.COLLATERAL].failures >= 1


async def test_nothing_is_asked_with_a_key_that_is_not_accepted() -> None:
    """Polls wait for the gate as the private lines do."""
    is_open = False
    async with polling(may_ask=lambda: is_open) as life:
        began_s = time.monotonic()
        await eventually(lambda: time.monotonic() - began_s > 0.5)
        assert life.receiver.waiting == 0
        is_open = True
        await eventually(lambda: life.answers(Part.COLLATERAL))


async def test_wallet_is_polled_often_only_while_its_stream_is_silent() -> None:
    """The stream tells each change; without it the polls are all that is left."""
    hears = True
    async with polling(has_wallet_feed=lambda: hears) as life:
        await eventually(lambda: life.answers(Part.COLLATERAL) >= 5)
        assert life.answers(Part.WALLET) <= 1
        hears = False
        await eventually(lambda: life.answers(Part.WALLET) >= 4)
