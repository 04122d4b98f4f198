"""Bybit's time by the frames: a frame with a wrong time is recognised by the frames before it."""

import msgspec

TOLERANCE_MS = 5_000
"""How far a frame's time may deviate from the others': longer than any lag of a line, or a correction of our clock."""
USUAL_DEVIATION_MS = 1_000
"""How far frames deviate from each other without a reason."""
MAX_AHEAD_MS = 1_000
"""How far a frame's time may be ahead of the others' where a time that is too late does harm."""
DEVIATING_FRAMES = 5
"""After so many frames in a row that deviate alike, our clock was set, or the lines have a longer lag."""
FIRST_FRAMES = 2
"""So many are enough while no frame has confirmed the estimate, which may be our clock alone."""


class ExchangeTime(msgspec.Struct):
    """
    By how much Bybit's time is ahead of a clock of ours, and how many frames in a row have deviated from that alike.

    `ahead_ms` is an estimate until `is_confirmed` by a frame; `deviating_ahead_ms` is by how much the last frame that
    deviated was ahead.
    """

    ahead_ms: int = 0
    is_confirmed: bool = False
    deviating: int = 0
    deviating_ahead_ms: int = 0

    def plausible_ms(self, exchange_ms: int, our_ms: int, *, max_ahead_ms: int = TOLERANCE_MS) -> int:
        """
        Note the time of a frame, and return it, or Bybit's time by our clock if it is wrong.

        Args:
            exchange_ms: The frame's time.
            our_ms: When it was read.
            max_ahead_ms: How far it may be ahead of the others'.
        """
        ahead_ms, known_ms = exchange_ms - our_ms, self.ahead_ms
        if not -USUAL_DEVIATION_MS <= ahead_ms - known_ms <= USUAL_DEVIATION_MS:
            is_alike = abs(ahead_ms - self.deviating_ahead_ms) <= USUAL_DEVIATION_MS
            self.deviating, self.deviating_ahead_ms = self.deviating + 1 if is_alike else 1, ahead_ms
            if self.deviating < (DEVIATING_FRAMES if self.is_confirmed else FIRST_FRAMES):
                return exchange_ms if -TOLERANCE_MS <= ahead_ms - known_ms <= max_ahead_ms else our_ms + known_ms
        self.ahead_ms, self.is_confirmed, self.deviating = ahead_ms, True, 0
        return exchange_ms
