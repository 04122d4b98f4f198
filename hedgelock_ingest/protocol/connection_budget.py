"""Limit on new connections, shared by all lines to one host."""

from collections import deque


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

    def reserve(self, now: float) -> float:
        """Reserve the next connection and return the seconds to wait for it, usually 0; it cannot be returned."""
        opens_at = now
        if len(self._openings) == self._limit:
            opens_at = max(now, self._openings[0] + self._window_s)
        self._openings.append(opens_at)
        return opens_at - now
