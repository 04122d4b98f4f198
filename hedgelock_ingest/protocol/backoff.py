"""Exponential backoff with jitter."""

from random import Random


class Backoff:
    """
    Exponential backoff with full jitter: each delay is random between 0 and a ceiling that doubles.

    Full jitter keeps lines that were lost together from reconnecting together.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
    """

    def __init__(self, *, initial_s: float, maximum_s: float, random: Random) -> None:
        self._initial_s = initial_s
        self._maximum_s = maximum_s
        self._random = random
        self.attempts = 0

    def next_delay(self) -> float:
        """Count an attempt and return the seconds to wait before it."""
        # Exponents above 64 change nothing; the bound keeps the power from overflowing after weeks of attempts.
        ceiling_s = min(self._maximum_s, self._initial_s * 2.0 ** min(self.attempts, 64))
        self.attempts += 1
        return self._random.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self.attempts = 0
