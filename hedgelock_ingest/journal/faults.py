"""What SQLite's errors mean for a journal."""

import sqlite3

from hedgelock_ingest.errors import JournalDamaged, JournalError, JournalWriteFailed

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
# A sector that cannot be read is damage as well: what lies on others can be had.
_UNREADABLE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}


def is_damage(error: sqlite3.Error) -> bool:
    """Tell damage from a disk that is full, a lock, or a mistake of ours."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in _DAMAGE or code in _UNREADABLE


def write_error(error: sqlite3.Error) -> JournalError:
    """Return what a failed write raises; the transaction is rolled back already."""
    if is_damage(error):
        return _damaged(error)
    return JournalWriteFailed(f"the journal's disk refused a write: {error}")


def read_error(error: sqlite3.Error) -> JournalError:
    """Return what a failed read raises."""
    return _damaged(error) if is_damage(error) else JournalError(f"the journal cannot be read: {error}")


def _damaged(error: sqlite3.Error) -> JournalDamaged:
    return JournalDamaged(f"the journal's database is damaged: {error}; restart to recover what can be read")
