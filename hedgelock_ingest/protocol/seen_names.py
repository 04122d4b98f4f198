"""The names of what was accepted last, so that copies of it are known."""

from collections.abc import Collection, Hashable
from typing import Final

KNOWN_IDENTITIES: Final = 20_000
"""How many of the last names a channel remembers at least, however many come; at most twice as many."""
FEW_IDENTITIES: Final = 500
"""How many it remembers for as long as it lives."""
KNOWN_FOR_MS: Final = 5_000
"""How long at least it remembers fewer names: longer than any difference of delay between two lines."""


class Names:
    """
    Remembers names in two generations; the older one is forgotten as a whole.

    Names forgotten one by one cost more than all the rest of a frame's acceptance: by then they have left the
    processor's cache. Up to `horizon_ms`, by Bybit's clock, names are forgotten.
    """

    __slots__ = ("_latest_ms", "_new", "_new_began_ms", "_old", "_old_latest_ms", "horizon_ms")

    def __init__(self) -> None:
        """Know nothing."""
        self.horizon_ms = 0
        self._old: set[Hashable] = set()
        self._new: set[Hashable] = set()
        self._old_latest_ms = self._latest_ms = self._new_began_ms = 0

    def has_none_of(self, names: Collection[Hashable]) -> bool:
        """Tell whether all of these are new."""
        return self._new.isdisjoint(names) and self._old.isdisjoint(names)

    def has_all_of(self, names: Collection[Hashable]) -> bool:
        """Tell whether none of these is new."""
        return all(name in self._new or name in self._old for name in names)

    def add(self, names: Collection[Hashable], at_ms: int) -> None:
        """Remember the names of a frame that Bybit made `at_ms`; this is the hot path."""
        new = self._new
        if not -KNOWN_FOR_MS <= at_ms - self._new_began_ms < KNOWN_FOR_MS or len(new) >= KNOWN_IDENTITIES:
            self._begin_generation(at_ms)
            new = self._new
        new.update(names)
        if at_ms > self._latest_ms:
            self._latest_ms = at_ms

    def _begin_generation(self, at_ms: int) -> None:
        if len(self._new) < FEW_IDENTITIES:
            return
        # Well before the present frame, unless very many have come since, and before it in any case: a frame from the
        # future must not make copies of all that follow.
        highest_ms = min(max(self._new_began_ms, at_ms - KNOWN_FOR_MS // 2), at_ms - 1)
        self.horizon_ms = max(self.horizon_ms, min(self._old_latest_ms, highest_ms))
        self._old, self._old_latest_ms = self._new, self._latest_ms
        self._new, self._latest_ms, self._new_began_ms = set(), 0, at_ms
