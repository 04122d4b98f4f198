"""Exclusive ownership of a journal: a file lock that the system releases when its process ends."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from hedgelock_ingest.errors import JournalLocked
from hedgelock_ingest.journal.files import JournalFiles

_OWNER_BYTES = 20


class JournalLock:
    """The lock on a journal's folder; the file holds the id of the owning process."""

    def __init__(self, path: Path) -> None:
        """
        Take the lock.

        Raises:
            JournalLocked: Another process, or another journal in this one, holds it.
        """
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner_in(self._descriptor)
            os.close(self._descriptor)
            raise locked_by(path.parent, owner) from error
        # A full disk does not matter: the lock holds without the process id.
        with suppress(OSError):
            os.pwrite(self._descriptor, f"{os.getpid():<{_OWNER_BYTES - 1}}\n".encode(), 0)

    @property
    def is_held(self) -> bool:
        """Whether the locked file is still at its path; false after the folder was replaced."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def owner_of(directory: Path) -> int | None:
    """Return the id of the process that owns the journal in `directory`, 0 if it is unknown; None without an owner."""
    try:
        descriptor = os.open(JournalFiles(directory).lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two concurrent callers do not mistake each other for an owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner_in(descriptor)
        return int(owner) if owner.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


def locked_by(directory: Path, owner: object) -> JournalLocked:
    """Return the error for a journal that another process owns."""
    return JournalLocked(
        f"journal {directory} is owned by process {owner} ({JournalFiles(directory).lock}); "
        "stop it, or give this shard another folder"
    )


def _owner_in(descriptor: int) -> str:
    return os.pread(descriptor, _OWNER_BYTES, 0).decode(errors="replace").strip() or "unknown"
