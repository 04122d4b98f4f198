"""How many connections may be opened, shared by all lines to one host."""

from collections import deque


class ConnectionBudget:
    """
    At most `limit` new connections in any window of `window_s` seconds.

    Bybit bans an address that opens more than 500 in 5 minutes; the default leaves room for another program.

    Source: Bybit V5, Connect, "IP rate limit".
    """

    def __init__(self, *, limit: int = 400, window_s: float = 300.0) -> None:
        self._window_s = window_s
        self._turns: deque[float] = deque(maxlen=limit)
        self._limit = limit

    def reserve(self, now: float) -> float:
        """Take the next free turn and give the seconds to wait for it, 0 as a rule; a turn is never given back."""
        turn = now
        if len(self._turns) == self._limit:
            turn = max(now, self._turns[0] + self._window_s)
        self._turns.append(turn)
        return turn - now
