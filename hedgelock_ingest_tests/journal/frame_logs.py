"""The two frame logs, each with the place where it lies and that place's faults, for one suite of tests."""

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
type Lift = Callable[[], None]

ROOM_BYTES = 1024 * 1024
"""What a full disk of `JournalFolder` takes all the same, counted from a file's start."""

# Source: SQLite, "WAL File Format": the header; a frame is a header and a page. A commit is a frame with a size.
_WAL_HEADER_BYTES, _WAL_FRAME_BYTES = 32, 24 + PAGE_BYTES
_SALTS, _FRAME_SALTS, _COMMIT_SIZE = slice(16, 24), slice(8, 16), slice(4, 8)


class LogPlace(Protocol):
    """Where one log lies, over the lives of its owners."""

    def open(self, *, max_bytes: int = MAX_BYTES) -> OpenedLog:
        """Open the log in a new process, as far as that can be had."""
        ...

    async def die(self, log: OpenedLog) -> None:
        """Leave what a kill of the owner leaves; nothing is under way."""
        ...

    async def kill_appending(self, appends: int, random: Random) -> int:
        """Let a process append, kill it, and return up to where it saw that frames are durable."""
        ...

    @contextmanager
    def full_disk(self) -> Iterator[Lift]:
        """Refuse each write of more than `ROOM_BYTES`, or any other one as well, until lifted."""
        ...

    def tear(self, groups: int) -> None:
        """Cut off what was written from the first of so many last groups on; their owner has died."""
        ...

    def lose_state(self) -> None:
        """Make the saved state unreadable; nobody owns the log."""
        ...

    def lose_mark(self) -> None:
        """Remove the mark; nobody owns the log."""
        ...


class JournalFolder:
    """A folder with the real journal."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing."""
        self._parent = folder
        self._lives = 0

    @property
    def _folder(self) -> Path:
        return self._parent / f"life-{self._lives}"

    def open(self, *, max_bytes: int = MAX_BYTES) -> Journal:
        """Open the journal in this process."""
        return Journal.open(self._folder, max_bytes=max_bytes)

    async def die(self, log: OpenedLog) -> None:
        """Go on with a copy of the files as they stand."""
        files = self._folder
        self._lives += 1
        shutil.copytree(files, self._folder)
        await log.close(clean=False)

    async def kill_appending(self, appends: int, random: Random) -> int:
        """Kill a child process."""
        return await asyncio.to_thread(killed_after, self._folder, appends, seed=random.randrange(2**32))

    @contextmanager
    def full_disk(self) -> Iterator[Lift]:
        """Let no file of this process grow over the room, as a quota does."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, limits[1]))
            yield stack.close

    def tear(self, groups: int) -> None:
        """Cut the write-ahead log behind the commit before so many last groups."""
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
        """Count the groups in the database with a shorter log."""
        copy = self._parent / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        shutil.copy(self._folder / "journal.db", copy)
        (copy / "journal.db-wal").write_bytes(wal)
        with closing(sqlite3.connect(copy / "journal.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM groups").fetchone()[0])

    def lose_state(self) -> None:
        """Write over it."""
        with closing(sqlite3.connect(self._folder / "journal.db")) as connection, connection:
            connection.execute("UPDATE state SET body = x'00' WHERE body NOT NULL")

    def lose_mark(self) -> None:
        """Delete its file."""
        (self._folder / "journal.mark").unlink()


@dataclass
class _Process:
    is_dead: bool = False


class MemoryDisk:
    """A simulated disk, in real time that nobody notices."""

    def __init__(self, random: Random) -> None:
        """Begin with nothing."""
        self._disk = Disk(SystemClock(), random, commit_s=0.0001)
        self._process = _Process()

    def open(self, *, max_bytes: int = MAX_BYTES) -> MemoryFrameLog:
        """Open the log in a new process."""
        log = self._disk.open(process := _Process(), max_bytes=max_bytes)
        self._process = process
        return log

    async def die(self, log: OpenedLog) -> None:
        """End the process."""
        self._process.is_dead = True

    async def kill_appending(self, appends: int, random: Random) -> int:
        """Kill a task."""
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
    def full_disk(self) -> Iterator[Lift]:
        """Refuse all writes."""

        def lift() -> None:
            self._disk.fail_writes(False)

        self._disk.fail_writes(True)
        try:
            yield lift
        finally:
            lift()

    def tear(self, groups: int) -> None:
        """Cut."""
        self._disk.tear(groups)

    def lose_state(self) -> None:
        """Lose it."""
        self._disk.lose_state()

    def lose_mark(self) -> None:
        """Lose it."""
        self._disk.lose_mark()
