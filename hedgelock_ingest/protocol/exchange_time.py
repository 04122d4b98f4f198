"""Bybit's time by the frames: a frame with a wrong time is recognised by the frames before it."""

import msgspec

TOLERANCE_MS = 5_000
"""How far a frame's time may deviate from the others': longer than any lag of a line, or a correction of our clock."""
FORWARD_MS = 1_000
"""How far it may be ahead where a time that is too late does harm, and how far it deviates without a reason."""
STRANGERS = 5
"""After so many frames in a row that deviate alike, our clock was set, or the lines have a longer lag."""


class ExchangeTime(msgspec.Struct):
    """
    By how much Bybit's time is ahead of a clock of ours, and how many frames in a row have deviated from that alike.

    `ahead_ms` is None before the first frame; `other_ms` is the same of the last frame that deviated.
    """

    ahead_ms: int | None = None
    strangers: int = 0
    other_ms: int = 0

    def plausible_ms(self, exchange_ms: int, our_ms: int, *, forward_ms: int = TOLERANCE_MS) -> int:
        """
        Note the time of a frame, and return it, or Bybit's time by our clock if it is wrong.

        Args:
            exchange_ms: The frame's time.
            our_ms: When it was read.
            forward_ms: How far it may be ahead of the others'.
        """
        ahead_ms, known_ms = exchange_ms - our_ms, self.ahead_ms
        if known_ms is not None and not -FORWARD_MS <= ahead_ms - known_ms <= FORWARD_MS:
            is_alike = abs(ahead_ms - self.other_ms) <= FORWARD_MS
            self.strangers, self.other_ms = self.strangers + 1 if is_alike else 1, ahead_ms
            if self.strangers < STRANGERS:
                return exchange_ms if -TOLERANCE_MS <= ahead_ms - known_ms <= forward_ms else our_ms + known_ms
        self.ahead_ms, self.strangers = ahead_ms, 0
        return exchange_ms
