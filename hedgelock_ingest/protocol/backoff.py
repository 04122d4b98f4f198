"""How long to wait before the next attempt."""

from random import Random


class Backoff:
    """
    Exponential backoff with full jitter: each delay lies anywhere between nothing and a ceiling that doubles.

    Full jitter keeps lines that were lost together from coming back together.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
    """

    def __init__(self, *, initial_s: float, maximum_s: float, random: Random) -> None:
        self._initial_s = initial_s
        self._maximum_s = maximum_s
        self._random = random
        self.attempts = 0

    def next_delay(self) -> float:
        """Count an attempt and give the seconds to wait before it."""
        # 2.0**64 seconds is for ever; the bound keeps the power from overflowing after weeks of attempts.
        ceiling_s = min(self._maximum_s, self._initial_s * 2.0 ** min(self.attempts, 64))
        self.attempts += 1
        return self._random.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """Begin again with the shortest delay."""
        self.attempts = 0
