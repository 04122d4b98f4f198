"""Silence of lines whose pongs come: whether it is the market's, and when such a line is replaced."""

import enum
import math
from typing import Final

LONGEST_S: Final = 600.0
"""A line is replaced after this much silence even in a market that is quiet for hours: its subscription may be dead."""
FORGOTTEN_AFTER_S: Final = 60.0
"""After so long without any silence the market is lively again, and silence suspicious as at first."""


class Replaced(enum.Enum):
    """How the replacement of a silent line ended."""

    AS_SILENT = enum.auto()
    """The successor was as silent as its predecessor: the silence is the market's."""
    WAS_BEHIND = enum.auto()
    """Another connection has brought what the silent one lacks."""
    FAILED = enum.auto()
    """No successor could be opened, or the silent one was lost meanwhile."""


class Silence:
    """
    Allowed silence of the lines that carry the same channels, and whose turn it is to be replaced.

    It starts at `shortest_s` and doubles, up to `LONGEST_S`, with each successor that was as silent as its predecessor.
    A line that lacks what another one has brought is replaced after `shortest_s` in any case. Only one of the lines is
    replaced at a time. `now_s` is any monotonic clock in seconds.
    """

    def __init__(self, shortest_s: float) -> None:
        """Start with the shortest silence allowed."""
        self.shortest_s = shortest_s
        self._allowed_s = shortest_s
        self._silent_at_s = -math.inf
        self._quiet_until_s = self._retry_at_s = -math.inf
        self._is_replacing = False

    def is_due(self, silent_s: float, now_s: float, *, is_behind: bool) -> bool:
        """Return whether a line that has been silent for so long is to be replaced now."""
        if silent_s < self.shortest_s:
            return False
        if not is_behind:
            if now_s - self._silent_at_s > FORGOTTEN_AFTER_S:
                self._allowed_s = self.shortest_s
            self._silent_at_s = now_s
            if silent_s < self._allowed_s or now_s < self._quiet_until_s:
                return False
        return not self._is_replacing and now_s >= self._retry_at_s

    def begin(self) -> None:
        """Note that a line is being replaced; `end` must follow."""
        self._is_replacing = True

    def end(self, replaced: Replaced, now_s: float) -> None:
        """Note how the replacement ended."""
        self._is_replacing = False
        match replaced:
            case Replaced.AS_SILENT:
                self._allowed_s = min(2 * self._allowed_s, max(LONGEST_S, self.shortest_s))
                self._quiet_until_s = now_s + self._allowed_s
            case Replaced.WAS_BEHIND:
                self._allowed_s = self.shortest_s
            case Replaced.FAILED:
                self._retry_at_s = now_s + self.shortest_s
