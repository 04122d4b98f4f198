"""The virtual loop: virtual time, and processes that are killed between two of their steps."""

import asyncio
import contextvars
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from hedgelock_ingest_tests.simulation.loop import LIFETIME, Deadlock, ProcessLifetime, VirtualClock, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """Yield a loop, and discard the tasks that a test has left in it."""
    before = asyncio.events._get_running_loop()
    asyncio.events._set_running_loop(None)
    loop = VirtualLoop()
    yield loop
    loop.close_and_discard()
    asyncio.events._set_running_loop(before)


def _begin(loop: VirtualLoop, program: Coroutine[Any, Any, None]) -> ProcessLifetime:
    """Start a process."""
    lifetime = ProcessLifetime("a process", VirtualClock(loop).wall_ns)
    context = contextvars.copy_context()
    context.run(LIFETIME.set, lifetime)
    loop.create_task(program, context=context)
    return lifetime


class _Counting:
    """A program that counts its iterations, and records how it ends."""

    def __init__(self) -> None:
        self.turns = 0
        self.ended = False

    async def run(self) -> None:
        try:
            while True:
                self.turns += 1
                await asyncio.sleep(1.0)
        finally:
            self.ended = True


def test_killed_process_runs_nothing_more_not_even_its_finally(loop: VirtualLoop) -> None:
    """SIGKILL runs no cleanup of the process."""
    program, deaths = _Counting(), list[ProcessLifetime]()
    loop.on_death = deaths.append
    lifetime = _begin(loop, program.run())
    loop.call_later(2.5, loop.kill, lifetime)
    loop.run_until_complete(asyncio.sleep(10.0))
    assert (program.turns, program.ended) == (3, False)
    assert deaths == [lifetime]


def test_ended_process_schedules_nothing(loop: VirtualLoop) -> None:
    """A callback from outside cannot start anything in an ended process."""
    ran: list[str] = []
    lifetime = ProcessLifetime("a process", VirtualClock(loop).wall_ns)
    context = contextvars.copy_context()
    context.run(LIFETIME.set, lifetime)
    loop.call_soon(ran.append, "before", context=context)
    loop.kill(lifetime)
    loop.call_soon(ran.append, "soon", context=context)
    loop.call_later(1.0, ran.append, "later", context=context)
    loop.run_until_complete(asyncio.sleep(2.0))
    assert ran == []


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_process_is_killed_after_the_given_number_of_steps(loop: VirtualLoop, steps: int) -> None:
    """A schedule can end a process after any step."""
    turns = 0

    async def step() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    lifetime = _begin(loop, step())
    lifetime.kill_in = steps
    loop.run_until_complete(asyncio.sleep(1.0))
    assert lifetime.is_dead
    assert turns == steps == loop.steps - 1


def test_other_process_continues_when_one_is_killed(loop: VirtualLoop) -> None:
    """A kill affects one process."""
    first, second = _Counting(), _Counting()
    lifetime = _begin(loop, first.run())
    _begin(loop, second.run())
    loop.call_later(1.5, loop.kill, lifetime)
    loop.run_until_complete(asyncio.sleep(9.5))
    assert (first.turns, second.turns) == (2, 10)


def test_waiting_in_virtual_time_takes_no_real_time(loop: VirtualLoop) -> None:
    """A day of waiting is one step, and both clocks advance by a day."""
    clock = VirtualClock(loop)
    began_s, began_ns, really_s = clock.monotonic(), clock.wall_ns(), time.process_time()
    loop.run_until_complete(clock.sleep(86_400.0))
    assert clock.monotonic() - began_s == pytest.approx(86_400.0)
    assert clock.wall_ns() - began_ns == pytest.approx(86_400 * 10**9)
    assert time.process_time() - really_s < 60.0


def test_timeout_ends_by_virtual_time(loop: VirtualLoop) -> None:
    """A wait without an end times out by the loop's time."""
    clock = VirtualClock(loop)

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(30.0):
                await asyncio.Event().wait()

    loop.run_until_complete(wait())
    assert clock.monotonic() == pytest.approx(1_030.0)


def test_steps_due_at_the_same_time_keep_their_order(loop: VirtualLoop) -> None:
    """The order of a heap is not determined by a seed."""
    ran: list[int] = []
    for number in range(20):
        loop.call_at(1_005.0, ran.append, number)
    cancelled = loop.call_at(1_005.0, ran.append, -1)
    loop.call_at(1_004.0, ran.append, 100)
    cancelled.cancel()
    loop.run_until_complete(asyncio.sleep(6.0))
    assert ran == [100, *range(20)]


def test_deadlock_is_raised_when_nothing_is_scheduled(loop: VirtualLoop) -> None:
    """A run in which every task waits would never end."""

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        loop.run_until_complete(wait())


def test_failed_callback_is_recorded(loop: VirtualLoop) -> None:
    """A run must detect failures of callbacks that no task waits for."""
    loop.call_soon(divmod, 1, 0)
    loop.run_until_complete(asyncio.sleep(0.0))
    assert [type(failure["exception"]) for failure in loop.failures] == [ZeroDivisionError]


def test_discarded_coroutines_schedule_nothing(loop: VirtualLoop) -> None:
    """Coroutines are closed with their `finally` blocks, however many of them wait, and schedule nothing."""
    ended: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(100.0)
        finally:
            try:
                await asyncio.sleep(1.0)
            finally:
                ended.append("inner")

    async def outer() -> None:
        try:
            await inner()
        finally:
            ended.append("outer")

    lifetime = _begin(loop, outer())
    loop.call_later(1.0, loop.kill, lifetime)
    loop.run_until_complete(asyncio.sleep(2.0))
    assert ended == []
    loop.close_and_discard()
    assert ended == ["inner", "outer"]
    assert not loop.failures
