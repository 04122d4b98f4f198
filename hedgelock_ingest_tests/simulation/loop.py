"""An event loop whose time is a number: waiting costs nothing, and the same program takes the same steps again."""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from typing import Any

EPOCH_NS = 1_788_000_000 * 1_000_000_000
"""The wall clock at the loop's second 0."""


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


class VirtualLoop(asyncio.BaseEventLoop):
    """
    asyncio's own loop, which instead of waiting moves its time to what is due next.

    A process is killed between two of its steps: nothing that it has scheduled is run any more, no `finally`, no
    answer that was under way. Threads are not used: what would run in one runs at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0  # not 0, which is in no clock's past
        self.steps = 0
        self.on_death: Callable[[Life], None] = lambda life: None
        self.failures: list[dict[str, Any]] = []
        self._remains: set[asyncio.Task[Any]] = set()
        self._selector = self  # of a selector, only `select` is used
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        """Give the virtual time."""
        return self.now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Let the time pass until something is due."""
        if timeout is None:
            raise Deadlock("nothing is scheduled any more")
        self.now_s += timeout
        return []

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Schedule a step of the process that the context belongs to."""
        life = LIFE.get() if context is None else context.get(LIFE)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        if life.is_dead:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon(self._step, life, callback, args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a later step of the process that the context belongs to."""
        life = LIFE.get() if context is None else context.get(LIFE)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        if life.is_dead:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, self._step, life, callback, args, context=context)

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
        self.call_soon = self.call_at = _nothing_more  # type: ignore[assignment]
        for task in self._remains | asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            assert coroutine is not None
            with contextlib.suppress(BaseException):
                coroutine.close()
        self.close()

    def _step(self, life: Life, callback: Any, args: tuple[Any, ...]) -> None:
        if life.is_dead:
            return
        self.steps += 1
        if life.kill_in is not None:
            life.kill_in -= 1
            if life.kill_in < 0:
                self.kill(life)
                return
        callback(*args)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits in a system call."""


def _nothing_more(*_: Any, **__: Any) -> asyncio.Handle:
    raise RuntimeError("the simulated world is over")


class VirtualClock:
    """The time of a loop; the wall clock is the process's own, and jumps when its machine's is set."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.ahead_ns = 0

    def monotonic(self) -> float:
        """Give the loop's time."""
        return self._loop.now_s

    def wall_ns(self) -> int:
        """Give nanoseconds since 1970, as far as this machine's clock is right."""
        return EPOCH_NS + int(self._loop.now_s * 1e9) + self.ahead_ns

    async def sleep(self, delay_s: float) -> None:
        """Wait for so many virtual seconds."""
        await asyncio.sleep(delay_s)

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        """End a block with `TimeoutError` after so many virtual seconds."""
        return asyncio.timeout(delay_s)
