"""An event loop in virtual time: waiting takes no real time, and the same program repeats the same steps."""

import asyncio
import contextlib
import contextvars
import inspect
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from hedgelock_ingest.clock import SystemClock

EPOCH_NS = 1_788_000_000 * 1_000_000_000
"""The wall clock at the loop's second 0."""
_RESOLUTION_S = 1e-9
"""Steps due within this time are due now."""
_MAX_NESTED_FINALLY = 10
"""How many nested `finally` blocks that wait a discarded coroutine may have."""


class Deadlock(Exception):
    """Every task waits, and nothing is scheduled that could end a wait."""


class ProcessLifetime:
    """
    The lifetime of one simulated process: the steps that it has scheduled belong to it, and are dropped at its end.

    `kill_in` is the number of steps until the process is killed; None means it is not going to be.
    """

    def __init__(self, name: str, wall_ns: Callable[[], int]) -> None:
        self.name = name
        self.wall_ns = wall_ns
        self.is_dead = False
        self.kill_in: int | None = None


LIFETIME: contextvars.ContextVar[ProcessLifetime | None] = contextvars.ContextVar("lifetime", default=None)
"""The process that a context belongs to; None for everything outside the processes."""


class _Step:
    """A scheduled callback, with the part of asyncio's handle that is used."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "lifetime")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        lifetime: ProcessLifetime | None,
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.lifetime = lifetime
        self.is_cancelled = False

    def cancel(self) -> None:
        """Cancel the callback."""
        self.is_cancelled = True


class VirtualLoop(asyncio.BaseEventLoop):
    """
    An asyncio loop that moves its time to the next due step instead of waiting; steps due together keep their order.

    A process is killed between two of its steps: nothing that it has scheduled runs after that, no `finally`, no
    answer that was under way. Threads are not used: a function for a thread runs at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0  # not 0, which is in no clock's past
        self.steps = 0
        self.on_death: Callable[[ProcessLifetime], None] = lambda lifetime: None
        self.failures: list[dict[str, Any]] = []
        self._steps_now: deque[_Step] = deque()
        self._steps_later: list[tuple[float, int, _Step]] = []
        self._scheduled_later = 0
        self._remains: set[asyncio.Task[Any]] = set()
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    get_debug = staticmethod(bool)  # False; each future reads it

    def time(self) -> float:
        """Return the virtual time."""
        return self.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> _Step:
        """Schedule a step of the process that the context belongs to."""
        if context is None:
            context = contextvars.copy_context()
        step = _Step(callback, args, context, context.get(LIFETIME))
        if step.lifetime is None or not step.lifetime.is_dead:
            self._steps_now.append(step)
        return step

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> _Step:
        """Schedule a step after so many virtual seconds."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> _Step:
        """Schedule a later step of the process that the context belongs to."""
        if context is None:
            context = contextvars.copy_context()
        step = _Step(callback, args, context, context.get(LIFETIME))
        if step.lifetime is None or not step.lifetime.is_dead:
            self._scheduled_later += 1
            heappush(self._steps_later, (when, self._scheduled_later, step))
        return step

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> _Step:
        """Schedule like `call_soon`: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run the function at once, and set its result in the next iteration."""
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001  handed to the waiter
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def kill(self, lifetime: ProcessLifetime) -> None:
        """End a process at once."""
        if not lifetime.is_dead:
            lifetime.is_dead = True
            # Discarding a task would run its `finally` blocks, which a kill does not.
            self._remains |= asyncio.all_tasks(self)
            self.on_death(lifetime)

    def close_and_discard(self) -> None:
        """Close the loop, and discard the tasks that killed processes have left, in any state."""
        self.call_soon = self.call_later = self.call_at = _refuse_to_schedule  # type: ignore[assignment]
        self._remains |= asyncio.all_tasks(self)
        self.close()
        for task in self._remains:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _discard(task.get_coro())

    def _run_once(self) -> None:
        """Run one iteration: the steps that are due, after moving the time to the next one if none is."""
        now, later = self._steps_now, self._steps_later
        while later and later[0][2].is_cancelled:
            heappop(later)
        if not now and not self._stopping:  # type: ignore[attr-defined]
            if not later:
                raise Deadlock("nothing is scheduled any more")
            self.now_s += max(0, later[0][0] - self.now_s)
        due_s = self.now_s + _RESOLUTION_S
        while later and later[0][0] < due_s:
            now.append(heappop(later)[2])
        for _ in range(len(now)):
            step = now.popleft()
            if not step.is_cancelled:
                self._run(step)

    def _run(self, step: _Step) -> None:
        lifetime, context = step.lifetime, step.context
        if lifetime is not None:
            if lifetime.is_dead:
                return
            self.steps += 1
            if lifetime.kill_in is not None:
                lifetime.kill_in -= 1
                if lifetime.kill_in < 0:
                    context.run(self.kill, lifetime)
                    return
        try:
            context.run(step.callback, *step.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  as asyncio does
            self.call_exception_handler({"message": f"exception in {step.callback}", "exception": error})


def _discard(coroutine: Any) -> None:
    """Close a coroutine after the one it awaits; its `finally` blocks run without an effect on other tasks."""
    if not inspect.iscoroutine(coroutine):
        return
    _discard(coroutine.cr_await)
    for _ in range(_MAX_NESTED_FINALLY):
        with contextlib.suppress(BaseException):
            coroutine.close()
            break


def _refuse_to_schedule(*_: Any, **__: Any) -> asyncio.Handle:
    raise RuntimeError("the simulated world is over")


class VirtualClock(SystemClock):
    """The clock of a loop: waits follow the loop's time; the wall clock belongs to the process and can be set."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.ahead_ns = 0

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.now_s

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970 by this machine's clock, which may be wrong."""
        return EPOCH_NS + int(self._loop.now_s * 1e9) + self.ahead_ns
