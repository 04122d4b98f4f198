"""What the pipeline asks of the two sides that it joins."""

from collections.abc import Sequence
from typing import Protocol

from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.protocol.rest_messages import Purpose, RestAnswer
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


class RecoveryReport(Protocol):
    """What opening a log of frames has found."""

    @property
    def findings(self) -> Sequence[str]:
        """Sentences for the operator; none when nothing was wrong."""
        ...

    @property
    def is_clean(self) -> bool:
        """Nothing was wrong."""
        ...


class FrameLog(Protocol):
    """
    The durable log of received frames: the journal.

    `journal_id` names it in Kafka; `ended_cleanly` says that the owner before has left nothing under way to Kafka.
    """

    journal_id: str
    ended_cleanly: bool

    @property
    def recovery(self) -> RecoveryReport:
        """What opening it has found."""
        ...

    @property
    def is_owned(self) -> bool:
        """Whether others are still kept away."""
        ...

    @property
    def free_bytes(self) -> int:
        """Bytes free on the disk that it lies on."""
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
        """Write durably; give the position of the first; raises a `JournalError` that says whether it is transient."""
        ...

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """Give frames after a position, in order; called from a worker thread."""
        ...

    async def save_state(self, position: int, state: bytes) -> None:
        """Save the state of a position; everything up to it is acknowledged."""
        ...

    def load_state(self) -> tuple[int, bytes | None]:
        """Give what was saved last, None if nothing was, empty if it is lost; called from a worker thread."""
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


class Questions(Protocol):
    """
    What Bybit's REST can be asked for; all methods raise `RestError`.

    `now_ms` is Bybit's clock.
    """

    def now_ms(self) -> int:
        """Give Bybit's time, as far as it is known."""
        ...

    async def wallet(self, purpose: Purpose) -> RestAnswer:
        """Ask for all balances."""
        ...

    async def positions(self, purpose: Purpose) -> RestAnswer:
        """Ask for all open positions."""
        ...

    async def orders(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        """Ask for the orders that are open, and for all that changed since."""
        ...

    async def executions(self, purpose: Purpose, *, since_ms: int) -> RestAnswer:
        """Ask for all fills since."""
        ...

    async def collateral(self, purpose: Purpose) -> RestAnswer:
        """Ask for debt, collateral and LTV."""
        ...

    async def loans(self, purpose: Purpose) -> RestAnswer:
        """Ask for all loans."""
        ...

    async def recent_trades(self, category: str, symbol: str) -> RestAnswer:
        """Ask for the last public trades of a symbol."""
        ...


class Answers(Protocol):
    """Where answers of REST go: the receiver, which puts them between the frames."""

    def answer_received(self, answer: RestAnswer) -> None:
        """Take an answer."""
        ...

    def gap_fill_failed(self, feed: str, reason: str) -> None:
        """Take note that a feed's holes stay."""
        ...


class Watcher(Protocol):
    """Hears which feeds have a live line."""

    def went_up(self, feeds: Sequence[str]) -> None:
        """Bybit sends these feeds from now on."""
        ...

    def went_down(self, feeds: Sequence[str]) -> None:
        """No live line is left for these feeds."""
        ...
