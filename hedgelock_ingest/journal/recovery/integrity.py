"""Integrity check of a journal's database, read-only and bounded in time."""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.commit_group import CommitGroup, checksum_of, decode_group
from hedgelock_ingest.journal.reader import GROUPS_FROM
from hedgelock_ingest.journal.schema import SCHEMA_VERSION, connect_reader, version_of
from hedgelock_ingest.journal.sqlite_errors import is_unreadable, read_error
from hedgelock_ingest.journal.watermark import WatermarkFile

# Time for the structure, and again for the unacknowledged frames, newest first. The rest is checked when it is read;
# damage found then makes the next opening check without a bound.
_CHECK_BUDGET_S = 0.2
_STEPS_PER_DEADLINE_CHECK = 1_000
_UNACKNOWLEDGED_GROUPS = f"{GROUPS_FROM} DESC"


class Examination(NamedTuple):
    """`damage` in sentences, empty if the database is usable; `has_watermark` if the watermark file records its end."""

    damage: list[str]
    has_watermark: bool


def examine(path: Path, watermark: WatermarkFile) -> Examination:
    """
    Examine a database for damage.

    Raises:
        JournalDamaged: Another version of this program wrote it; it is left unchanged.
        JournalError: It cannot be opened for a reason other than damage, such as missing rights.
    """
    if not path.exists():
        return Examination(["the database is missing"], watermark.journal_id is not None)
    version = version_of(path)
    if version is None:
        return Examination(["the database does not have the header of a journal"], watermark.journal_id is not None)
    if version != SCHEMA_VERSION:
        raise JournalDamaged(
            f"journal {path} has version {version}, expected {SCHEMA_VERSION}; "
            "open it with the version of hedgelock-ingest that wrote it"
        )
    try:
        with closing(connect_reader(path)) as connection:
            has_watermark = watermark.journal_id is not None and _journal_id(connection) == watermark.journal_id
            return Examination(list(_findings(connection, watermark, has_watermark)), has_watermark)
    except sqlite3.Error as error:
        if is_unreadable(error):
            return Examination([f"the database cannot be read: {error}"], watermark.journal_id is not None)
        raise read_error(error) from error


def _journal_id(connection: sqlite3.Connection) -> str | None:
    (journal_id,) = connection.execute("SELECT journal_id FROM identity").fetchone() or (None,)
    return journal_id


def _findings(connection: sqlite3.Connection, watermark: WatermarkFile, has_watermark: bool) -> Iterator[str]:
    seconds = float("inf") if watermark.suspects_damage else _CHECK_BUDGET_S
    yield from _check_structure(connection, seconds)
    if _journal_id(connection) is None:
        yield "the journal's identity is missing"
    last = connection.execute("SELECT first + count - 1 FROM groups ORDER BY first DESC LIMIT 1").fetchone()
    last_position = (last[0] or 0) if last else 0
    state_position = yield from _check_state(connection)
    if has_watermark and watermark.last_position > max(last_position, state_position):
        yield f"the database ends at position {last_position}, but position {watermark.last_position} was durable"
    yield from _check_groups(connection, 0 if watermark.suspects_damage else state_position, seconds)


def _check_structure(connection: sqlite3.Connection, seconds: float) -> Iterator[str]:
    deadline = monotonic() + seconds
    connection.set_progress_handler(lambda: monotonic() > deadline, _STEPS_PER_DEADLINE_CHECK)
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        answer = "ok"
    finally:
        connection.set_progress_handler(None, 0)
    if answer != "ok":
        yield f"the database's structure is damaged: {answer}"


def _check_state(connection: sqlite3.Connection) -> Generator[str, None, int]:
    row = connection.execute("SELECT position, checksum, body FROM state").fetchone()
    if row is None:
        return 0
    position, checksum, body = row
    if not isinstance(position, int):
        yield "the position of the state cannot be read"
        return 0
    if body is not None and (not isinstance(body, bytes) or checksum_of(body, position) != checksum):
        yield f"the state of position {position} does not match its checksum"
    return position


def _check_groups(connection: sqlite3.Connection, after: int, seconds: float) -> Iterator[str]:
    deadline = monotonic() + seconds
    # The last acknowledged group as well: the backlog is counted from it.
    for row in connection.execute(_UNACKNOWLEDGED_GROUPS, {"start": after}):
        try:
            decode_group(CommitGroup(*row))
        except JournalDamaged as error:
            yield str(error)
        if monotonic() > deadline:
            return
