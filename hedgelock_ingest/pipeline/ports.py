"""Protocols of the components that the pipeline connects: sink, journal, lines, REST."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from hedgelock_ingest.models.topics import Offsets
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rest_messages import Purpose, RestAnswer
from hedgelock_ingest.translate.record import Keep, Record, RefusedRecord


class Sink(Protocol):
    """Destination of records: Kafka."""

    def offsets_at(self, position: int) -> Offsets:
        """Return the offsets before all records of frames after `position`; saved with the state of that position."""
        ...

    async def open(self, known: Offsets | None, *, settle: bool, journal_end: int) -> None:
        """Connect and find out what has arrived; raises a `KafkaError`, transient or not."""
        ...

    @property
    def blocked(self) -> Mapping[str, str]:
        """Why a topic accepts nothing for now, by topic; its records are left out."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether records were left out, so that the published positions are not acknowledged."""
        ...

    @property
    def must_catch_up(self) -> bool:
        """Whether a topic that was blocked accepts records again, of which it lacks some."""
        ...

    def catch_up(self, known: Offsets) -> None:
        """Expect the records after a saved state again."""
        ...

    @property
    def records(self) -> Counter[str]:
        """How many records Kafka has taken, by topic."""
        ...

    async def publish(self, records: Sequence[Record], keep: Keep, /) -> None:
        """
        Send records, skip those that had arrived, wait for all acknowledgements; after an error `open` again.

        Those that are refused for good are passed to `keep`, before anything later is sent to their partitions.
        """
        ...

    async def close(self) -> None:
        """Close the connection in bounded time."""
        ...


class RecoveryReport(Protocol):
    """Findings of opening a log of frames."""

    @property
    def findings(self) -> Sequence[str]:
        """Sentences for the operator; none when nothing was wrong."""
        ...

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong."""
        ...


class FrameLog(Protocol):
    """
    The durable log of received frames: the journal.

    `journal_id` names it in Kafka; `ended_cleanly` is true if the previous owner left no records in flight to Kafka.
    """

    journal_id: str
    ended_cleanly: bool

    @property
    def recovery(self) -> RecoveryReport:
        """Findings of opening it."""
        ...

    @property
    def is_owned(self) -> bool:
        """Whether this process still holds the lock."""
        ...

    @property
    def bound_bytes(self) -> int:
        """Bound on `backlog_bytes`; it changes with the room on the disk."""
        ...

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
        """Write durably and return the position of the first frame; raises a `JournalError`, transient or not."""
        ...

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """Return frames after a position, in order; called from a worker thread."""
        ...

    async def save_state(self, position: int, state: bytes) -> None:
        """Save the state of a position; everything up to it is acknowledged."""
        ...

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the last saved state, None if none was saved, empty if it is lost; called from a worker thread."""
        ...

    async def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Store a record that no topic accepts."""
        ...

    async def close(self, *, clean: bool) -> None:
        """Close the log and release its lock; `clean` states that no records are in flight to Kafka."""
        ...


class Source(Protocol):
    """Source of frames: a line, which passes them to the receiver."""

    name: str

    def pause(self) -> None:
        """Close the line until `resume`."""
        ...

    def resume(self) -> None:
        """Reopen the line."""
        ...

    def stop(self) -> None:
        """Close the line permanently; `run` returns."""
        ...

    async def run(self) -> None:
        """Keep the line open."""
        ...


class RestSource(Protocol):
    """
    Requests to Bybit's REST; all methods raise `RestError`.

    `now_ms` is Bybit's clock.
    """

    def now_ms(self) -> int:
        """Return Bybit's time, or our clock's while it is unknown."""
        ...

    def probe_now(self) -> None:
        """Send the next request although earlier ones failed: a line has just connected, so Bybit can be reached."""
        ...

    async def wallet(self, purpose: Purpose) -> RestAnswer:
        """Request all balances."""
        ...

    async def positions(self, purpose: Purpose) -> RestAnswer:
        """Request all open positions."""
        ...

    async def orders(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        """Request the open orders, and all orders changed since."""
        ...

    async def executions(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        """Request all executions since."""
        ...

    async def collateral(self, purpose: Purpose) -> RestAnswer:
        """Request debt, collateral and LTV."""
        ...

    async def loans(self, purpose: Purpose) -> RestAnswer:
        """Request all loans."""
        ...

    async def recent_trades(self, category: str, symbol: str) -> RestAnswer:
        """Request the last public trades of a symbol."""
        ...

    async def ticker(self, category: str, symbol: str) -> RestAnswer:
        """Request the present ticker of a symbol."""
        ...


class AnswerReceiver(Protocol):
    """Destination of REST answers: the receiver, which inserts them between the frames."""

    def answer_received(self, answer: RestAnswer) -> str:
        """Accept an answer, and return the trace id of its records."""
        ...

    def gap_fill_failed(self, feed: str, reason: str) -> None:
        """Note that a feed's gaps were not filled."""
        ...


class Watcher(Protocol):
    """Observer of which feeds have a live line."""

    def went_up(self, feeds: Sequence[str]) -> None:
        """Note that Bybit sends these feeds from now on."""
        ...

    def went_down(self, feeds: Sequence[str]) -> None:
        """Note that these feeds have no live line left."""
        ...
