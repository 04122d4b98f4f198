"""One owner a journal: a lock on a file that dies with its process."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from hedgelock_ingest.errors import JournalLocked
from hedgelock_ingest.journal.files import Files

_NAME_BYTES = 20


class Ownership:
    """The lock on a journal's folder; the file names the process that holds it."""

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
            owner = _name_in(self._descriptor)
            os.close(self._descriptor)
            raise locked_by(path.parent, owner) from error
        # Over the name before it, and no matter if the disk is full: the lock holds without the name.
        with suppress(OSError):
            os.pwrite(self._descriptor, f"{os.getpid():<{_NAME_BYTES - 1}}\n".encode(), 0)

    @property
    def is_held(self) -> bool:
        """Whether the locked file still stands where others look for it; not after the folder was replaced."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Give the journal up."""
        os.close(self._descriptor)


def owner_of(directory: Path) -> int | None:
    """Name the process that holds the journal in `directory`, 0 if it has no name; None if nobody holds it."""
    try:
        descriptor = os.open(Files(directory).lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two who look do not take each other for an owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        name = _name_in(descriptor)
        return int(name) if name.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


def locked_by(directory: Path, owner: object) -> JournalLocked:
    """Return what is raised when another process owns a journal."""
    return JournalLocked(
        f"journal {directory} is owned by process {owner} ({Files(directory).lock}); "
        "stop it, or give this shard another folder"
    )


def _name_in(descriptor: int) -> str:
    return os.pread(descriptor, _NAME_BYTES, 0).decode(errors="replace").strip() or "unknown"
