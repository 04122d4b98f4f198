"""Files of a journal's folder, and the replacement of a damaged database by a rebuilt one."""

import os
from datetime import UTC, datetime
from pathlib import Path


class JournalFiles:
    """Paths in one journal's folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "journal.db"
        self.wal = directory / "journal.db-wal"
        self.watermark = directory / "journal.mark"
        self.lock = directory / "journal.lock"
        self.reserve = directory / "journal.reserve"
        # Under construction, and complete but not yet in place: a crash leaves at most one of them.
        self.unfinished = directory / "journal.new"
        self.rebuilt = directory / "journal.rebuilt"

    @property
    def own(self) -> list[Path]:
        """The files whose space the journal may use."""
        return [self.database, self.wal, self.reserve]

    def discard_unfinished(self) -> None:
        """Remove the remains of a database under construction."""
        for path in _with_companions(self.unfinished):
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark the database under construction as complete, by renaming it."""
        _sync(self.unfinished)
        self.unfinished.rename(self.rebuilt)
        _sync(self.directory)

    def put_rebuilt_in_place(self) -> Path | None:
        """Replace the database by the rebuilt one; return where the old one is kept, if there was one."""
        kept = self.directory / f"journal.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        # The write-ahead log first: SQLite would apply it to the rebuilt database beside it.
        for path, target in zip(_with_companions(self.database), _with_companions(kept), strict=True):
            if path.exists():
                path.rename(target)
        self.rebuilt.rename(self.database)
        _sync(self.directory)
        return next(filter(Path.exists, reversed(_with_companions(kept))), None)


def _with_companions(database: Path) -> list[Path]:
    return [database.with_name(database.name + suffix) for suffix in ("-wal", "-shm", "")]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
