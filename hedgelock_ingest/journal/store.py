"""The journal's database as the writer uses it: every call is one short transaction."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

import structlog

from hedgelock_ingest.errors import JournalFull, JournalWriteFailed
from hedgelock_ingest.journal.commit_group import CommitGroup, checksum_of, encode_group
from hedgelock_ingest.journal.disk_room import DiskRoom, size_of
from hedgelock_ingest.journal.files import JournalFiles
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

_TRIM_GROUPS = 256
TRIM_BYTES = 1024 * 1024
_FREE_BYTES_KEPT = 32 * 1024 * 1024
_URGENT_TRIM_BYTES = 64 * 1024 * 1024
_VACUUM_PAGES = 128
# A checkpoint delays commits: by 9 ms on average for 250 pages, by 40 ms for 1,000.
_CHECKPOINT_PAGES = 250
_URGENT_CHECKPOINT_PAGES = 1_000
_READ_LOCK_TIMEOUT_S = 0.05
# SQLite's own wait for readers in other processes: short for what may be done later.
_BUSY_TIMEOUT_MS, _SHORT_BUSY_TIMEOUT_MS = 10_000, 50

log = structlog.get_logger(__name__)

_ADD_DEAD_LETTER = (
    f"{INSERT_DEAD_LETTER} UPDATE SET "
    "attempts = attempts + excluded.attempts, reason = excluded.reason, at_ns = excluded.at_ns"
)


class Store:
    """
    Writes groups, state and dead letters; trims acknowledged groups. Used by one thread at a time.

    Args:
        files: The database and its log.
        read_lock: Held by each reader in this process for the length of one read.
        room: The space of the disk.
        keep_bytes: Acknowledged bytes that are kept while there is room.
    """

    def __init__(self, files: JournalFiles, read_lock: Lock, room: DiskRoom, *, keep_bytes: int) -> None:
        self._connection = connect_writer(files.database)
        self._wal = files.wal
        self._read_lock = read_lock
        self._room = room
        self._keep_bytes = keep_bytes
        self._urgent_pages = min(_URGENT_CHECKPOINT_PAGES, room.rules.log_bytes // PAGE_BYTES)
        self._checkpoint_pages = min(_CHECKPOINT_PAGES, self._urgent_pages // 2)
        self._free_pages_kept = min(_FREE_BYTES_KEPT, room.rules.disk_bytes // 16) // PAGE_BYTES
        self.journal_id: str
        self.journal_id, next_position = self._connection.execute(
            "SELECT journal_id, next_position FROM identity"
        ).fetchone()
        self.state_position, state_bytes = self._row("SELECT position, coalesce(length(body), 0) FROM state") or (0, 0)
        last = self._row("SELECT first, count, bytes_through FROM groups ORDER BY first DESC LIMIT 1")
        first, count, self._bytes_through = last or (1, 0, 0)
        self.last_position: int = max(first + count - 1, self.state_position)
        self._next_position: int = max(self.last_position + 1, next_position)
        self._acknowledged_bytes = self._bytes_through_position(self.state_position)
        self._oldest_bytes_through = self._find_oldest_bytes_through()
        # A killed owner may have left all of the log unmoved.
        self._unchecked_pages = self._unmoved_pages = size_of(files.wal) // PAGE_BYTES
        self._may_shrink = True
        room.fits_state(state_bytes)
        room.hold()

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the groups whose last frame is not acknowledged."""
        return self._bytes_through - self._acknowledged_bytes

    @property
    def group_bytes(self) -> int:
        """The size of a commit from which on later frames go to the next one."""
        return self._room.rules.group_bytes

    def bound_bytes(self, max_bytes: int) -> int:
        """Return how many unacknowledged bytes the disk has room for, at most `max_bytes`; from any thread."""
        return self._room.rules.bound_bytes(
            max_bytes,
            stored_bytes=self._bytes_through - self._oldest_bytes_through,
            free_bytes=self._room.free_bytes,
            reserve_missing_bytes=self._room.missing_bytes,
        )

    def append(self, frames: Sequence[Frame], frame_bytes: int) -> int:
        """
        Write one group durably and return the position of its first frame.

        Raises:
            JournalFull: The disk has no room for it beside the reserve; acknowledged frames have been dropped.
        """
        group = encode_group(frames, self._next_position, self._bytes_through + frame_bytes)
        self._make_room(len(group.body))
        try:
            self._insert(group)
        except JournalWriteFailed:
            # Others may have filled the disk since it was measured.
            self._room.measure()
            self._make_room(len(group.body))
            self._insert(group)
        self._bytes_through = group.bytes_through
        self.last_position = group.last
        self._next_position = group.last + 1
        self._count_pages(len(group.body))
        return group.first

    def _insert(self, group: CommitGroup) -> None:
        # One statement is one transaction. executemany, since execute also fetches the last row's id and releases the
        # interpreter lock once more for it: milliseconds, while the event loop is busy.
        try:
            self._connection.executemany(INSERT_GROUP, (group,))
        except sqlite3.Error as error:
            raise write_error(error) from error

    def save_state(self, position: int, state: bytes) -> None:
        """Replace the state durably; frames up to its position are acknowledged."""
        row = (1, position, checksum_of(state, position), state)
        self._write_with_reserve(lambda: self._write("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", row))
        self.state_position = position
        self._acknowledged_bytes = self._bytes_through_position(position)
        self._count_pages(len(state))
        self._room.fits_state(len(state))
        self._restore_reserve()

    def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Store a record that Kafka refuses permanently; the same record again increments its attempts."""
        row = dead_letter_row(letter)
        self._write_with_reserve(lambda: self._write(_ADD_DEAD_LETTER, row))
        self._count_pages(len(letter.body))

    @property
    def needs_housekeeping(self) -> bool:
        """Whether housekeeping is due when no job waits."""
        return (
            self._unchecked_pages >= self._checkpoint_pages
            or self._overdue_bytes >= self._trim_bytes
            or self._may_shrink
        )

    @property
    def needs_urgent_housekeeping(self) -> bool:
        """Whether housekeeping is due although jobs wait, or the disk fills."""
        return self._unchecked_pages >= self._urgent_pages or self._overdue_bytes >= _URGENT_TRIM_BYTES

    def run_housekeeping(self) -> None:
        """Run one slice of housekeeping: 10 ms, and up to 50 more if a read is in progress while the log is long."""
        self._reclaim_with_reserve(self._run_housekeeping)
        self._restore_reserve()

    def _run_housekeeping(self) -> None:
        if self._unchecked_pages >= self._checkpoint_pages:
            self._checkpoint()
        elif self._overdue_bytes >= self._trim_bytes:
            self._trim(self._history_bytes)
        else:
            self._shrink(self._free_pages_kept)

    def write_refused(self) -> None:
        """Note a refused write: the log needs new disk space, the database may have free pages."""
        self._unchecked_pages = max(self._unchecked_pages, self._urgent_pages)
        self._room.measure()

    def close(self) -> None:
        """Close the database; SQLite moves the write-ahead log into it."""
        self._connection.close()
        self._room.hold()

    def _make_room(self, body_bytes: int) -> None:
        """Give acknowledged frames, free pages and the log back to the disk, as far as a group needs it."""
        while not self._room.has(needed_bytes := self._needed_bytes(body_bytes)):
            is_reclaimed = False
            with suppress(JournalWriteFailed):
                is_reclaimed = self._reclaim_with_reserve(self._reclaim)
            if not is_reclaimed:
                wanted_bytes = needed_bytes + self._room.missing_bytes
                raise JournalFull(
                    f"the journal's disk has {max(self._room.free_bytes, 0)} bytes free, expected {wanted_bytes}; "
                    "lines reopen when Kafka has taken frames or other files are removed"
                )
        self._room.spend(2 * body_bytes)

    def _needed_bytes(self, body_bytes: int) -> int:
        return self._room.rules.needed_bytes(body_bytes, self._unmoved_pages * PAGE_BYTES)

    def _reclaim(self) -> bool:
        """Return a slice of the journal's space to the disk; return whether there was any."""
        before = self._reclaimable
        # The log first: what follows overwrites it instead of extending it.
        self._truncate_log()
        if self._has_history:
            self._trim(self._room.rules.history_bytes(self._keep_bytes, is_pressed=True))
        self._shrink(0)
        self._truncate_log()
        return self._reclaimable != before

    @property
    def _has_history(self) -> bool:
        """Whether there are acknowledged groups besides the last one."""
        return self._oldest_bytes_through < self._acknowledged_bytes

    @property
    def _reclaimable(self) -> tuple[int, ...]:
        (pages,) = self._row("PRAGMA page_count") or (0,)
        return self._oldest_bytes_through, pages, size_of(self._wal)

    def _restore_reserve(self) -> None:
        with suppress(JournalWriteFailed):
            while not self._room.hold() and self._reclaim():
                pass

    def _reclaim_with_reserve[T](self, write: Callable[[], T]) -> T:
        """Write what returns space; without acknowledged frames it cannot pay the reserve back, and goes without it."""
        return self._write_with_reserve(write) if self._has_history else write()

    def _write_with_reserve[T](self, write: Callable[[], T]) -> T:
        """Write; when the disk refuses it, give the reserve up and write again."""
        try:
            return write()
        except JournalWriteFailed:
            if not self._room.release():
                raise
            log.warning("journal_reserve_used")
            return write()

    def _checkpoint(self) -> None:
        """Move the log into the database; the next commit restarts the log if no reader needed its last pages."""
        is_urgent = self._unchecked_pages >= self._urgent_pages
        self._unchecked_pages = 0
        is_long = self._move_log() >= self._urgent_pages
        if not (is_urgent or is_long) or not self._read_lock.acquire(timeout=_READ_LOCK_TIMEOUT_S):
            return
        # Otherwise the log would grow for as long as a catch-up reads without a pause.
        try:
            self._move_log()
        finally:
            self._read_lock.release()

    def _truncate_log(self) -> None:
        """Move the log and return its space to the disk, unless a reader needs it."""
        if not self._read_lock.acquire(timeout=_READ_LOCK_TIMEOUT_S):
            return
        self._connection.execute(f"PRAGMA busy_timeout = {_SHORT_BUSY_TIMEOUT_MS}")
        try:
            self._move_log("TRUNCATE")
            self._unchecked_pages = 0
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            self._read_lock.release()

    def _move_log(self, how: str = "PASSIVE") -> int:
        """Move the pages that no reader needs; return the number of pages in the log, moved or not."""
        _, pages, moved = self._write(f"PRAGMA wal_checkpoint({how})")[0]
        self._unmoved_pages = pages - moved
        return int(pages)

    @property
    def _history_bytes(self) -> int:
        return self._room.rules.history_bytes(self._keep_bytes, is_pressed=False)

    @property
    def _trim_bytes(self) -> int:
        return min(TRIM_BYTES, self._room.rules.group_bytes)

    @property
    def _overdue_bytes(self) -> int:
        """Acknowledged bytes older than the history, counted after the oldest group."""
        return self._acknowledged_bytes - self._history_bytes - self._oldest_bytes_through

    def _trim(self, history_bytes: int) -> None:
        """Delete a slice of the oldest acknowledged groups, but never the last one: the backlog is counted from it."""
        newest = self._acknowledged_bytes - max(history_bytes, 1)
        bound = min(newest, self._oldest_bytes_through + TRIM_BYTES)
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

    def _shrink(self, kept_pages: int) -> None:
        """Return a slice of the free pages above `kept_pages` to the disk."""
        (free,) = self._row("PRAGMA freelist_count") or (0,)
        if free <= kept_pages:
            self._may_shrink = False
            return
        pages = min(_VACUUM_PAGES, self._urgent_pages // 2)
        with self._without_sync():
            self._write(f"PRAGMA incremental_vacuum({pages})")
        self._count_pages(pages * PAGE_BYTES)

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
        pages = 2 + written_bytes // PAGE_BYTES
        self._unchecked_pages += pages
        self._unmoved_pages += pages

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
