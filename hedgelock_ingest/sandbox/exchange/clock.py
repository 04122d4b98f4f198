"""The exchange's clock, which can be shifted on purpose."""

import time


class ExchangeClock:
    """Wall clock time, `offset_s` ahead of the machine's."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        return self.now_ns() // 1_000_000

    def now_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns() + int(self.offset_s * 1e9)
