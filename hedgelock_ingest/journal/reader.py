"""Reading frames back: in catch-up beside the writer, and from a journal that someone else owns."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.groups import checksum_of, decode_group
from hedgelock_ingest.journal.schema import connect_reader
from hedgelock_ingest.journal.values import RefusedRecord
from hedgelock_ingest.protocol.frames import Frame

GROUPS_FROM = """
SELECT first, count, checksum, body FROM groups
WHERE first >= coalesce((SELECT max(first) FROM groups WHERE first <= :start), :start) ORDER BY first"""


class Reader:
    """A connection that only reads; safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self._connection = connect_reader(path)
        self._lock = Lock()

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """
        Return up to `limit` frames that follow position `after`, in order.

        Raises:
            JournalDamaged: The next frames cannot be read.
        """
        found: list[tuple[int, Frame]] = []
        # A cursor left open would hold its snapshot, and the write-ahead log could not start over.
        with self._lock, _read_errors(), closing(self._connection.cursor()) as cursor:
            for first, count, checksum, body in cursor.execute(GROUPS_FROM, {"start": after + 1}):
                try:
                    frames = decode_group(first, count, checksum, body)
                except JournalDamaged:
                    if found:
                        break
                    raise
                skipped = max(0, after + 1 - first)
                found.extend(enumerate(frames[skipped:], first + skipped))
                if len(found) >= limit:
                    break
        return found[:limit]

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the saved state with its position; None as state when it was never saved or is damaged."""
        with self._lock, _read_errors():
            row = self._connection.execute("SELECT position, checksum, body FROM state").fetchone()
        if row is None:
            return 0, None
        position, checksum, state = row
        is_whole = state is not None and checksum_of(state, position) == checksum
        return position, state if is_whole else None

    def dead_letters(self) -> list[RefusedRecord]:
        """Return what no topic took, by position."""
        with self._lock, _read_errors():
            rows = self._connection.execute(
                "SELECT position, record_index, topic, reason, body, at_ns, attempts FROM dead_letters "
                "ORDER BY position, record_index, topic"
            ).fetchall()
        return [RefusedRecord(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise JournalDamaged(f"the journal cannot be read: {error}") from error


def open_copy(path: Path) -> Iterator[tuple[int, Frame]]:
    """
    Read a journal without owning or changing it: a journal's folder, live or not, or a copied file.

    Raises:
        JournalDamaged: It is not a journal of a version that this program knows.
    """
    reader = Reader(path / "journal.db" if path.is_dir() else path)
    try:
        after = 0
        while frames := reader.read(after, limit=10_000):
            yield from frames
            after = frames[-1][0]
    finally:
        reader.close()
