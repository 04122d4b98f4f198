"""The readable rows of a damaged database, each verified by its checksum."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.commit_group import CommitGroup, checksum_of, decode_group
from hedgelock_ingest.journal.recovery.rebuilt_content import IdentityRow, StateRow
from hedgelock_ingest.journal.schema import connect_reader
from hedgelock_ingest.journal.sqlite_errors import is_unreadable, read_error
from hedgelock_ingest.translate.record import RefusedRecord

_GROUPS = "SELECT first, count, bytes_through, checksum, body FROM groups ORDER BY first"
_STATES = "SELECT position, checksum, body FROM state ORDER BY id"
_IDENTITIES = "SELECT journal_id, next_position FROM identity ORDER BY id"
_LETTERS = (
    "SELECT position, record_index, topic, reason, at_ns, attempts, checksum, body FROM dead_letters ORDER BY rowid"
)
_JOURNAL_ID_CHARACTERS = 32

type Readable = CommitGroup | StateRow | IdentityRow | RefusedRecord


def readable_rows(database: Path) -> Iterator[Readable]:
    """
    Yield every row that SQLite can read, from both ends of each table; a row may be yielded twice.

    Args:
        database: May be missing or any file; its write-ahead log beside it is read as well.

    Raises:
        JournalError: It cannot be read for a reason other than damage, such as missing rights or a lock.
    """
    try:
        connection = connect_reader(database)
    except sqlite3.Error as error:
        if is_unreadable(error) or not database.exists():
            return
        raise read_error(error) from error
    with closing(connection):
        for values in _rows(connection, _GROUPS):
            if (group := _group(values)) is not None:
                yield group
        for values in _rows(connection, _STATES):
            match values:
                case (int(position), int(checksum), bytes(body)) if checksum_of(body, position) == checksum:
                    yield StateRow(position, checksum, body)
        for values in _rows(connection, _IDENTITIES):
            match values:
                case (str(journal_id), int(next_position)) if len(journal_id) == _JOURNAL_ID_CHARACTERS:
                    yield IdentityRow(journal_id, next_position)
        for values in _rows(connection, _LETTERS):
            if (letter := _letter(values)) is not None:
                yield letter


def _rows(connection: sqlite3.Connection, select: str) -> Iterator[tuple[Any, ...]]:
    # Damage ends a scan of a table: the rows after it are reached from the other end.
    for direction in ("ASC", "DESC"):
        try:
            yield from connection.execute(f"{select} {direction}")
            return
        except sqlite3.Error as error:
            if not is_unreadable(error):
                raise read_error(error) from error


def _group(values: tuple[Any, ...]) -> CommitGroup | None:
    match values:
        case (int(), int(), int(), int(), bytes()):
            group = CommitGroup(*values)
            try:
                decode_group(group)
            except JournalDamaged:
                return None
            return group
    return None


def _letter(values: tuple[Any, ...]) -> RefusedRecord | None:
    match values:
        case (
            int(position),
            int(index),
            str(topic),
            str(reason),
            int(at_ns),
            int(attempts),
            int(checksum),
            bytes(body),
        ):
            is_intact = checksum_of(body, position) == checksum
            return RefusedRecord(position, index, topic, reason, body, at_ns, attempts) if is_intact else None
    return None
