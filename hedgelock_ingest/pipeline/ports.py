"""What the pipeline asks of the two sides that it joins."""

from collections.abc import Sequence
from typing import Protocol

from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import Record, RefusedRecord

type Offsets = dict[str, dict[int, int]]


class Refusal(Protocol):
    """A record that the sink will never take, and why."""

    @property
    def record(self) -> Record:
        """The record."""
        ...

    @property
    def reason(self) -> str:
        """Why it is refused."""
        ...


class Sink(Protocol):
    """Where records go: Kafka."""

    def offsets_at(self, position: int) -> Offsets:
        """Offsets before all records made of frames after `position`; saved with the state of that position."""
        ...

    async def open(self, known: Offsets | None, *, settle: bool) -> None:
        """Connect and find out what has arrived; raises a `KafkaError` that says whether it is transient."""
        ...

    async def publish(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Send, wait for the acknowledgement of all, skip what had arrived; after an error `open` again."""
        ...

    async def close(self) -> None:
        """End the connection in bounded time."""
        ...


class FrameLog(Protocol):
    """The durable log of received frames: the journal."""

    ended_cleanly: bool

    @property
    def last_position(self) -> int:
        """Position of the last durable frame."""
        ...

    @property
    def state_position(self) -> int:
        """Position of the saved state."""
        ...

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the frames after the saved state."""
        ...

    async def append(self, frames: Sequence[Frame]) -> int:
        """Write durably; give the position of the first; raises a `JournalError` that says whether it is transient."""
        ...

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """Give frames after a position, in order; called from a worker thread."""
        ...

    async def save_state(self, position: int, state: bytes) -> None:
        """Save the state of a position; everything up to it is acknowledged."""
        ...

    def load_state(self) -> tuple[int, bytes | None]:
        """Give what was saved last; called from a worker thread."""
        ...

    async def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Keep a record that no topic takes."""
        ...

    async def close(self, *, clean: bool) -> None:
        """Give the log up; `clean` says that nothing is under way to Kafka."""
        ...


class Source(Protocol):
    """Where frames come from: a line, which hands them to the receiver."""

    name: str

    def pause(self) -> None:
        """Close, and stay closed."""
        ...

    def resume(self) -> None:
        """Open again."""
        ...

    def stop(self) -> None:
        """Close for good; `run` returns."""
        ...

    async def run(self) -> None:
        """Keep the line open."""
        ...

    def resubscribe(self, channel: str) -> None:
        """Have a new snapshot sent."""
        ...
