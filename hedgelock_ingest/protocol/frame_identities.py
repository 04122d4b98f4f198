"""Identities of the frames accepted last, by which copies are recognised."""

from collections.abc import Collection, Hashable
from typing import Final

MAX_GENERATION_IDENTITIES: Final = 20_000
"""Size at which a generation of identities is full: at least so many are remembered, at most twice as many."""
MIN_GENERATION_IDENTITIES: Final = 500
"""A generation with fewer identities is kept, whatever its age."""
KNOWN_FOR_MS: Final = 5_000
"""Minimum time that identities are remembered while they are fewer: longer than any lag between two lines."""


class FrameIdentities:
    """
    Remembers identities in two generations; the older one is dropped as one.

    Dropping them one by one would cost more than the rest of a frame's acceptance: they have left the processor's
    cache by then. Identities of frames up to `horizon_ms`, by Bybit's clock, may have been dropped. One frame with a
    wrong time does not end a generation.
    """

    __slots__ = ("_count_after", "_latest_ms", "_new", "_new_began_ms", "_old", "_old_latest_ms", "horizon_ms")

    def __init__(self) -> None:
        """Start without identities."""
        self.horizon_ms = 0
        self._old: set[Hashable] = set()
        self._new: set[Hashable] = set()
        self._old_latest_ms = self._latest_ms = self._new_began_ms = self._count_after = 0

    def has_none_of(self, identities: Collection[Hashable]) -> bool:
        """Return whether all of these are new."""
        return self._new.isdisjoint(identities) and self._old.isdisjoint(identities)

    def has_all_of(self, identities: Collection[Hashable]) -> bool:
        """Return whether none of these is new."""
        return all(identity in self._new or identity in self._old for identity in identities)

    def add(self, identities: Collection[Hashable], at_ms: int) -> None:
        """Remember the identities of a frame with Bybit's time `at_ms`; this is the hot path."""
        new = self._new
        if not -KNOWN_FOR_MS <= at_ms - self._new_began_ms < KNOWN_FOR_MS or len(new) >= MAX_GENERATION_IDENTITIES:
            self._begin_generation(len(identities), at_ms)
            new = self._new
        new.update(identities)
        if at_ms > self._latest_ms:
            self._latest_ms = at_ms

    def _begin_generation(self, count: int, at_ms: int) -> None:
        if len(self._new) < MIN_GENERATION_IDENTITIES:
            return
        is_second = len(self._new) == self._count_after
        self._count_after = len(self._new) + count
        if not is_second and len(self._new) < MAX_GENERATION_IDENTITIES:
            return  # only of the second frame in a row is the time believed
        # The horizon stays well before the present frame, unless very many came since, and before it in any case: a
        # frame with a time in the future must not turn all that follow into copies.
        highest_ms = min(max(self._new_began_ms, at_ms - KNOWN_FOR_MS // 2), at_ms - 1)
        self.horizon_ms = max(self.horizon_ms, min(self._old_latest_ms, highest_ms))
        self._old, self._old_latest_ms = self._new, self._latest_ms
        self._new, self._latest_ms, self._new_began_ms = set(), 0, at_ms
