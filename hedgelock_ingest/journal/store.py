"""The journal's database as the writer uses it: every call is one short transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from hedgelock_ingest.journal.commit_group import checksum_of, encode_group
from hedgelock_ingest.journal.schema import (
    INSERT_DEAD_LETTER,
    INSERT_GROUP,
    PAGE_BYTES,
    connect_writer,
    dead_letter_row,
)
from hedgelock_ingest.journal.sqlite_errors import write_error
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

# Acknowledged frames that are kept for `replay`.
HISTORY_BYTES = 64 * 1024 * 1024

_TRIM_GROUPS = 256
TRIM_BYTES = 1024 * 1024
_FREE_PAGES_KEPT = 32 * 1024 * 1024 // PAGE_BYTES
_URGENT_TRIM_BYTES = 64 * 1024 * 1024
_VACUUM_PAGES = 128
# A checkpoint delays commits: by 9 ms on average for 250 pages, by 40 ms for 1,000.
_CHECKPOINT_PAGES = 250
_URGENT_CHECKPOINT_PAGES = 1_000
_READ_LOCK_TIMEOUT_S = 0.05

_ADD_DEAD_LETTER = (
    f"{INSERT_DEAD_LETTER} UPDATE SET "
    "attempts = attempts + excluded.attempts, reason = excluded.reason, at_ns = excluded.at_ns"
)


class Store:
    """
    Writes groups, state and dead letters; trims acknowledged groups. Used by one thread at a time.

    Args:
        path: The database.
        read_lock: Held by each reader in this process for the length of one read.
    """

    def __init__(self, path: Path, read_lock: Lock) -> None:
        self._connection = connect_writer(path)
        self._read_lock = read_lock
        self.journal_id: str
        self.journal_id, next_position = self._connection.execute(
            "SELECT journal_id, next_position FROM identity"
        ).fetchone()
        self.state_position: int = (self._row("SELECT position FROM state") or (0,))[0]
        last = self._row("SELECT first, count, bytes_through FROM groups ORDER BY first DESC LIMIT 1")
        first, count, self._bytes_through = last or (1, 0, 0)
        self.last_position: int = max(first + count - 1, self.state_position)
        self._next_position: int = max(self.last_position + 1, next_position)
        self._acknowledged_bytes = self._bytes_through_position(self.state_position)
        self._oldest_bytes_through = self._find_oldest_bytes_through()
        self._unchecked_pages = 0
        self._may_shrink = True

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the groups whose last frame is not acknowledged."""
        return self._bytes_through - self._acknowledged_bytes

    def append(self, frames: Sequence[Frame], frame_bytes: int) -> int:
        """Write one group durably and return the position of its first frame."""
        group = encode_group(frames, self._next_position, self._bytes_through + frame_bytes)
        # One statement is one transaction. executemany, since execute also fetches the last row's id and releases the
        # interpreter lock once more for it: milliseconds, while the event loop is busy.
        try:
            self._connection.executemany(INSERT_GROUP, (group,))
        except sqlite3.Error as error:
            raise write_error(error) from error
        self._bytes_through = group.bytes_through
        self.last_position = group.last
        self._next_position = group.last + 1
        self._count_pages(len(group.body))
        return group.first

    def save_state(self, position: int, state: bytes) -> None:
        """Replace the state durably; frames up to its position are acknowledged."""
        row = (1, position, checksum_of(state, position), state)
        self._write("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", row)
        self.state_position = position
        self._acknowledged_bytes = self._bytes_through_position(position)
        self._count_pages(len(state))

    def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Store a record that Kafka refuses permanently; the same record again increments its attempts."""
        self._write(_ADD_DEAD_LETTER, dead_letter_row(letter))
        self._count_pages(len(letter.body))

    @property
    def needs_housekeeping(self) -> bool:
        """Whether housekeeping is due when no job waits."""
        return self._unchecked_pages >= _CHECKPOINT_PAGES or self._overdue_bytes >= TRIM_BYTES or self._may_shrink

    @property
    def needs_urgent_housekeeping(self) -> bool:
        """Whether housekeeping is due although jobs wait, or the disk fills."""
        return self._unchecked_pages >= _URGENT_CHECKPOINT_PAGES or self._overdue_bytes >= _URGENT_TRIM_BYTES

    def run_housekeeping(self) -> None:
        """Run one slice of housekeeping: 10 ms, and up to 50 more if a read is in progress while the log is long."""
        if self._unchecked_pages >= _CHECKPOINT_PAGES:
            self._checkpoint()
        elif self._overdue_bytes >= TRIM_BYTES:
            self._trim()
        else:
            self._shrink()

    def request_checkpoint(self) -> None:
        """Make a checkpoint due: the write-ahead log needs new disk space, the database may have free pages."""
        self._unchecked_pages = max(self._unchecked_pages, _URGENT_CHECKPOINT_PAGES)

    def close(self) -> None:
        """Close the database; SQLite moves the write-ahead log into it."""
        self._connection.close()

    def _checkpoint(self) -> None:
        """Move the log into the database; the next commit restarts the log if no reader needed its last pages."""
        is_urgent = self._unchecked_pages >= _URGENT_CHECKPOINT_PAGES
        self._unchecked_pages = 0
        is_long = self._move_log() >= _URGENT_CHECKPOINT_PAGES
        if not (is_urgent or is_long) or not self._read_lock.acquire(timeout=_READ_LOCK_TIMEOUT_S):
            return
        # Otherwise the log would grow for as long as a catch-up reads without a pause.
        try:
            self._move_log()
        finally:
            self._read_lock.release()

    def _move_log(self) -> int:
        """Move the pages that no reader needs; return the number of pages in the log, moved or not."""
        _, pages, _ = self._write("PRAGMA wal_checkpoint(PASSIVE)")[0]
        return int(pages)

    @property
    def _overdue_bytes(self) -> int:
        """Acknowledged bytes older than the history, counted after the oldest group."""
        return self._acknowledged_bytes - HISTORY_BYTES - self._oldest_bytes_through

    def _trim(self) -> None:
        """Delete a slice of the oldest acknowledged groups."""
        bound = min(self._acknowledged_bytes - HISTORY_BYTES, self._oldest_bytes_through + TRIM_BYTES)
        # One row: each fetch releases the interpreter lock, and waits to get it back while the loop is busy.
        count, last = self._connection.execute(
            "SELECT count(*), max(first) FROM (SELECT first, bytes_through FROM groups ORDER BY first LIMIT ?) "
            "WHERE bytes_through <= ?",
            (_TRIM_GROUPS, bound),
        ).fetchone()
        with self._without_sync():
            self._write("DELETE FROM groups WHERE first <= ? AND first + count <= ?", (last, self.state_position + 1))
        self._oldest_bytes_through = self._find_oldest_bytes_through()
        self._may_shrink = True
        self._count_pages(count * PAGE_BYTES)

    def _shrink(self) -> None:
        """Return a slice of the free pages above `_FREE_PAGES_KEPT` to the disk."""
        (free,) = self._row("PRAGMA freelist_count") or (0,)
        if free <= _FREE_PAGES_KEPT:
            self._may_shrink = False
            return
        with self._without_sync():
            self._write(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        self._count_pages(_VACUUM_PAGES * PAGE_BYTES)

    def _write(self, statement: str, values: tuple[int | str | bytes, ...] = ()) -> list[Any]:
        try:
            # Fetch all rows: each row of incremental_vacuum moves one page.
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise write_error(error) from error

    def _find_oldest_bytes_through(self) -> int:
        row = self._row("SELECT bytes_through FROM groups ORDER BY first LIMIT 1")
        return row[0] if row else 0

    def _bytes_through_position(self, position: int) -> int:
        """Return the running total up to the last group that ends at or before `position`."""
        rows = self._connection.execute(
            "SELECT first, count, bytes_through FROM groups WHERE first <= ? ORDER BY first DESC LIMIT 2", (position,)
        ).fetchall()
        for first, count, total in rows:
            if first + count - 1 <= position:
                return int(total)
        return 0

    def _count_pages(self, written_bytes: int) -> None:
        self._unchecked_pages += 2 + written_bytes // PAGE_BYTES

    def _row(self, statement: str) -> tuple[int, ...] | None:
        row: tuple[int, ...] | None = self._connection.execute(statement).fetchone()
        return row

    @contextmanager
    def _without_sync(self) -> Iterator[None]:
        """Commit without sync, for work that may be lost and repeated; the next durable commit syncs it."""
        self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA synchronous = FULL")
