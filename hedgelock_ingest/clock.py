"""The one clock: who waits, times out, paces or stamps is given it, so that a simulation can give another one."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Time as this process sees it. Waiting is asyncio's own, so that it follows the event loop's time."""

    def monotonic(self) -> float:
        """Give seconds that never go back; only differences mean anything."""
        ...

    def wall_ns(self) -> int:
        """Give nanoseconds since 1970, which may jump when somebody sets the machine's clock."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait for so many seconds; for one turn of the event loop where that is 0 or less."""
        ...

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        """End a block with `TimeoutError` after so many seconds; never where that is None."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Give seconds that never go back; only differences mean anything."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Give nanoseconds since 1970."""
        return time.time_ns()

    async def sleep(self, delay_s: float) -> None:
        """Wait for so many seconds; for one turn of the event loop where that is 0 or less."""
        await asyncio.sleep(delay_s)

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        """End a block with `TimeoutError` after so many seconds; never where that is None."""
        return asyncio.timeout(delay_s)


def wall_ms(clock: Clock) -> int:
    """Give milliseconds since 1970."""
    return clock.wall_ns() // 1_000_000
