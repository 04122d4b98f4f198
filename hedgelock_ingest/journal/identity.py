"""Whose records: the id of a journal that someone else may own."""

import sqlite3
from contextlib import closing
from pathlib import Path

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal.schema import connect_reader


def journal_id_of(path: Path) -> str:
    """
    Read the id of a journal: its folder, or a copied file.

    Raises:
        JournalDamaged: It is not a journal, or its id cannot be read.
    """
    try:
        with closing(connect_reader(path / "journal.db" if path.is_dir() else path)) as connection:
            row = connection.execute("SELECT journal_id FROM identity").fetchone()
    except sqlite3.Error as error:
        raise JournalDamaged(f"the journal at {path} cannot be read: {error}") from error
    if row is None:
        raise JournalDamaged(f"the journal at {path} has no id")
    return str(row[0])
