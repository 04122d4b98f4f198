"""One round: a stream under test between the sender and the consumer, and its outcome."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from benchmarks.board import Board, Slot
from benchmarks.children import Child
from benchmarks.frames import FEEDS, SYMBOLS, TOPIC_BY_FEED
from benchmarks.sender import Load

PARTITIONS = 6  # the product's default
TOPICS = tuple(TOPIC_BY_FEED.values())
SIDE_TOPICS = ("ingest-gaps", "ingest-dead-letters")

_START_TIMEOUT_S = 40.0
_DRAIN_TIMEOUT_S = 20.0
_POLL_S = 0.05


class Contender(StrEnum):
    """The stream under test."""

    BARE = "bare"
    PRODUCT = "product"


class RoundFailed(Exception):
    """A process of the round ended or made no progress; the message quotes its log."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The stream's process at one moment, seconds after the full rate began."""

    at_s: float
    resident_mb: float
    cpu_s: float
    received: int


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """Figures of a round; latencies are milliseconds from the sender's write to the consumer's read."""

    contender: Contender
    rate: int
    lines: int
    sent: int
    received: int
    repeated: int
    unexpected: int
    dead_letters_and_gaps: int
    states: int
    disconnections: int
    measured_s: float
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_us_per_frame: float
    sender_latest_ms: float
    samples: list[Sample] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether each frame arrived exactly once, and nothing else did."""
        side_records = 0 if self.contender is Contender.BARE else self.dead_letters_and_gaps
        return self.sent == self.received and not self.repeated and not self.unexpected and not side_records


def run_round(contender: Contender, servers: str, load: Load) -> RoundOutcome:
    """
    Run one load, with a fresh process and an empty journal.

    Raises:
        RoundFailed: A process ended or made no progress.
    """
    with tempfile.TemporaryDirectory(prefix="hedgelock-bench-") as scratch, ExitStack() as ended:
        folder = Path(scratch)
        board = Board.create(folder / "board", load.capacity())
        ended.callback(_signal_stop, board)
        helpers = [ended.enter_context(child) for child in start_helpers(folder, board, servers, load)]
        stream = ended.enter_context(start_stream(contender, folder, board, servers, load))
        samples = _watch(board, stream, helpers, load)
        board[Slot.STOP] = 1
        code = stream.stop()
        if code not in (0, None):
            raise RoundFailed(f"{stream.name} ended with {code}; {stream.log_tail()}")
        for helper in helpers:
            helper.wait()
        return outcome(contender, board, load, samples)


def start_helpers(
    folder: Path,
    board: Board,
    servers: str,
    load: Load,
    *,
    topics: Sequence[str] = TOPICS,
    side_topics: Sequence[str] = SIDE_TOPICS,
) -> list[Child]:
    """Start the consumer, wait until it reads, and start the sender, which waits for the stream."""
    path, capacity = str(folder / "board"), str(board.capacity)
    consumer = Child(
        "consumer",
        ["-m", "benchmarks.consumer", path, capacity, servers, json.dumps(topics), json.dumps(side_topics)],
        folder,
    )
    wait_until(lambda: board[Slot.CONSUMER_READY], _START_TIMEOUT_S, [consumer])
    sender = Child("sender", ["-m", "benchmarks.sender", path, load.text()], folder)
    wait_until(lambda: board[Slot.PORT], _START_TIMEOUT_S, [sender])
    return [consumer, sender]


def start_stream(
    contender: Contender,
    folder: Path,
    board: Board,
    servers: str,
    load: Load,
    *,
    topic_names: Mapping[str, str] | None = None,
) -> Child:
    """Start the stream under test; `topic_names` are settings that rename the product's topics."""
    url = f"ws://127.0.0.1:{board[Slot.PORT]}/v5/public"
    if contender is Contender.BARE:
        return Child("bare", ["-m", "benchmarks.bare", url, servers, str(PARTITIONS)], folder)
    # All other settings have their defaults.
    environment = {
        "BYBIT_PUBLIC_WS_URL": url,
        "BYBIT_SPOT_SYMBOLS": ",".join(SYMBOLS),
        "BYBIT_LINEAR_SYMBOLS": ",".join(SYMBOLS),
        "BYBIT_PUBLIC_FEEDS": ",".join(FEEDS),
        "BYBIT_LINES": str(load.lines),
        "BYBIT_POLLS": "false",
        # The sender is silent while a backlog drains, and the lines must not be replaced then.
        "BYBIT_STALE_AFTER": "120",
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "KAFKA_TOPIC_PARTITIONS": str(PARTITIONS),
        "JOURNAL_DIRECTORY": str(folder / "journal"),
        "MONITORING_PORT": "0",
        **(topic_names or {}),
    }
    return Child("product", ["-m", "hedgelock_ingest", "run"], folder, environment)


def wait_until(condition: Callable[[], object], timeout_s: float, children: Sequence[Child]) -> None:
    """
    Wait for a condition.

    Raises:
        RoundFailed: The condition did not become true in time, or a child ended meanwhile.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        for child in children:
            if not child.is_running:
                raise RoundFailed(f"{child.name} ended too early; {child.log_tail()}")
        if time.monotonic() > deadline:
            raise RoundFailed("no progress; " + "; ".join(child.log_tail() for child in children))
        time.sleep(_POLL_S)


def _watch(board: Board, stream: Child, helpers: Sequence[Child], load: Load) -> list[Sample]:
    children = [stream, *helpers]
    samples: list[Sample] = []
    wait_until(lambda: board[Slot.FULL_RATE_FROM_NS], _START_TIMEOUT_S, children)
    began_ns = board[Slot.FULL_RATE_FROM_NS]

    def is_sent() -> bool:
        at_s = (time.monotonic_ns() - began_ns) / 1e9
        if at_s >= len(samples):
            samples.append(Sample(round(at_s, 2), stream.resident_mb(), stream.cpu_s(), board[Slot.RECEIVED]))
        return bool(board[Slot.ALL_SENT_NS])

    wait_until(is_sent, load.seconds + load.settle_s + _START_TIMEOUT_S, children)
    # Frames missing after the drain are reported as lost.
    deadline = time.monotonic() + _DRAIN_TIMEOUT_S
    while board[Slot.RECEIVED] < board[Slot.SENT] and time.monotonic() < deadline and stream.is_running:
        time.sleep(_POLL_S)
    at_s = (time.monotonic_ns() - began_ns) / 1e9
    samples.append(Sample(round(at_s, 2), stream.resident_mb(), stream.cpu_s(), board[Slot.RECEIVED]))
    return samples


def outcome(contender: Contender, board: Board, load: Load, samples: list[Sample]) -> RoundOutcome:
    """Compute the figures from the board."""
    first, sent = board[Slot.MEASURED_FROM], board[Slot.SENT]
    began_ns, ended_ns = board[Slot.MEASURED_FROM_NS], board[Slot.ALL_SENT_NS]
    numbers = range(first, load.first_number + sent)
    arrivals = board.arrived_ns[numbers.start : numbers.stop].tolist()
    departures = board.sent_ns[numbers.start : numbers.stop].tolist()
    latencies = sorted(arrived - left for arrived, left in zip(arrivals, departures, strict=True) if arrived)
    everything = board.arrived_ns[: numbers.stop].tolist()
    in_time = sum(began_ns <= arrived < ended_ns for arrived in everything)
    frames = samples[-1].received - samples[0].received
    return RoundOutcome(
        contender=contender,
        rate=load.rate,
        lines=load.lines,
        sent=sent,
        received=board[Slot.RECEIVED],
        repeated=board[Slot.REPEATED],
        unexpected=board[Slot.UNEXPECTED],
        dead_letters_and_gaps=board[Slot.SIDE_RECORDS],
        states=board[Slot.STATES],
        disconnections=board[Slot.DISCONNECTIONS],
        measured_s=round((ended_ns - began_ns) / 1e9, 2),
        rate_per_s=round(in_time / ((ended_ns - began_ns) / 1e9)),
        p50_ms=percentile_ms(latencies, 50),
        p99_ms=percentile_ms(latencies, 99),
        p999_ms=percentile_ms(latencies, 99.9),
        max_ms=percentile_ms(latencies, 100),
        cpu_us_per_frame=round((samples[-1].cpu_s - samples[0].cpu_s) / max(frames, 1) * 1e6, 1),
        sender_latest_ms=round(board[Slot.LATEST_TICK_NS] / 1e6, 2),
        samples=samples,
    )


def percentile_ms(ordered_ns: Sequence[int], percent: float) -> float:
    """Return a percentile of sorted times; infinite when there are none."""
    if not ordered_ns:
        return float("inf")
    index = min(int(len(ordered_ns) * percent / 100), len(ordered_ns) - 1)
    return round(ordered_ns[index] / 1e6, 3)


def _signal_stop(board: Board) -> None:
    board[Slot.STOP] = 1
