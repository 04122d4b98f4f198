"""The seeded price path that all categories of a symbol follow."""

from random import Random


class PricePath:
    """
    A geometric random walk, one for each symbol, so that spot and linear stay near each other.

    It moves by steps, never by the clock: the same seed and the same number of steps give the same price.
    """

    def __init__(self, start: float, *, volatility: float, random: Random) -> None:
        self.price = start
        self._floor = start * 0.2
        self._ceiling = start * 50
        self._step = volatility
        self._random = random

    def advance(self, steps: int = 1) -> float:
        """Make some steps and return the price."""
        move = self._random.gauss(0.0, self._step * steps**0.5)
        self.price = min(max(self.price * (1.0 + move), self._floor), self._ceiling)
        return self.price

    def jump_to(self, price: float) -> None:
        """Continue from another price; the books follow with their next change."""
        self.price = min(max(price, self._floor), self._ceiling)
