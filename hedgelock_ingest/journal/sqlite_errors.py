"""Translation of SQLite's errors into journal errors."""

import sqlite3
from typing import Any

from hedgelock_ingest.errors import JournalDamaged, JournalError, JournalWriteFailed

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
# An unreadable sector is damage as well: rebuilding recovers what lies on the others.
_UNREADABLE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}

# A reader writes as well: shared memory beside the database.
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP}

# The end of the disk, or of a quota, which SQLite reports as an input/output error.
_MAY_BE_FULL = _NO_ROOM | {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE}


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means damage, not a full disk, a lock, or a bug."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in _DAMAGE or code in _UNREADABLE


def is_unreadable(error: sqlite3.Error) -> bool:
    """Return whether an error means damage, or a missing table, which SQLite reports as an error in the statement."""
    return is_damage(error) or getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR


def execute(connection: sqlite3.Connection, statement: str, values: tuple[int | str | bytes, ...] = ()) -> list[Any]:
    """
    Execute a statement and return all its rows.

    Raises:
        JournalError: Of `write_error`.
    """
    try:
        # Fetch all rows: each row of incremental_vacuum moves one page.
        return connection.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        raise write_error(error) from error


def write_error(error: sqlite3.Error) -> JournalError:
    """Return the error of a failed write; the transaction is already rolled back."""
    if is_damage(error):
        return _damaged(error)
    return JournalWriteFailed(f"the journal's disk refused a write: {error}")


def may_be_full(error: JournalWriteFailed) -> bool:
    """Return whether a refused write may mean a full disk or quota; not a lock, and not a read-only disk."""
    return getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_OK) in _MAY_BE_FULL


def read_error(error: sqlite3.Error) -> JournalError:
    """Return the error of a failed read."""
    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) in _NO_ROOM:
        return write_error(error)
    return _damaged(error) if is_damage(error) else JournalError(f"the journal cannot be read: {error}")


def _damaged(error: sqlite3.Error) -> JournalDamaged:
    return JournalDamaged(f"the journal's database is damaged: {error}; restart to recover what can be read")
