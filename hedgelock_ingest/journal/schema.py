"""Tables of a journal's database, and connections to it."""

import sqlite3
from pathlib import Path

from hedgelock_ingest.journal.commit_group import checksum_of
from hedgelock_ingest.translate.record import RefusedRecord

APPLICATION_ID = 0x484C4A31  # "HLJ1"
SCHEMA_VERSION = 1
PAGE_BYTES = 8192

# Source: SQLite, "Database File Format", section 1.3.
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES, _VERSION_AT, _APPLICATION_ID_AT = 100, 60, 68

# The body is the last column, so that a scan of the others never reads it. `bytes_through` is the running total up to
# and including the group: a backlog is the difference of two rows.
_TABLES = """
CREATE TABLE groups (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    bytes_through INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE identity (id INTEGER PRIMARY KEY, journal_id TEXT NOT NULL, next_position INTEGER NOT NULL);
CREATE TABLE state (id INTEGER PRIMARY KEY, position INTEGER NOT NULL, checksum INTEGER NOT NULL, body BLOB);
CREATE TABLE dead_letters (
    position INTEGER NOT NULL,
    record_index INTEGER NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (position, record_index, topic)
);
"""

INSERT_GROUP = "INSERT INTO groups VALUES (?, ?, ?, ?, ?)"
INSERT_DEAD_LETTER = "INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO "


def create(path: Path, journal_id: str) -> None:
    """Create an empty journal's database at `path`, which must not exist, readable by its user alone."""
    path.touch(mode=0o600, exist_ok=False)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        # Has to be set before the first table: space returns to the disk after a long outage of Kafka.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.executescript(f"BEGIN; {_TABLES} COMMIT;")
        connection.execute("INSERT INTO identity VALUES (1, ?, 1)", (journal_id,))
    finally:
        connection.close()


def dead_letter_row(letter: RefusedRecord) -> tuple[int | str | bytes, ...]:
    """Return a dead letter's values in the order of the columns."""
    checksum = checksum_of(letter.body, letter.position)
    origin = (letter.position, letter.record_index, letter.topic)
    return (*origin, letter.reason, letter.at_ns, letter.attempts, checksum, letter.body)


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the one connection that writes; the caller makes the checkpoints."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    # Debian builds SQLite so that freed pages are overwritten with zeros: trimming would write all bytes again.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def connect_reader(path: Path, *, is_immutable: bool = False) -> sqlite3.Connection:
    """Open a read-only connection; an immutable file has no writer and no write-ahead log."""
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_immutable else ''}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA query_only = ON")
    return connection


def version_of(path: Path) -> int | None:
    """Return the schema version from a database's header; None when it is not the header of a journal."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    if int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4]) != APPLICATION_ID:
        return None
    return int.from_bytes(header[_VERSION_AT : _VERSION_AT + 4])
