"""Frames that were just journalled, kept in memory for publishing as long as publishing keeps up."""

from collections import deque
from collections.abc import Sequence

import msgspec

from hedgelock_ingest.pipeline.receiver import Arrival
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.wire import DataMessage

LIMIT_BYTES = 96 * 1024 * 1024
_OBJECTS_BYTES = 1_536  # what a frame and its decoded message take beside the frame's own bytes


class Journalled(msgspec.Struct, frozen=True, gc=False):
    """A frame with its position, and its message when it is known."""

    position: int
    frame: Frame
    message: DataMessage | None


class Outbox:
    """
    A bounded queue that may be empty-handed: when it is full it forgets everything, and the journal has it.

    `begins_at` is the position from which on it holds every frame; None when it holds none until `attach`.
    """

    def __init__(self) -> None:
        self.begins_at: int | None = None
        self._queue: deque[Journalled] = deque()
        self._bytes = 0

    def attach(self, next_position: int) -> None:
        """Begin to keep frames, from `next_position` on, which is the next one to be journalled."""
        self.detach()
        self.begins_at = next_position

    def detach(self) -> None:
        """Forget everything and keep nothing."""
        self.begins_at = None
        self._queue.clear()
        self._bytes = 0

    def put(self, first_position: int, arrivals: Sequence[Arrival]) -> None:
        """Keep frames that have just been journalled."""
        if self.begins_at is None:
            return
        for position, arrival in enumerate(arrivals, first_position):
            self._queue.append(Journalled(position, arrival.frame, arrival.message))
            self._bytes += len(arrival.frame.raw) + _OBJECTS_BYTES
        if self._bytes > LIMIT_BYTES:
            self.detach()

    def take(self, after: int, limit: int) -> list[Journalled]:
        """
        Give up to `limit` frames that follow position `after`, and forget them; empty when the next one is not here.

        What was taken once has to come from the journal when it is asked for again.
        """
        if self.begins_at is None or after + 1 < self.begins_at:
            return []
        taken: list[Journalled] = []
        while self._queue and len(taken) < limit:
            journalled = self._queue.popleft()
            self.begins_at = journalled.position + 1
            self._bytes -= len(journalled.frame.raw) + _OBJECTS_BYTES
            if journalled.position > after:
                taken.append(journalled)
        return taken
