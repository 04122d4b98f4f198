"""Circuit breaker: decides when requests to another system are sent, by its answers and failures."""

from enum import StrEnum


class BreakerState(StrEnum):
    """Closed: requests are sent. Open: no requests. Half-open: being probed."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """
    Decides when to send the next request; the caller sends it. `now_s` is a monotonic clock.

    It starts half-open. A request without an answer for more than `stall_s` opens it too; the answer closes it.
    """

    def __init__(self, *, initial_delay_s: float = 0.2, maximum_delay_s: float = 3.0, stall_s: float = 3.0) -> None:
        self._stall_s = stall_s
        self.failures = 0
        self.openings = 0
        self.reason: str | None = "not connected yet"
        self._initial_delay_s = initial_delay_s
        self._maximum_delay_s = maximum_delay_s
        self._state = BreakerState.HALF_OPEN
        self._sent_s: float | None = None

    def state(self, now_s: float) -> BreakerState:
        """Return the current state."""
        if self._state is BreakerState.CLOSED and self._is_late(now_s):
            return BreakerState.OPEN
        return self._state

    def why(self, now_s: float) -> str | None:
        """Return the reason why it is not closed; None when it is closed."""
        if self._state is BreakerState.CLOSED and self._is_late(now_s) and self._sent_s is not None:
            return f"no answer for {now_s - self._sent_s:.0f} s"
        return self.reason

    def probing(self) -> None:
        """Note that a probe is under way."""
        self._state = BreakerState.HALF_OPEN

    def request_sent(self, now_s: float) -> None:
        """Note that a request is under way."""
        self._sent_s = now_s

    def reached(self) -> None:
        """Note that the system can be reached, which does not prove that it serves: a failure still waits longer."""
        self._sent_s = None
        self._state, self.reason = BreakerState.CLOSED, None

    def succeeded(self) -> None:
        """Note an answer."""
        self.reached()
        self.failures = 0

    def failed(self, reason: str) -> float:
        """Note a failure; return the seconds until the next probe."""
        self._sent_s = None
        if self.failures == 0:
            self.openings += 1
        self.failures += 1
        self._state, self.reason = BreakerState.OPEN, reason
        return min(self._initial_delay_s * 2.0 ** min(self.failures - 1, 30), self._maximum_delay_s)

    def _is_late(self, now_s: float) -> bool:
        return self._sent_s is not None and now_s - self._sent_s > self._stall_s
