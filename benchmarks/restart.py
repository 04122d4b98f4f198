"""Time from a start to the first record, on the journal of a killed process."""

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.board import Board, Slot
from benchmarks.children import Child
from benchmarks.frames import CATEGORIES, CHANNELS, TOPIC_BY_FEED, Frames
from benchmarks.rounds import PARTITIONS, SIDE_TOPICS, Contender, RoundFailed, start_helpers, start_stream, wait_until
from benchmarks.sender import Load
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.kafka.topic_admin import ensure_topics
from hedgelock_ingest.pipeline.checkpoints import Checkpoint
from hedgelock_ingest.pipeline.receiver import new_trace
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.translator import Translator

_GROUP_FRAMES = 250
_FRAMES_PER_MS = 20
_TRANSLATED_FRAMES = 300_000
"""Enough to fill every list of known trades, so that the saved state has its largest size."""
_TIMEOUT_S = 60.0
_SENT_S = 2.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Content of the journal: frames, and how many of the last ones Kafka has not acknowledged."""

    frames: int
    unacknowledged: int


@dataclass(frozen=True, slots=True)
class StartOutcome:
    """Seconds from the start of the process to the first record at all, and to the first of a new frame."""

    contender: Contender
    backlog: Backlog
    journal_mb: float
    first_record_s: float
    first_new_record_s: float
    sent: int
    received: int
    repeated: int
    dead_letters: int

    @property
    def is_complete(self) -> bool:
        """Whether each unacknowledged and each new frame arrived exactly once."""
        return self.received == self.sent and not self.repeated and not self.dead_letters


def build_journal(directory: Path, backlog: Backlog) -> None:
    """Write a journal, through its interface, as a killed process leaves it."""
    asyncio.run(_build(directory, backlog))


def run_start(contender: Contender, servers: str, journal: Path, backlog: Backlog, *, name: str) -> StartOutcome:
    """
    Start the stream on a copy of a journal, with separate topics whose names begin with `name`.

    Raises:
        RoundFailed: A process ended or made no progress.
    """
    load = Load(rate=1_000, seconds=_SENT_S, settle_s=0, first_number=backlog.frames, warms_up=False)
    renamed = _renamed(name) if contender is Contender.PRODUCT else {}
    topics = [renamed.get(_setting(topic), topic) for topic in TOPIC_BY_FEED.values()]
    letters = renamed.get(_setting(SIDE_TOPICS[1]), SIDE_TOPICS[1])
    create_topics(servers, renamed)
    with tempfile.TemporaryDirectory(prefix="hedgelock-bench-") as scratch, ExitStack() as ended:
        folder = Path(scratch)
        if contender is Contender.PRODUCT:
            shutil.copytree(journal, folder / "journal" / "main")
            os.sync()  # else the first commit of the stream would write the complete copy to the disk
        board = Board.create(folder / "board", load.capacity())
        helpers = start_helpers(folder, board, servers, load, topics=topics, side_topics=[letters])
        for helper in helpers:
            ended.enter_context(helper)
        began_ns = time.monotonic_ns()
        stream = ended.enter_context(start_stream(contender, folder, board, servers, load, topic_names=renamed))
        expected = backlog.unacknowledged if contender is Contender.PRODUCT else 0
        _wait_for_all(board, [stream, *helpers], expected)
        board[Slot.STOP] = 1
        if code := stream.stop():
            raise RoundFailed(f"{stream.name} ended with {code}; {stream.log_tail()}")
        for helper in helpers:
            helper.wait()
        return _outcome(contender, board, backlog, began_ns, expected, _size_mb(journal))


def create_topics(servers: str, names: dict[str, str]) -> None:
    """Create the product's missing topics, renamed by `names`."""
    renamed: dict[str, Any] = {setting.lower(): name for setting, name in names.items()}
    settings = Settings(kafka_bootstrap_servers=servers, kafka_topic_partitions=PARTITIONS, **renamed)
    asyncio.run(ensure_topics(settings))


def _wait_for_all(board: Board, children: list[Child], expected: int) -> None:
    wait_until(lambda: board[Slot.ALL_SENT_NS], _TIMEOUT_S, children)
    deadline = time.monotonic() + _TIMEOUT_S
    while board[Slot.RECEIVED] < board[Slot.SENT] + expected and time.monotonic() < deadline:
        time.sleep(0.05)


def _outcome(
    contender: Contender, board: Board, backlog: Backlog, began_ns: int, expected: int, journal_mb: float
) -> StartOutcome:
    first_new = backlog.frames
    old = [at_ns for at_ns in board.arrived_ns[:first_new].tolist() if at_ns]
    new = [at_ns for at_ns in board.arrived_ns[first_new:].tolist() if at_ns]
    return StartOutcome(
        contender=contender,
        backlog=backlog if contender is Contender.PRODUCT else Backlog(0, 0),
        journal_mb=journal_mb if contender is Contender.PRODUCT else 0,
        first_record_s=round((min(old + new) - began_ns) / 1e9, 2),
        first_new_record_s=round((min(new) - began_ns) / 1e9, 2),
        sent=board[Slot.SENT] + expected,
        received=board[Slot.RECEIVED],
        repeated=board[Slot.REPEATED],
        dead_letters=board[Slot.SIDE_RECORDS],
    )


async def _build(directory: Path, backlog: Backlog) -> None:
    frames, began_ms = Frames(), time.time_ns() // 1_000_000 - backlog.frames // _FRAMES_PER_MS
    acknowledged = backlog.frames - backlog.unacknowledged
    translated_from = max(acknowledged - _TRANSLATED_FRAMES, 0)
    journal = Journal.open(directory, max_bytes=100 * 1024**3)
    translator = Translator()
    try:
        await _append(journal, frames, began_ms, translated_from, None)
        await _append_snapshots(journal, frames, began_ms, translator)
        await _append(journal, frames, began_ms, acknowledged - translated_from, translator)
        position = journal.last_position
        await _append(journal, frames, began_ms, backlog.unacknowledged, None)
        await journal.save_state(position, msgspec.msgpack.encode(Checkpoint(translator.save(), {})))
    finally:
        await journal.close(clean=False)


async def _append_snapshots(journal: Journal, frames: Frames, began_ms: int, translator: Translator) -> None:
    ts_ms = began_ms + frames.next_number // _FRAMES_PER_MS
    snapshots = [
        _frame(category, raw, ts_ms)
        for category in CATEGORIES
        for channel in CHANNELS
        if (raw := frames.snapshot(category, channel, ts_ms)) is not None
    ]
    first = await journal.append(snapshots)
    for position, frame in enumerate(snapshots, first):
        translator.translate(position, frame)


async def _append(journal: Journal, frames: Frames, began_ms: int, count: int, translator: Translator | None) -> None:
    for done in range(0, count, _GROUP_FRAMES):
        ts_ms = began_ms + frames.next_number // _FRAMES_PER_MS
        group = [_frame(category, raw, ts_ms) for category, raw in frames.raw(min(_GROUP_FRAMES, count - done), ts_ms)]
        first = await journal.append(group)
        if translator is not None:
            for position, frame in enumerate(group, first):
                translator.translate(position, frame)


def _frame(category: str, raw: bytes, ts_ms: int) -> Frame:
    return Frame(f"{category}-a", ts_ms * 1_000_000, new_trace(), raw)


def _renamed(name: str) -> dict[str, str]:
    return {_setting(topic): f"{name}-{topic}" for topic in (*TOPIC_BY_FEED.values(), *SIDE_TOPICS)}


def _setting(topic: str) -> str:
    return "KAFKA_TOPIC_" + topic.replace("-", "_").upper()


def _size_mb(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1)
