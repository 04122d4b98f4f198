"""Clock interface: all waits, timeouts and timestamps use it, so that a simulation can replace it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Time as this process sees it. Waits are asyncio's, so they follow the event loop's time."""

    def monotonic(self) -> float:
        """Return monotonic seconds; only differences are meaningful."""
        ...

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970, which may jump when the machine's clock is set."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds; for one turn of the event loop if it is 0 or less."""
        ...

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        """End a block with `TimeoutError` after `delay_s` seconds; never if it is None."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Return monotonic seconds; only differences are meaningful."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns()

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds; for one turn of the event loop if it is 0 or less."""
        await asyncio.sleep(delay_s)

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        """End a block with `TimeoutError` after `delay_s` seconds; never if it is None."""
        return asyncio.timeout(delay_s)


def wall_ms(clock: Clock) -> int:
    """Return milliseconds since 1970."""
    return clock.wall_ns() // 1_000_000
