"""Rebuilding of a journal's database from the readable rows of a damaged one."""

import sqlite3
from contextlib import closing

from hedgelock_ingest.errors import JournalWriteFailed
from hedgelock_ingest.journal import schema
from hedgelock_ingest.journal.commit_group import CommitGroup
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.recovery.readable_rows import readable_rows
from hedgelock_ingest.journal.recovery.rebuilt_content import (
    IdentityRow,
    RebuiltContent,
    StateRow,
    after_unknown_end,
    decide_content,
)
from hedgelock_ingest.journal.schema import INSERT_DEAD_LETTER, dead_letter_row
from hedgelock_ingest.journal.watermark import WatermarkFile
from hedgelock_ingest.translate.record import RefusedRecord

# Of two rows of one dead letter, the older one has fewer attempts.
_KEEP_DEAD_LETTER = (
    f"{INSERT_DEAD_LETTER} UPDATE SET reason = excluded.reason, at_ns = excluded.at_ns, attempts = excluded.attempts "
    "WHERE excluded.attempts > attempts"
)
_LAST_POSITION = (
    "SELECT max(coalesce((SELECT max(position) FROM state), 0), "
    "coalesce((SELECT first + count - 1 FROM groups ORDER BY first DESC LIMIT 1), 0))"
)


def rebuild(files: JournalFiles, watermark: WatermarkFile) -> RebuiltContent:
    """
    Write `files.unfinished` from every readable row of the damaged database, which stays unchanged.

    Raises:
        JournalWriteFailed: There is no room for a second database; free some and open the journal again.
    """
    try:
        schema.create(files.unfinished, "")
        with closing(schema.connect_writer(files.unfinished)) as connection:
            # It is not read before it is complete: no log, no sync until then.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            rebuilt = _Rebuild(connection, watermark).run(files)
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
            return rebuilt
    except sqlite3.Error as error:
        raise JournalWriteFailed(f"a damaged journal in {files.directory} cannot be rebuilt: {error}") from error


def skip_positions_of_lost_end(files: JournalFiles) -> None:
    """Move the next position of an intact database beyond a possibly lost end; store a first state if none exists."""
    with closing(schema.connect_writer(files.database)) as connection:
        connection.execute("INSERT OR IGNORE INTO state VALUES (1, 0, 0, NULL)")
        (last,) = connection.execute(_LAST_POSITION).fetchone()
        (next_position,) = connection.execute("SELECT next_position FROM identity").fetchone()
        connection.execute("UPDATE identity SET next_position = ?", (after_unknown_end(last, next_position),))


class _Rebuild:
    """One rebuild: insert the rows found in any order, then decide the content."""

    def __init__(self, connection: sqlite3.Connection, watermark: WatermarkFile) -> None:
        self._connection = connection
        self._watermark = watermark
        self._state: StateRow | None = None
        self._identity: IdentityRow | None = None

    def run(self, files: JournalFiles) -> RebuiltContent:
        self._insert_all(files)
        groups = self._connection.execute("SELECT first, count FROM groups ORDER BY first").fetchall()
        rebuilt = decide_content(groups, self._state, self._identity, self._watermark)
        state = rebuilt.state
        row = (state.position, state.checksum, state.body)
        self._connection.execute("INSERT INTO state VALUES (1, ?, ?, ?)", row)
        self._connection.execute(
            "UPDATE identity SET journal_id = ?, next_position = ?", (rebuilt.journal_id, rebuilt.next_position)
        )
        return rebuilt

    def _insert_all(self, files: JournalFiles) -> None:
        for found in readable_rows(files.database):
            match found:
                case CommitGroup():
                    self._connection.execute("INSERT OR IGNORE INTO groups VALUES (?, ?, ?, ?, ?)", found)
                case RefusedRecord():
                    self._connection.execute(_KEEP_DEAD_LETTER, dead_letter_row(found))
                case StateRow() if self._state is None or found.position > self._state.position:
                    self._state = found
                case IdentityRow() if self._identity is None:
                    self._identity = found
