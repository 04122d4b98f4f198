"""Start of a stream: when its lines open, and the log of what it waits for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import KafkaDenied, KafkaError, KafkaUnavailable
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.models.topics import Offsets
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stream import Stream
from hedgelock_ingest.translate.record import Keep, Record
from hedgelock_ingest_tests.pipeline.streaming import MAX_BYTES, OPTIONS, NoLine
from hedgelock_ingest_tests.sandbox.exchange_fixtures import eventually

NEVER_S = 3600.0
TEST_TIMEOUT_S = 30.0


class _Line(NoLine):
    """A line that reports when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()

    async def run(self) -> None:
        """Report, and wait for `stop`."""
        if not self._stopped.is_set():
            self.opened.set()
        await super().run()


class _SlowKafka:
    """A sink that opens when `ready` is set."""

    blocked: Mapping[str, str] = {}
    is_behind = must_catch_up = False

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.records: Counter[str] = Counter()
        self.ready = asyncio.Event()
        self.failures: list[KafkaError] = []

    def offsets_at(self, position: int) -> Offsets:
        """Return no offsets; nothing is published."""
        return {}

    async def open(self, known: Offsets | None, *, settle: bool, journal_end: int) -> None:
        """Fail as often as there are failures, then wait until Kafka is ready."""
        self.asked.set()
        if self.failures:
            raise self.failures.pop(0)
        await self.ready.wait()

    def catch_up(self, known: Offsets) -> None:
        """Do nothing; no topic is ever blocked."""

    async def publish(self, records: Sequence[Record], keep: Keep) -> None:
        """Accept everything."""

    async def close(self) -> None:
        """Do nothing; no connection is open."""


@asynccontextmanager
async def starting(
    folder: Path, *, open_lines_within_s: float
) -> AsyncIterator[tuple[_SlowKafka, _Line, asyncio.Event]]:
    """Run a stream during the block; yield its Kafka, its line, and the event that stops it."""
    clock, arrived, stop = SystemClock(), asyncio.Event(), asyncio.Event()
    journal = Journal.open(folder, max_bytes=MAX_BYTES)
    kafka, line, receiver = _SlowKafka(), _Line(), Receiver([], arrived.set, clock=clock)
    options = replace(OPTIONS, open_lines_within_s=open_lines_within_s)
    stream = Stream(journal, kafka, receiver, [line], options, arrived=arrived, clock=clock)
    async with asyncio.timeout(TEST_TIMEOUT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(stream.run(stop))
        await kafka.asked.wait()
        yield kafka, line, stop
        stop.set()


async def test_lines_open_when_kafka_is_ready(tmp_path: Path) -> None:
    """The first frames do not wait for connections and metadata of Kafka."""
    async with starting(tmp_path, open_lines_within_s=NEVER_S) as (kafka, line, _):
        assert not line.opened.is_set()
        kafka.ready.set()
        await line.opened.wait()


async def test_lines_open_without_kafka_after_a_while(tmp_path: Path) -> None:
    """The journal takes the frames while Kafka is away."""
    async with starting(tmp_path, open_lines_within_s=0.01) as (kafka, line, _):
        await line.opened.wait()
        assert not kafka.ready.is_set()


async def test_stop_before_the_lines_are_open_ends_at_once(tmp_path: Path) -> None:
    """A stop during a start waits neither for Kafka nor for the lines."""
    async with starting(tmp_path, open_lines_within_s=NEVER_S) as (_, line, stop):
        stop.set()
    assert not line.opened.is_set()


async def test_each_reason_of_an_outage_is_logged_once(tmp_path: Path) -> None:
    """A permission that lacks when Kafka is back would else stay unknown, behind the refused connection before."""
    kafka, stop = _SlowKafka(), asyncio.Event()
    refused, lacking = KafkaUnavailable("it refuses connections"), KafkaDenied("the user lacks Read")
    kafka.failures = [refused, refused, lacking]
    kafka.ready.set()
    journal = Journal.open(tmp_path, max_bytes=MAX_BYTES)
    receiver = Receiver([], asyncio.Event().set, clock=SystemClock())
    stream = Stream(journal, kafka, receiver, [_Line()], OPTIONS, arrived=asyncio.Event(), clock=SystemClock())
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(TEST_TIMEOUT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.run(stop))
            await eventually(lambda: stream.stats.producer_opened > 0)
            stop.set()
    lost = [line["message"] for line in logs if line["event"] == "kafka_lost"]
    assert lost == ["it refuses connections", "the user lacks Read"]
