"""Reader of a journal's rows, each verified by its checksum."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Lock
from typing import Any

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.commit_group import CommitGroup, checksum_of, decode_group
from hedgelock_ingest.journal.sqlite_errors import read_error
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

GROUPS_FROM = """
SELECT * FROM groups
WHERE first >= coalesce((SELECT max(first) FROM groups WHERE first <= :start), :start) ORDER BY first"""

_DEAD_LETTERS = """
SELECT checksum, position, body, record_index, topic, reason, at_ns, attempts FROM dead_letters
ORDER BY position, record_index, topic"""


class Reader:
    """
    A read-only connection, usable from any thread.

    Args:
        connection: Closed by `close`.
        read_lock: Held during each read, so that the writer can wait until no read is in progress.
    """

    def __init__(self, connection: sqlite3.Connection, read_lock: Lock) -> None:
        self._connection = connection
        self._read_lock = read_lock

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """
        Return up to `limit` frames that follow position `after`, in order.

        Raises:
            JournalDamaged: The next frames cannot be read.
        """
        found: list[tuple[int, Frame]] = []
        with self._cursor() as cursor:
            for row in cursor.execute(GROUPS_FROM, {"start": after + 1}):
                group = CommitGroup(*row)
                try:
                    frames = decode_group(group)
                except JournalDamaged:
                    if found:
                        break
                    raise
                skipped = max(0, after + 1 - group.first)
                found.extend(enumerate(frames[skipped:], group.first + skipped))
                if len(found) >= limit:
                    break
        return found[:limit]

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the saved state's position and the state; None when none was ever saved, empty when it is lost."""
        with self._cursor() as cursor:
            row = cursor.execute("SELECT position, checksum, body FROM state").fetchone()
        if row is None:
            return 0, None
        position, checksum, state = row
        is_intact = state is not None and checksum_of(state, position) == checksum
        return position, state if is_intact else b""

    def dead_letters(self) -> list[RefusedRecord]:
        """Return the records that Kafka refuses permanently, by position."""
        with self._cursor() as cursor:
            rows = cursor.execute(_DEAD_LETTERS).fetchall()
        return [_dead_letter(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        with self._read_lock:
            self._connection.close()

    @contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        # An open cursor would hold its snapshot, and the write-ahead log could not restart.
        try:
            with self._read_lock, closing(self._connection.cursor()) as cursor:
                yield cursor
        except sqlite3.Error as error:
            raise read_error(error) from error


def _dead_letter(checksum: int, position: int, body: bytes, *others: Any) -> RefusedRecord:
    """Return the record, damaged or not: no other copy exists."""
    record_index, topic, reason, at_ns, attempts = others
    if checksum_of(body, position) != checksum:
        reason += " (the stored bytes are damaged)"
    return RefusedRecord(position, record_index, topic, reason, body, at_ns, attempts)
