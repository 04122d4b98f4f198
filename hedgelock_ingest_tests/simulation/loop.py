"""An event loop whose time is a number: waiting costs nothing, and the same program takes the same steps again."""

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
"""What is due so soon is due now."""
_MOST_FINALLY = 10
"""How many blocks of `finally` that wait may lie around one another in what is thrown away."""


class Deadlock(Exception):
    """Everybody waits for somebody, and no time-out is due."""


class Life:
    """
    One process: what it has scheduled belongs to it, and dies with it.

    `kill_in` are the steps that it still takes until it is killed; None where nobody wants to.
    """

    def __init__(self, name: str, wall_ns: Callable[[], int]) -> None:
        self.name = name
        self.wall_ns = wall_ns
        self.is_dead = False
        self.kill_in: int | None = None


LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)
"""The process that a context belongs to; None for the world around them."""


class _Step:
    """Something scheduled: what asyncio calls a handle, as far as anyone uses one."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "life")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context, life: Life | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.life = life
        self.is_cancelled = False

    def cancel(self) -> None:
        """Take it back."""
        self.is_cancelled = True


class VirtualLoop(asyncio.BaseEventLoop):
    """
    asyncio's loop, which instead of waiting moves its time to what is due next; what is due at once keeps its order.

    A process is killed between two of its steps: nothing that it has scheduled is run any more, no `finally`, no
    answer that was under way. Threads are not used: what would run in one runs at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0  # not 0, which is in no clock's past
        self.steps = 0
        self.on_death: Callable[[Life], None] = lambda life: None
        self.failures: list[dict[str, Any]] = []
        self._steps_now: deque[_Step] = deque()
        self._steps_later: list[tuple[float, int, _Step]] = []
        self._scheduled_later = 0
        self._remains: set[asyncio.Task[Any]] = set()
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    get_debug = staticmethod(bool)  # False, which each future asks for

    def time(self) -> float:
        """Give the virtual time."""
        return self.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> _Step:
        """Schedule a step of the process that the context belongs to."""
        if context is None:
            context = contextvars.copy_context()
        step = _Step(callback, args, context, context.get(LIFE))
        if step.life is None or not step.life.is_dead:
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
        step = _Step(callback, args, context, context.get(LIFE))
        if step.life is None or not step.life.is_dead:
            self._scheduled_later += 1
            heappush(self._steps_later, (when, self._scheduled_later, step))
        return step

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> _Step:
        """Do the same: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run what would block, and answer in the next turn."""
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001  handed to the waiter
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def kill(self, life: Life) -> None:
        """End a process at once."""
        if not life.is_dead:
            life.is_dead = True
            # To throw a task away would run its `finally` blocks, which a kill does not.
            self._remains |= asyncio.all_tasks(self)
            self.on_death(life)

    def bury(self) -> None:
        """Throw away what the dead have left, in whatever state it is, and close the loop."""
        self.call_soon = self.call_later = self.call_at = _nothing_more  # type: ignore[assignment]
        self._remains |= asyncio.all_tasks(self)
        self.close()
        for task in self._remains:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _throw_away(task.get_coro())

    def _run_once(self) -> None:
        """Take one turn: run what is scheduled now, or move the time to the next that is scheduled later."""
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
        life, context = step.life, step.context
        if life is not None:
            if life.is_dead:
                return
            self.steps += 1
            if life.kill_in is not None:
                life.kill_in -= 1
                if life.kill_in < 0:
                    context.run(self.kill, life)
                    return
        try:
            context.run(step.callback, *step.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  as asyncio does
            self.call_exception_handler({"message": f"exception in {step.callback}", "exception": error})


def _throw_away(coroutine: Any) -> None:
    """Close a coroutine after what it awaits; its blocks of `finally` run, and reach nobody."""
    if not inspect.iscoroutine(coroutine):
        return
    _throw_away(coroutine.cr_await)
    for _ in range(_MOST_FINALLY):
        with contextlib.suppress(BaseException):
            coroutine.close()
            break


def _nothing_more(*_: Any, **__: Any) -> asyncio.Handle:
    raise RuntimeError("the simulated world is over")


class VirtualClock(SystemClock):
    """The time of a loop, which all waiting follows; the wall clock is the process's own, and jumps when it is set."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.ahead_ns = 0

    def monotonic(self) -> float:
        """Give the loop's time."""
        return self._loop.now_s

    def wall_ns(self) -> int:
        """Give nanoseconds since 1970, as far as this machine's clock is right."""
        return EPOCH_NS + int(self._loop.now_s * 1e9) + self.ahead_ns
