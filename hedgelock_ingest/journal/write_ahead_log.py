"""The write-ahead log of a journal's database: how many of its pages are unmoved, and moving them to the database."""

import sqlite3
from pathlib import Path
from threading import Lock

from hedgelock_ingest.journal.disk_room import DiskRoom, used_bytes_at
from hedgelock_ingest.journal.schema import PAGE_BYTES
from hedgelock_ingest.journal.sqlite_errors import execute

# A checkpoint delays commits: by 9 ms on average for 250 pages, by 40 ms for 1,000.
_CHECKPOINT_PAGES = 250
_URGENT_CHECKPOINT_PAGES = 1_000
_READ_LOCK_TIMEOUT_S = 0.05
# SQLite's own wait for readers in other processes: short for what may be done later.
_BUSY_TIMEOUT_MS, _SHORT_BUSY_TIMEOUT_MS = 10_000, 50


class WriteAheadLog:
    """
    Counts the pages written since the last move, and moves them. Used by one thread at a time.

    Args:
        connection: The one that writes.
        path: The log.
        read_lock: Held by each reader in this process for the length of one read.
        room: The space of the disk; on a small one the log is moved earlier.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, read_lock: Lock, room: DiskRoom) -> None:
        self._connection = connection
        self._path = path
        self._read_lock = read_lock
        self._room = room
        # A killed owner may have left all of the log unmoved.
        self._unchecked_pages = self._unmoved_pages = self.used_bytes // PAGE_BYTES

    @property
    def used_bytes(self) -> int:
        """Bytes of the disk that the log uses, moved or not."""
        return used_bytes_at(self._path)

    @property
    def unmoved_bytes(self) -> int:
        """Bytes that are only in the log."""
        return self._unmoved_pages * PAGE_BYTES

    @property
    def urgent_pages(self) -> int:
        """Pages from which on the log is moved although jobs wait."""
        return min(_URGENT_CHECKPOINT_PAGES, self._room.rules.log_bytes // PAGE_BYTES)

    @property
    def is_due(self) -> bool:
        """Whether it is worth moving when no job waits."""
        return self._unchecked_pages >= min(_CHECKPOINT_PAGES, self.urgent_pages // 2)

    @property
    def is_urgent(self) -> bool:
        """Whether it has to be moved although jobs wait."""
        return self._unchecked_pages >= self.urgent_pages

    def count(self, written_bytes: int) -> None:
        """Count bytes that were committed."""
        pages = 2 + written_bytes // PAGE_BYTES
        self._unchecked_pages += pages
        self._unmoved_pages += pages

    def note_refusal(self) -> None:
        """Make the log urgent after a refused write: it needs new disk space, the database may have free pages."""
        self._unchecked_pages = max(self._unchecked_pages, self.urgent_pages)

    def move(self) -> None:
        """Move the log into the database; the next commit restarts the log if no reader needed its last pages."""
        is_urgent = self.is_urgent
        self._unchecked_pages = 0
        is_long = self._checkpoint("PASSIVE") >= self.urgent_pages
        if not (is_urgent or is_long) or not self._read_lock.acquire(timeout=_READ_LOCK_TIMEOUT_S):
            return
        # Otherwise the log would grow for as long as a catch-up reads without a pause.
        try:
            self._checkpoint("PASSIVE")
        finally:
            self._read_lock.release()

    def truncate(self) -> None:
        """Move the log and return its space to the disk, unless a reader needs it."""
        if not self._read_lock.acquire(timeout=_READ_LOCK_TIMEOUT_S):
            return
        try:
            execute(self._connection, f"PRAGMA busy_timeout = {_SHORT_BUSY_TIMEOUT_MS}")
            self._checkpoint("TRUNCATE")
            self._unchecked_pages = 0
        finally:
            execute(self._connection, f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            self._read_lock.release()

    def _checkpoint(self, how: str) -> int:
        """Move the pages that no reader needs; return the number of pages in the log, moved or not."""
        _, pages, moved = execute(self._connection, f"PRAGMA wal_checkpoint({how})")[0]
        self._unmoved_pages = pages - moved
        return int(pages)
