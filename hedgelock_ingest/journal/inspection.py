"""Inspection of a journal that another process owns, or of a copy, without changing it."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.reader import Reader
from hedgelock_ingest.journal.results import SavedState
from hedgelock_ingest.journal.schema import SCHEMA_VERSION, connect_reader, version_of
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

_FRAMES_PER_READ = 10_000


def open_copy(path: Path) -> Iterator[tuple[int, Frame]]:
    """
    Yield all frames of a journal with their positions, the oldest first, without owning or changing it.

    Args:
        path: A journal's folder, in use or not, or a copied database; its `-wal` file beside it is read as well.

    Raises:
        JournalDamaged: It is not a journal, has another version, or frames in it cannot be read.
    """
    database = _database_at(path)
    with _reading(database) as reader:
        after = 0
        while frames := reader.read(after, limit=_FRAMES_PER_READ):
            yield from frames
            after = frames[-1][0]


def dead_letters_in(path: Path) -> list[RefusedRecord]:
    """
    Return the records that Kafka refuses permanently, from a journal's folder, in use or not, or a copied database.

    Raises:
        JournalDamaged: It is not a journal, has another version, or cannot be read.
    """
    with _reading(_database_at(path)) as reader:
        return reader.dead_letters()


def saved_state_in(path: Path) -> SavedState:
    """
    Return the state that the owner saved last, from a journal's folder, in use or not, or a copied database.

    Raises:
        JournalDamaged: It is not a journal, has another version, or cannot be read.
    """
    with _reading(_database_at(path)) as reader:
        position, state = reader.load_state()
        frames = reader.read(position, limit=1)
    return SavedState(position, state, frames[0][1] if frames else None)


def journal_id_of(path: Path) -> str:
    """
    Return the id of a journal: its folder, in use or not, or a copied database.

    Raises:
        JournalDamaged: It is not a journal, has another version, or its id cannot be read.
    """
    with _connection(_database_at(path)) as connection:
        try:
            row = connection.execute("SELECT journal_id FROM identity").fetchone()
        except sqlite3.Error as error:
            raise JournalDamaged(f"the journal at {path} cannot be read: {error}") from error
    if row is None:
        raise JournalDamaged(f"the journal at {path} has no id")
    return str(row[0])


def _database_at(path: Path) -> Path:
    database = JournalFiles(path).database if path.is_dir() else path
    if not database.exists():
        raise JournalDamaged(f"there is no journal at {path}, expected a folder with journal.db, or a database file")
    version = version_of(database)
    if version is None:
        raise JournalDamaged(f"{database} is not a journal, or its first page is damaged")
    if version != SCHEMA_VERSION:
        raise JournalDamaged(f"journal {database} has version {version}, expected {SCHEMA_VERSION}")
    return database


@contextmanager
def _reading(database: Path) -> Iterator[Reader]:
    with _connection(database) as connection:
        yield Reader(connection, Lock())


@contextmanager
def _connection(database: Path) -> Iterator[sqlite3.Connection]:
    wal, index = (database.with_name(database.name + suffix) for suffix in ("-wal", "-shm"))
    with ExitStack() as stack:
        if index.exists():
            # In use, or left by a crash: SQLite coordinates with the owner through this index.
            connection = connect_reader(database)
        elif not wal.exists() or not wal.stat().st_size:
            connection = connect_reader(database, is_immutable=True)
        else:
            # To read the write-ahead log, SQLite would create an index beside it.
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="hedgelock-journal-")))
            for source, name in ((database, "journal.db"), (wal, "journal.db-wal")):
                _link_or_copy(source.resolve(), folder / name)
            connection = connect_reader(folder / "journal.db")
        yield stack.enter_context(closing(connection))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
