"""What the pipeline asks of the two sides that it joins."""

from collections.abc import Sequence
from typing import Protocol

from hedgelock_ingest.translate.record import Record

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
