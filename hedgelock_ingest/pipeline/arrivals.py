"""Received frames with their decoded messages, on the way to the journal and to Kafka."""

from collections.abc import Iterator

from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.messages import DataMessage


class Arrivals:
    """
    Frames in order, each with its message, None if it could not be decoded; `raw_bytes` is the sum over all frames.

    Two lists instead of one list of pairs: code that needs one of the two does not load the other, which may have left
    the processor's cache when there are many.
    """

    __slots__ = ("frames", "messages", "raw_bytes")

    def __init__(self) -> None:
        """Start empty."""
        self.frames: list[Frame] = []
        self.messages: list[DataMessage | None] = []
        self.raw_bytes = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[Frame, DataMessage | None]]:
        return zip(self.frames, self.messages, strict=True)

    def add(self, frame: Frame, message: DataMessage | None = None) -> None:
        """Append one frame."""
        self.frames.append(frame)
        self.messages.append(message)
        self.raw_bytes += len(frame.raw)

    def extend(self, others: "Arrivals") -> None:
        """Append others."""
        self.frames += others.frames
        self.messages += others.messages
        self.raw_bytes += others.raw_bytes

    def take(self, count: int) -> "Arrivals":
        """Remove and return the first `count`, or as many as there are."""
        first = Arrivals()
        first.frames, self.frames = self.frames[:count], self.frames[count:]
        first.messages, self.messages = self.messages[:count], self.messages[count:]
        first.raw_bytes = sum(len(frame.raw) for frame in first.frames)
        self.raw_bytes -= first.raw_bytes
        return first
