"""The exchange's own order book, and the view of it that the readers of one depth hold."""

from bisect import bisect_left, bisect_right, insort
from random import Random

LEVELS_KEPT = 1_100
_SLACK = 50
_CHANGED_LEVELS = 200


class Side:
    """
    One side of a book, from integer price keys to lots.

    Keys ascend from the best level outward: an ask's key is its price in ticks, a bid's the negated price. So
    both sides are handled alike.
    """

    __slots__ = ("_change_sets", "keys", "sizes")

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.sizes: dict[int, int] = {}
        self._change_sets: list[set[int]] = []

    def record_changes_in(self, changed: set[int]) -> None:
        """Add the key of each later change to `changed`."""
        self._change_sets.append(changed)

    def put(self, key: int, lots: int) -> None:
        """Set one level; 0 lots removes it."""
        if lots == 0:
            if self.sizes.pop(key, 0) == 0:
                return
            del self.keys[bisect_left(self.keys, key)]
        else:
            if key not in self.sizes:
                insort(self.keys, key)
            self.sizes[key] = lots
        for changed in self._change_sets:
            changed.add(key)

    def shift(self, distance: int) -> None:
        """Move every level by `distance` keys."""
        for changed in self._change_sets:
            changed.update(self.keys)
        self.keys = [key + distance for key in self.keys]
        self.sizes = {key + distance: lots for key, lots in self.sizes.items()}
        for changed in self._change_sets:
            changed.update(self.keys)


class Book:
    """Both sides of one instrument; never crossed, and always at least 1,000 levels deep."""

    def __init__(self, best_bid: int, *, gap: int, usual_lots: int, random: Random) -> None:
        self.bids = Side()
        self.asks = Side()
        self._gap = gap
        self._usual_lots = usual_lots
        self._random = random
        self._extend(self.bids, -best_bid)
        self._extend(self.asks, best_bid + self._distance())

    @property
    def best_bid(self) -> int:
        """The highest price bid, in ticks."""
        return -self.bids.keys[0]

    @property
    def best_ask(self) -> int:
        """The lowest price asked, in ticks."""
        return self.asks.keys[0]

    def change_a_level(self) -> None:
        """Change the size of a level, remove one or add one, mostly near the top."""
        chance = self._random.random
        side = self.bids if chance() < 0.5 else self.asks
        if self.best_ask - self.best_bid > 4 * self._gap:
            side.put(side.keys[0] - self._distance(), self._lots())
            return
        key = side.keys[min(int(self._random.expovariate(0.125)), _CHANGED_LEVELS - 1)]
        what = chance()
        if what < 0.6:
            self._change_size(side, key)
        elif what < 0.8:
            side.put(key, 0)
        else:
            side.put(key + self._distance(), self._lots())
        self._keep_depth(side)

    def change_the_top(self) -> None:
        """Change the size of one of the two best levels."""
        side = self.bids if self._random.random() < 0.5 else self.asks
        self._change_size(side, side.keys[0])

    def lift(self) -> None:
        """Move the price up: the best asks give way to a new best bid."""
        self._yield_side(self.asks, self.bids)

    def lower(self) -> None:
        """Move the price down: the best bids give way to a new best ask."""
        self._yield_side(self.bids, self.asks)

    def take(self, side: Side, lots: int) -> None:
        """Take `lots` from the best level of `side`, at most all of it."""
        key = side.keys[0]
        side.put(key, max(side.sizes[key] - lots, 0))
        self._keep_depth(side)

    def shift(self, ticks: int) -> None:
        """Move the whole book, such as after a jump of the price."""
        self.bids.shift(-ticks)
        self.asks.shift(ticks)

    def _yield_side(self, yielding: Side, following: Side) -> None:
        price = yielding.keys[0]
        yielding.put(price, 0)
        following.put(-price, self._lots())
        self._keep_depth(yielding)
        self._keep_depth(following)

    def _keep_depth(self, side: Side) -> None:
        if len(side.keys) < LEVELS_KEPT - _SLACK:
            self._extend(side, side.keys[-1] + self._distance())
        elif len(side.keys) > LEVELS_KEPT + _SLACK:
            for key in side.keys[LEVELS_KEPT:]:
                side.put(key, 0)

    def _extend(self, side: Side, key: int) -> None:
        while len(side.keys) < LEVELS_KEPT:
            side.put(key, self._lots())
            key += self._distance()

    def _change_size(self, side: Side, key: int) -> None:
        lots = self._lots()
        side.put(key, lots if lots != side.sizes[key] else lots + 1)

    def _distance(self) -> int:
        return 1 + int(self._random.random() * (2 * self._gap - 1))

    def _lots(self) -> int:
        return 1 + int(self._random.expovariate(1.0) * self._usual_lots)


class BookView:
    """
    The best `depth` levels of a book as its readers hold them.

    `changes` returns what turns their copy into the current book, and from then on counts it as known.
    """

    def __init__(self, book: Book, depth: int) -> None:
        self.bids = SideView(book.bids, depth)
        self.asks = SideView(book.asks, depth)

    def changes(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return changed (price in ticks, lots) of bids, descending, and of asks, ascending; 0 lots: removed."""
        bids = [(-key, lots) for key, lots in self.bids.changes()]
        return bids, self.asks.changes()

    def levels(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the known (price in ticks, lots) of bids, descending, and of asks, ascending."""
        bids = [(-key, self.bids.known[key]) for key in sorted(self.bids.known)]
        return bids, [(key, self.asks.known[key]) for key in sorted(self.asks.known)]


class SideView:
    """One side of a `BookView`; `known` are the levels that the readers hold, by key."""

    def __init__(self, side: Side, depth: int) -> None:
        self._side = side
        self._depth = depth
        self._boundary = side.keys[depth - 1]
        self._changed: set[int] = set()
        self.known = {key: side.sizes[key] for key in side.keys[:depth]}
        side.record_changes_in(self._changed)

    def changes(self) -> list[tuple[int, int]]:
        """Return changed (key, lots), ascending, and count them as known."""
        keys, sizes, known = self._side.keys, self._side.sizes, self.known
        boundary = keys[self._depth - 1]
        changed = self._changed
        if boundary != self._boundary:
            low, high = min(boundary, self._boundary), max(boundary, self._boundary)
            changed.update(keys[bisect_right(keys, low) : bisect_right(keys, high)])
            self._boundary = boundary
        found: list[tuple[int, int]] = []
        for key in sorted(changed):
            lots = sizes.get(key, 0) if key <= boundary else 0
            if lots == known.get(key, 0):
                continue
            if lots:
                known[key] = lots
            else:
                del known[key]
            found.append((key, lots))
        changed.clear()
        return found
