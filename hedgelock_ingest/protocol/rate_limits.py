"""Limits of Bybit: rate of REST requests, and number of new connections."""

from collections import deque
from typing import NamedTuple

MAX_WAIT_S = 60.0
"""Longest wait that is accepted from a reset header."""

PUBLIC_REQUESTS_PER_SECOND = 50.0
"""Below half of what Bybit accepts from one address: 600 requests in 5 seconds. Source: V5, Rate Limit Rules."""

_MARGIN = 1.1
"""Safety factor: request latency varies, and Bybit counts seconds by its own clock."""


class LimitHeaders(NamedTuple):
    """
    Limit of an endpoint in the headers of an answer; None where a header is absent.

    Source: Bybit V5, Rate Limit Rules, `X-Bapi-Limit-Status` and `X-Bapi-Limit-Reset-Timestamp`.
    """

    left: int | None = None
    reset_ms: int | None = None

    def wait_s(self, now_ms: int, default_s: float) -> float:
        """Return the seconds until the limit is lifted, between 0.05 and `MAX_WAIT_S` whatever the header states."""
        if self.reset_ms is None:
            return default_s
        return min(max((self.reset_ms - now_ms) / 1000, 0.05), MAX_WAIT_S)


class RateLimit:
    """
    States when the next request may be sent; `now_s` is a monotonic clock.

    In any second at most `per_second` requests are sent; below one a second they are spaced evenly.
    """

    def __init__(self, per_second: float) -> None:
        count = max(1, int(per_second))
        self._window_s = _MARGIN * count / per_second
        self._sent_s: deque[float] = deque(maxlen=count)
        self._held_until_s: dict[str, float] = {}

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next request may be sent, to any endpoint."""
        is_full = len(self._sent_s) == self._sent_s.maxlen
        return max(0.0, self._sent_s[0] + self._window_s - now_s) if is_full else 0.0

    def held_s(self, endpoint: str, now_s: float) -> float:
        """Return the seconds for which no request may be sent to an endpoint."""
        return max(0.0, self._held_until_s.get(endpoint, now_s) - now_s)

    def sent(self, now_s: float) -> None:
        """Note that a request is sent now."""
        self._sent_s.append(now_s)

    def hold(self, endpoint: str, until_s: float) -> None:
        """Send no request to an endpoint before `until_s`."""
        self._held_until_s[endpoint] = max(until_s, self._held_until_s.get(endpoint, until_s))


class ConnectionBudget:
    """
    Allows at most `limit` new connections in any window of `window_s` seconds.

    Bybit bans an address that opens more than 500 in 5 minutes; the default leaves room for another program.

    Source: Bybit V5, Connect, "IP rate limit".
    """

    def __init__(self, *, limit: int = 400, window_s: float = 300.0) -> None:
        self._window_s = window_s
        self._openings: deque[float] = deque(maxlen=limit)
        self._limit = limit

    def reserve(self, now_s: float) -> float:
        """Reserve the next connection and return the seconds to wait for it, usually 0; it cannot be returned."""
        opens_s = now_s
        if len(self._openings) == self._limit:
            opens_s = max(now_s, self._openings[0] + self._window_s)
        self._openings.append(opens_s)
        return opens_s - now_s
