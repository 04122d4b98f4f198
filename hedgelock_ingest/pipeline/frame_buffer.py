"""Frame buffer: journalled frames kept in memory for publishing while publishing keeps up."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from hedgelock_ingest.pipeline.arrivals import Arrivals

LIMIT_BYTES = 96 * 1024 * 1024
_OBJECTS_BYTES = 1_536  # memory of a frame and its decoded message besides the frame's raw bytes


class Group(NamedTuple):
    """Frames to publish together, in order, with their positions."""

    positions: Sequence[int]
    arrivals: Arrivals


class FrameBuffer:
    """
    Bounded queue of journalled frames; when it is full it drops all of them, and they are read from the journal.

    `begins_at` is the position from which on it holds every frame; None while it is detached and holds none.
    """

    def __init__(self) -> None:
        self.begins_at: int | None = None
        self._queue: deque[Arrivals] = deque()
        self._bytes = 0
        self._next = 0

    def attach(self, next_position: int) -> None:
        """Start to keep frames, from `next_position` on; earlier ones are in the journal."""
        self.detach()
        self.begins_at = self._next = next_position

    def detach(self) -> None:
        """Drop all frames and keep none."""
        self.begins_at = None
        self._queue.clear()
        self._bytes = 0

    def put(self, first_position: int, arrivals: Arrivals) -> None:
        """
        Keep frames that were just journalled, without a gap to those before; the buffer then owns `arrivals`.

        Where positions jump, as after a journal has lost its watermark, the frames must be read from the journal.
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
        Remove and return the frames that follow position `after`; None when the next one is not in the buffer.

        Frames come in the groups in which they were put, up to `limit` frames but at least one group. Frames that were
        taken once must be read from the journal when they are needed again.
        """
        if self.begins_at is None or after + 1 < self.begins_at:
            return None
        self._drop_through(after)
        if not self._queue:
            return None
        first, taken = self.begins_at, self._pop()
        while self._queue and len(taken) + len(self._queue[0]) <= limit:
            taken.extend(self._pop())
        return Group(range(first, self.begins_at), taken)

    def _drop_through(self, position: int) -> None:
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
    """Estimate the bytes of memory that the frames use."""
    return arrivals.raw_bytes + _OBJECTS_BYTES * len(arrivals)
