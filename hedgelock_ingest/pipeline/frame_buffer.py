"""Frames that were just journalled, kept in memory for publishing as long as publishing keeps up."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from hedgelock_ingest.pipeline.arrivals import Arrivals

LIMIT_BYTES = 96 * 1024 * 1024
_OBJECTS_BYTES = 1_536  # what a frame and its decoded message take beside the frame's own bytes


class Group(NamedTuple):
    """Frames to be published together, in order, with their positions."""

    positions: Sequence[int]
    arrivals: Arrivals


class Outbox:
    """
    A bounded queue that may be empty-handed: when it is full it forgets everything, and the journal has it.

    `begins_at` is the position from which on it holds every frame; None when it holds none until `attach`.
    """

    def __init__(self) -> None:
        self.begins_at: int | None = None
        self._queue: deque[Arrivals] = deque()
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

    def put(self, first_position: int, arrivals: Arrivals) -> None:
        """
        Keep frames that have just been journalled, those before them too; they are the outbox's own then.

        Where positions jump, as they do for a journal that has lost its mark, the journal has to tell.
        """
        if self.begins_at is None:
            return
        if self._next < first_position:
            self.detach()
            return
        if self._next > first_position:
            arrivals.take(self._next - first_position)
        if arrivals:
            self._next += len(arrivals)
            self._queue.append(arrivals)
            self._bytes += _size(arrivals)
        if self._bytes > LIMIT_BYTES:
            self.detach()

    def take(self, after: int, limit: int) -> Group | None:
        """
        Give the frames that follow position `after`, and forget them; None when the next one is not here.

        They are given as they were put, up to `limit` of them but at least those that were put together. What was
        taken once has to come from the journal when it is asked for again.
        """
        if self.begins_at is None or after + 1 < self.begins_at:
            return None
        self._forget_through(after)
        if not self._queue:
            return None
        first, taken = self.begins_at, self._pop()
        while self._queue and len(taken) + len(self._queue[0]) <= limit:
            taken.extend(self._pop())
        return Group(range(first, self.begins_at), taken)

    def _forget_through(self, position: int) -> None:
        assert self.begins_at is not None
        while self._queue and self.begins_at + len(self._queue[0]) - 1 <= position:
            self._pop()
        if self._queue and self.begins_at <= position:
            old = self._queue[0].take(position + 1 - self.begins_at)
            self.begins_at += len(old)
            self._bytes -= _size(old)

    def _pop(self) -> Arrivals:
        assert self.begins_at is not None
        arrivals = self._queue.popleft()
        self.begins_at += len(arrivals)
        self._bytes -= _size(arrivals)
        return arrivals


def _size(arrivals: Arrivals) -> int:
    """Tell about how many bytes of memory they take."""
    return arrivals.raw_bytes + _OBJECTS_BYTES * len(arrivals)
