"""When the next REST request may leave: our own rate, and what Bybit's headers say of each endpoint."""

from collections import deque
from typing import NamedTuple

LONGEST_HOLD_S = 60.0

_MARGIN = 1.1
"""Requests do not take equally long to Bybit, whose count of a second is its own."""


class LimitHeaders(NamedTuple):
    """
    What an answer says of the limit of its endpoint; None where it says nothing.

    Source: Bybit V5, Rate Limit Rules, `X-Bapi-Limit-Status` and `X-Bapi-Limit-Reset-Timestamp`.
    """

    left: int | None = None
    reset_ms: int | None = None

    def wait_s(self, now_ms: int, default_s: float) -> float:
        """Give the seconds until the limit is lifted; a moment in the past or far away is not believed."""
        if self.reset_ms is None:
            return default_s
        return min(max((self.reset_ms - now_ms) / 1000, 0.05), LONGEST_HOLD_S)


class RateLimit:
    """
    Hands out the moments at which requests may leave; `now_s` is a monotonic clock.

    In any second at most `per_second` requests leave; below one a second they are spaced evenly.
    """

    def __init__(self, per_second: float) -> None:
        count = max(1, int(per_second))
        self._window_s = _MARGIN * count / per_second
        self._given: deque[float] = deque(maxlen=count)
        self._held_until_s: dict[str, float] = {}

    def reserve(self, endpoint: str, now_s: float) -> float:
        """Take a moment for a request; give the seconds until then."""
        is_full = len(self._given) == self._given.maxlen
        free_s = self._given[0] + self._window_s if is_full else now_s
        moment_s = max(
            now_s, free_s, self._held_until_s.get(endpoint, now_s), self._given[-1] if self._given else now_s
        )
        self._given.append(moment_s)
        return moment_s - now_s

    def hold(self, endpoint: str, until_s: float) -> None:
        """Let nothing leave for an endpoint before a moment."""
        self._held_until_s[endpoint] = max(until_s, self._held_until_s.get(endpoint, until_s))
