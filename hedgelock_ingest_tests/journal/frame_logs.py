"""Storage of the real and the simulated frame log, with switches for faults, for one test suite."""

import asyncio
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.journal.schema import PAGE_BYTES
from hedgelock_ingest_tests.journal.appender import append_until_killed, killed_after
from hedgelock_ingest_tests.journal.builders import MAX_BYTES
from hedgelock_ingest_tests.simulation.frame_log import Disk, MemoryFrameLog

type OpenedLog = Journal | MemoryFrameLog
type EndFault = Callable[[], None]

ROOM_BYTES = 1024 * 1024
"""File size up to which a full disk of `JournalFolder` still accepts writes."""

# Source: SQLite, "WAL File Format": the header; a frame is a header and a page. A commit is a frame with a size.
_WAL_HEADER_BYTES, _WAL_FRAME_BYTES = 32, 24 + PAGE_BYTES
_SALTS, _FRAME_SALTS, _COMMIT_SIZE = slice(16, 24), slice(8, 16), slice(4, 8)


class LogPlace(Protocol):
    """Storage of one log, across the processes that own it."""

    def open(self, *, max_bytes: int = MAX_BYTES) -> OpenedLog:
        """Open the log, in a new process where that is possible."""
        ...

    async def die(self, log: OpenedLog) -> None:
        """Leave what a kill of the owner leaves; no append is in progress."""
        ...

    async def kill_appending(self, appends: int, random: Random) -> int:
        """Let a process append, kill it, and return the last position that it saw durable."""
        ...

    @contextmanager
    def full_disk(self) -> Iterator[EndFault]:
        """Refuse each write beyond `ROOM_BYTES`, or every write, until the yielded function is called."""
        ...

    def tear(self, groups: int) -> None:
        """Cut off the last `groups` groups and everything written after the first of them; the owner was killed."""
        ...

    def lose_state(self) -> None:
        """Make the saved state unreadable; no process owns the log."""
        ...

    def lose_watermark(self) -> None:
        """Remove the watermark; no process owns the log."""
        ...


class JournalFolder:
    """Storage of the real journal in a folder."""

    def __init__(self, folder: Path) -> None:
        """Start without a log."""
        self._parent = folder
        self._owners = 0

    @property
    def _folder(self) -> Path:
        return self._parent / f"owner-{self._owners}"

    def open(self, *, max_bytes: int = MAX_BYTES) -> Journal:
        """Open the journal in this process."""
        return Journal.open(self._folder, max_bytes=max_bytes)

    async def die(self, log: OpenedLog) -> None:
        """Continue with a copy of the present files."""
        files = self._folder
        self._owners += 1
        shutil.copytree(files, self._folder)
        await log.close(clean=False)

    async def kill_appending(self, appends: int, random: Random) -> int:
        """Kill a child process."""
        return await asyncio.to_thread(killed_after, self._folder, appends, seed=random.randrange(2**32))

    @contextmanager
    def full_disk(self) -> Iterator[EndFault]:
        """Limit every file of this process to `ROOM_BYTES`, as a quota does."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, limits[1]))
            yield stack.close

    def tear(self, groups: int) -> None:
        """Truncate the write-ahead log after the commit before the last `groups` groups."""
        wal = self._folder / "journal.db-wal"
        content = wal.read_bytes()
        commits = [(_WAL_HEADER_BYTES, self._group_count(content[:_WAL_HEADER_BYTES]))]
        for end in range(_WAL_HEADER_BYTES + _WAL_FRAME_BYTES, len(content) + 1, _WAL_FRAME_BYTES):
            frame = content[end - _WAL_FRAME_BYTES : end]
            if frame[_FRAME_SALTS] == content[_SALTS] and any(frame[_COMMIT_SIZE]):
                commits.append((end, self._group_count(content[:end])))
        left = commits[-1][1] - groups
        wal.write_bytes(content[: max(end for end, count in commits if count <= left)])

    def _group_count(self, wal: bytes) -> int:
        """Count the groups in the database with a truncated write-ahead log."""
        copy = self._parent / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        shutil.copy(self._folder / "journal.db", copy)
        (copy / "journal.db-wal").write_bytes(wal)
        with closing(sqlite3.connect(copy / "journal.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM groups").fetchone()[0])

    def lose_state(self) -> None:
        """Overwrite the state in the database."""
        with closing(sqlite3.connect(self._folder / "journal.db")) as connection, connection:
            connection.execute("UPDATE state SET body = x'00' WHERE body NOT NULL")

    def lose_watermark(self) -> None:
        """Delete the watermark file."""
        (self._folder / "journal.mark").unlink()


@dataclass
class _Process:
    is_dead: bool = False


class MemoryDisk:
    """Storage of the simulated log on a simulated disk, with negligible delays in real time."""

    def __init__(self, random: Random) -> None:
        """Start without a log."""
        self._disk = Disk(SystemClock(), random, commit_s=0.0001)
        self._process = _Process()

    def open(self, *, max_bytes: int = MAX_BYTES) -> MemoryFrameLog:
        """Open the log in a new process."""
        log = self._disk.open(process := _Process(), max_bytes=max_bytes)
        self._process = process
        return log

    async def die(self, log: OpenedLog) -> None:
        """Mark the process as dead."""
        self._process.is_dead = True

    async def kill_appending(self, appends: int, random: Random) -> int:
        """Kill a task of this process."""
        reported: list[int] = []
        enough = asyncio.Event()

        def report(last: int) -> None:
            reported.append(last)
            if len(reported) == appends:
                enough.set()

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(append_until_killed(self.open(), random, report))
            await enough.wait()
            await asyncio.sleep(random.random() * 0.001)
            self._process.is_dead = True
            task.cancel()
        return reported[-1]

    @contextmanager
    def full_disk(self) -> Iterator[EndFault]:
        """Refuse all writes."""

        def end_fault() -> None:
            self._disk.fail_writes(False)

        self._disk.fail_writes(True)
        try:
            yield end_fault
        finally:
            end_fault()

    def tear(self, groups: int) -> None:
        """Cut off the last groups."""
        self._disk.tear(groups)

    def lose_state(self) -> None:
        """Make the saved state unreadable."""
        self._disk.lose_state()

    def lose_watermark(self) -> None:
        """Remove the watermark."""
        self._disk.lose_watermark()
