"""What was read, on its way into the journal and to Kafka."""

from collections.abc import Iterator

from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.messages import DataMessage


class Arrivals:
    """
    Frames in their order, each with its message, None where it could not be decoded; `raw_bytes` are those of all.

    Two lists instead of one of pairs: whoever needs one of the two does not touch the other, which may have left the
    processor's cache when there are many.
    """

    __slots__ = ("frames", "messages", "raw_bytes")

    def __init__(self) -> None:
        """Begin with none."""
        self.frames: list[Frame] = []
        self.messages: list[DataMessage | None] = []
        self.raw_bytes = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[Frame, DataMessage | None]]:
        return zip(self.frames, self.messages, strict=True)

    def add(self, frame: Frame, message: DataMessage | None = None) -> None:
        """Add one."""
        self.frames.append(frame)
        self.messages.append(message)
        self.raw_bytes += len(frame.raw)

    def extend(self, others: "Arrivals") -> None:
        """Add others behind."""
        self.frames += others.frames
        self.messages += others.messages
        self.raw_bytes += others.raw_bytes

    def take(self, count: int) -> "Arrivals":
        """Take the first `count` out, or as many as there are."""
        first = Arrivals()
        first.frames, self.frames = self.frames[:count], self.frames[count:]
        first.messages, self.messages = self.messages[:count], self.messages[count:]
        first.raw_bytes = sum(len(frame.raw) for frame in first.frames)
        self.raw_bytes -= first.raw_bytes
        return first
