"""Frames that were just journalled, kept in memory for publishing as long as publishing keeps up."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from hedgelock_ingest.pipeline.receiver import Arrival

LIMIT_BYTES = 96 * 1024 * 1024
_OBJECTS_BYTES = 1_536  # what a frame and its decoded message take beside the frame's own bytes


class Group(NamedTuple):
    """Frames to be published together, in order, with their positions."""

    positions: Sequence[int]
    arrivals: list[Arrival]


class _Chunk(NamedTuple):
    """Frames that were put together, and about how many bytes they take."""

    arrivals: Sequence[Arrival]
    size: int


class Outbox:
    """
    A bounded queue that may be empty-handed: when it is full it forgets everything, and the journal has it.

    `begins_at` is the position from which on it holds every frame; None when it holds none until `attach`.
    """

    def __init__(self) -> None:
        self.begins_at: int | None = None
        self._queue: deque[_Chunk] = deque()
        self._bytes = 0
        self._next = 0

    def attach(self, next_position: int) -> None:
        """Begin to keep frames, from `next_position` on; those before it are in the journal."""
        self.detach()
        self.begins_at = self._next = next_position

    def detach(self) -> None:
        """Forget everything and keep nothing."""
        self.begins_at = None
        self._queue.clear()
        self._bytes = 0

    def put(self, first_position: int, arrivals: Sequence[Arrival], raw_bytes: int) -> None:
        """Keep frames that have just been journalled, right after those before; they have `raw_bytes` together."""
        if self.begins_at is None:
            return
        new = arrivals[max(self._next - first_position, 0) :]
        self._next = max(self._next, first_position + len(arrivals))
        if new:
            size = (raw_bytes + _OBJECTS_BYTES * len(arrivals)) * len(new) // len(arrivals)
            self._queue.append(_Chunk(new, size))
            self._bytes += size
        if self._bytes > LIMIT_BYTES:
            self.detach()

    def take(self, after: int, limit: int) -> Group | None:
        """
        Give up to `limit` frames that follow position `after`, and forget them; None when the next one is not here.

        What was taken once has to come from the journal when it is asked for again.
        """
        if self.begins_at is None or after + 1 < self.begins_at:
            return None
        self._forget_through(after)
        first, taken = self.begins_at, list[Arrival]()
        while self._queue and len(taken) < limit:
            taken += self._pop(limit - len(taken))
        return Group(range(first, self.begins_at), taken) if taken else None

    def _forget_through(self, position: int) -> None:
        while self._queue and self.begins_at is not None and self.begins_at <= position:
            self._pop(position + 1 - self.begins_at)

    def _pop(self, limit: int) -> Sequence[Arrival]:
        """Take up to `limit` frames of those that were put together."""
        assert self.begins_at is not None
        arrivals, size = self._queue.popleft()
        if len(arrivals) > limit:
            left = size * (len(arrivals) - limit) // len(arrivals)
            self._queue.appendleft(_Chunk(arrivals[limit:], left))
            arrivals, size = arrivals[:limit], size - left
        self.begins_at += len(arrivals)
        self._bytes -= size
        return arrivals
