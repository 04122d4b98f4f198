"""One owner a journal: a lock on a file that dies with its process."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from hedgelock_ingest.errors import JournalLocked

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
            owner = os.read(self._descriptor, _NAME_BYTES).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise JournalLocked(
                f"journal {path.parent} is owned by process {owner} ({path}); "
                "stop it, or give this shard another folder"
            ) from error
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
