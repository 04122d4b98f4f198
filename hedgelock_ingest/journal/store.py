"""The journal's database as the writer uses it: every call is one short transaction."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

from hedgelock_ingest.errors import JournalFull, JournalWriteFailed
from hedgelock_ingest.journal.commit_group import CommitGroup, checksum_of, encode_group
from hedgelock_ingest.journal.disk_room import DiskRoom
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.schema import (
    INSERT_DEAD_LETTER,
    INSERT_GROUP,
    PAGE_BYTES,
    connect_writer,
    dead_letter_row,
)
from hedgelock_ingest.journal.sqlite_errors import execute, may_be_full, write_error
from hedgelock_ingest.journal.write_ahead_log import WriteAheadLog
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

_TRIM_GROUPS = 256
TRIM_BYTES = 1024 * 1024
_FREE_BYTES_KEPT = 32 * 1024 * 1024
_URGENT_TRIM_BYTES = 64 * 1024 * 1024
_VACUUM_PAGES = 128

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
        self._log = WriteAheadLog(self._connection, files.wal, read_lock, room)
        self._room = room
        self._keep_bytes = keep_bytes
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
        self._insert_with_room(group)
        self._bytes_through = group.bytes_through
        self.last_position = group.last
        self._next_position = group.last + 1
        self._log.count(len(group.body))
        return group.first

    def _insert_with_room(self, group: CommitGroup) -> None:
        self._make_room(len(group.body))
        is_repeated = False
        while True:
            try:
                self._insert(group)
                break
            except JournalWriteFailed as error:
                # Others may have filled the disk since it was measured; a quota is not measured at all.
                self._room.measure()
                stored = self._stored
                is_reclaimed = may_be_full(error) and self._try_to_reclaim()
                self._make_room(len(group.body))
                # The log alone is a reason for one more attempt only: a refused one extends it again.
                if not is_reclaimed or (is_repeated and self._stored == stored):
                    raise
                is_repeated = True

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
        self._write_with_reserve(lambda: self._execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", row))
        self.state_position = position
        self._acknowledged_bytes = self._bytes_through_position(position)
        self._log.count(len(state))
        self._room.fits_state(len(state))
        self._restore_reserve()

    def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Store a record that Kafka refuses permanently; the same record again increments its attempts."""
        row = dead_letter_row(letter)
        self._write_with_reserve(lambda: self._execute(_ADD_DEAD_LETTER, row))
        self._log.count(len(letter.body))

    @property
    def needs_housekeeping(self) -> bool:
        """Whether housekeeping is due when no job waits."""
        return self._log.is_due or self._overdue_bytes >= self._trim_bytes or self._may_shrink

    @property
    def needs_urgent_housekeeping(self) -> bool:
        """Whether housekeeping is due although jobs wait, or the disk fills."""
        return self._log.is_urgent or self._overdue_bytes >= _URGENT_TRIM_BYTES

    def run_housekeeping(self) -> None:
        """Run one slice of housekeeping: 10 ms, and up to 50 more if a read is in progress while the log is long."""
        # Without the reserve, which others may take the moment that it is given up: this can wait.
        self._run_housekeeping()
        self._restore_reserve()

    def _run_housekeeping(self) -> None:
        if self._log.is_due:
            self._log.move()
        elif self._overdue_bytes >= self._trim_bytes:
            self._trim(self._history_bytes)
        else:
            self._shrink(min(_FREE_BYTES_KEPT, self._room.rules.disk_bytes // 16) // PAGE_BYTES)

    def write_refused(self) -> None:
        """Note a refused write, so that housekeeping is urgent."""
        self._log.note_refusal()
        self._room.measure()

    def close(self) -> None:
        """Close the database; SQLite moves the write-ahead log into it."""
        self._connection.close()
        self._room.hold()

    def _make_room(self, body_bytes: int) -> None:
        """Give acknowledged frames, free pages and the log back to the disk, as far as a group needs it."""
        while not self._room.has(needed_bytes := self._needed_bytes(body_bytes)):
            if not self._try_to_reclaim() and not (self._log.unmoved_bytes == 0 and self._room.adapt()):
                raise JournalFull(self._lack_of_room(needed_bytes + self._room.missing_bytes))
        self._room.spend(2 * body_bytes)

    def _lack_of_room(self, wanted_bytes: int) -> str:
        free_bytes = max(self._room.free_bytes, 0)
        found = f"the journal's disk has {free_bytes} bytes free, expected {wanted_bytes}"
        if free_bytes >= wanted_bytes:
            found = f"the journal's disk refuses {wanted_bytes} bytes although {free_bytes} are free, as a quota does"
        return f"{found}; lines reopen when Kafka has taken frames or other files are removed"

    def _needed_bytes(self, body_bytes: int) -> int:
        return self._room.rules.needed_bytes(body_bytes, self._log.unmoved_bytes)

    def _try_to_reclaim(self) -> bool:
        with suppress(JournalWriteFailed):
            return self._reclaim_with_reserve(self._reclaim)
        return False

    def _reclaim(self) -> bool:
        """Return a slice of the journal's space to the disk; return whether there was any."""
        before = self._reclaimable
        # The log first: what follows overwrites it instead of extending it.
        self._log.truncate()
        if self._has_history:
            self._trim(self._room.rules.history_bytes(self._keep_bytes, is_pressed=True))
        self._shrink(0)
        self._log.truncate()
        return self._reclaimable != before

    @property
    def _has_history(self) -> bool:
        """Whether there are acknowledged groups besides the last one."""
        return self._oldest_bytes_through < self._acknowledged_bytes

    @property
    def _reclaimable(self) -> tuple[int, ...]:
        return *self._stored, self._log.used_bytes

    @property
    def _stored(self) -> tuple[int, int]:
        (pages,) = self._row("PRAGMA page_count") or (0,)
        return self._oldest_bytes_through, pages

    def _restore_reserve(self) -> None:
        with suppress(JournalWriteFailed):
            while not self._room.hold() and self._reclaim():
                pass

    def _reclaim_with_reserve[T](self, write: Callable[[], T]) -> T:
        """Write what returns space; where that would not pay the reserve back, go without it."""
        pays_back = self._has_history or self._free_pages * PAGE_BYTES > self._room.rules.least_reserve_bytes
        return self._write_with_reserve(write) if pays_back else write()

    @property
    def _free_pages(self) -> int:
        (free,) = self._row("PRAGMA freelist_count") or (0,)
        return free

    def _write_with_reserve[T](self, write: Callable[[], T]) -> T:
        """Write; when the disk refuses it, give the reserve up and write again."""
        try:
            return write()
        except JournalWriteFailed as error:
            if not may_be_full(error) or not self._room.release():
                raise
            return write()

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
        ((groups, last),) = self._execute(
            "SELECT count(*), max(first) FROM (SELECT first, bytes_through FROM groups ORDER BY first LIMIT ?) "
            "WHERE bytes_through <= ?",
            (_TRIM_GROUPS, bound),
        )
        with self._without_sync():
            self._execute("DELETE FROM groups WHERE first <= ? AND first + count <= ?", (last, self.state_position + 1))
        self._oldest_bytes_through = self._find_oldest_bytes_through()
        self._may_shrink = True
        self._log.count(groups * PAGE_BYTES)

    def _shrink(self, kept_pages: int) -> None:
        """Return a slice of the free pages above `kept_pages` to the disk."""
        if self._free_pages <= kept_pages:
            self._may_shrink = False
            return
        pages = min(_VACUUM_PAGES, self._log.urgent_pages // 2)
        with self._without_sync():
            self._execute(f"PRAGMA incremental_vacuum({pages})")
        self._log.count(pages * PAGE_BYTES)

    def _execute(self, statement: str, values: tuple[int | str | bytes, ...] = ()) -> list[Any]:
        return execute(self._connection, statement, values)

    def _find_oldest_bytes_through(self) -> int:
        row = self._row("SELECT bytes_through FROM groups ORDER BY first LIMIT 1")
        return row[0] if row else 0

    def _bytes_through_position(self, position: int) -> int:
        """Return the running total up to the last group that ends at or before `position`."""
        rows = self._execute(
            "SELECT first, count, bytes_through FROM groups WHERE first <= ? ORDER BY first DESC LIMIT 2", (position,)
        )
        for first, count, total in rows:
            if first + count - 1 <= position:
                return int(total)
        return 0

    def _row(self, statement: str) -> tuple[int, ...] | None:
        rows = self._execute(statement)
        return rows[0] if rows else None

    @contextmanager
    def _without_sync(self) -> Iterator[None]:
        """Commit without sync, for work that may be lost and repeated; the next durable commit syncs it."""
        self._execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._execute("PRAGMA synchronous = FULL")
