"""Housekeeping: the files stay bounded, however many frames have passed through them."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hedgelock_ingest.journal import Journal, store
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest_tests.journal.builders import a_frame, opened

MEGABYTE = 1024 * 1024
# 200 frames of 5 kB, about a megabyte.
GROUP: list[Frame] = [a_frame(number, raw_bytes=5_000) for number in range(200)]


def megabytes(folder: Path, name: str) -> float:
    """Return a file's size in MiB."""
    return (folder / name).stat().st_size / MEGABYTE


async def eventually(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def append_megabytes(journal: Journal, count: int) -> None:
    """Append about `count` megabytes without acknowledging them."""
    for _ in range(count):
        await journal.append(GROUP)


@pytest.fixture(autouse=True)
def short_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trim after fewer bytes than in service, so that the tests are short."""
    monkeypatch.setattr(store, "_URGENT_TRIM_BYTES", 8 * MEGABYTE)


async def test_disk_used_is_bounded_while_kafka_keeps_up(tmp_path: Path) -> None:
    """The database holds the history and room for the next frames; the write-ahead log restarts repeatedly."""
    async with opened(tmp_path, keep_bytes=8 * MEGABYTE) as journal:
        for _ in range(40):
            await append_megabytes(journal, 4)
            await journal.save_state(journal.last_position, bytes(10_000))
        assert megabytes(tmp_path, "journal.db") < 60
        assert megabytes(tmp_path, "journal.db-wal") < 60
        await journal.append(GROUP[:1])
        await journal.save_state(journal.last_position, b"")


async def test_space_returns_to_the_disk_after_an_outage(tmp_path: Path) -> None:
    """A published backlog leaves no large file."""
    async with opened(tmp_path, keep_bytes=8 * MEGABYTE) as journal:
        await append_megabytes(journal, 120)
        assert megabytes(tmp_path, "journal.db") > 80
        await journal.save_state(journal.last_position, b"")
        await eventually(lambda: megabytes(tmp_path, "journal.db") < 60)


async def test_recent_acknowledged_frames_stay_for_replay(tmp_path: Path) -> None:
    """The last megabytes can be replayed; unacknowledged frames are never deleted."""
    async with opened(tmp_path, keep_bytes=8 * MEGABYTE) as journal:
        await append_megabytes(journal, 30)
        acknowledged = journal.last_position
        await append_megabytes(journal, 2)
        await journal.save_state(acknowledged, b"")

        def kept_bytes() -> int:
            oldest = journal.read(0, limit=1)[0][0]
            return (acknowledged - oldest + 1) * 5_000

        await eventually(lambda: kept_bytes() < 11 * MEGABYTE)
        await eventually(lambda: megabytes(tmp_path, "journal.db") < 60)
        assert kept_bytes() > 7 * MEGABYTE
        assert [frame for _, frame in journal.read(acknowledged, limit=1_000)] == GROUP * 2


async def test_log_stays_bounded_beside_a_reader_that_never_pauses(tmp_path: Path) -> None:
    """Catch-up reads without a pause while frames keep coming; the log must restart all the same."""
    async with opened(tmp_path, keep_bytes=8 * MEGABYTE) as journal:
        stop = asyncio.Event()

        def read_on() -> None:
            after = 0
            while not stop.is_set():
                found = journal.read(after, limit=500)
                after = found[-1][0] if found else 0

        reading = asyncio.create_task(asyncio.to_thread(read_on))
        try:
            for _ in range(60):
                await append_megabytes(journal, 2)
                await journal.save_state(journal.last_position, b"")
        finally:
            stop.set()
            await reading
        assert megabytes(tmp_path, "journal.db-wal") < 80


async def test_appends_continue_after_a_long_history_of_trimming(tmp_path: Path) -> None:
    """Trimmed pages are reused, and the numbering continues."""
    async with opened(tmp_path, keep_bytes=8 * MEGABYTE) as journal:
        for _ in range(10):
            await append_megabytes(journal, 5)
            await journal.save_state(journal.last_position, b"")
        last = journal.last_position
    async with opened(tmp_path, keep_bytes=8 * MEGABYTE) as journal:
        assert journal.recovery.is_clean
        assert (journal.last_position, journal.backlog_bytes) == (last, 0)
        assert await journal.append(GROUP) == last + 1


@pytest.mark.proof
async def test_opening_is_fast_however_much_was_acknowledged(tmp_path: Path) -> None:
    """A restart is a gap in what we receive, so its length must not grow with the history."""
    group = [a_frame(raw_bytes=100)] * 1_000
    async with opened(tmp_path, keep_bytes=1_000 * MEGABYTE) as journal:
        for _ in range(1_000):
            await journal.append(group)
        await journal.save_state(journal.last_position, bytes(100_000))
    began = time.perf_counter()
    async with opened(tmp_path, keep_bytes=1_000 * MEGABYTE) as journal:
        assert time.perf_counter() - began < 1
        assert (journal.last_position, journal.backlog_bytes) == (1_000_000, 0)
        assert len(journal.read(0, limit=10)) == 10
