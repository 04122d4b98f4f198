"""The free space of a journal's disk, and a reserve of it that is given up when the disk is full."""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

import structlog

from hedgelock_ingest.journal.disk_rules import DiskRules
from hedgelock_ingest.journal.files import JournalFiles

_MEASURE_EVERY_S = 0.25
_LOG_EVERY_S = 60.0
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# The disk itself is broken or read-only for now: the next write of the journal reports it.
_DISK_REFUSES = {errno.EROFS, errno.EIO}

log = structlog.get_logger(__name__)


class DiskRoom:
    """
    The room of one journal; only its owner may create one.

    The reserve is a file whose blocks are allocated. SQLite cannot even move its log on a full disk; once the file is
    removed, the log can be moved, a state be saved, and acknowledged frames be deleted.
    """

    def __init__(self, files: JournalFiles) -> None:
        """Measure the disk; nothing is written before `hold`."""
        self._files = files
        self.rules = _rules_for(files)
        self._disk_bytes = self.rules.disk_bytes
        self._measured_s = float("-inf")
        self._logged_s = float("-inf")
        self._free_bytes = 0
        self._state_bytes = 0
        self._held_bytes = used_bytes_at(files.reserve)
        self._is_possible = True

    @property
    def free_bytes(self) -> int:
        """Free bytes on the disk besides the reserve, measured at most 0.25 s ago, less what was spent since."""
        if time.monotonic() - self._measured_s >= _MEASURE_EVERY_S:
            self.measure()
        return self._free_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes that the reserve lacks."""
        if not self._is_possible:
            return 0
        return max(0, self._wanted_bytes - self._held_bytes)

    def measure(self) -> None:
        """Measure now; somebody may have removed the reserve. A disk that cannot be measured counts as unchanged."""
        self._held_bytes = used_bytes_at(self._files.reserve)
        with suppress(OSError):
            self._free_bytes = free_bytes_at(self._files.directory)
            self._disk_bytes = self._free_bytes + _own_bytes(self._files)
        self._measured_s = time.monotonic()

    def spend(self, written_bytes: int) -> None:
        """Note bytes written since the last measurement."""
        self._free_bytes -= written_bytes

    def has(self, needed_bytes: int) -> bool:
        """Return whether so many bytes are free beside the reserve, which is allocated if it is missing."""
        if not self.hold():
            return False
        if self.free_bytes < needed_bytes:
            self.measure()
        return self._free_bytes >= needed_bytes

    def fits_state(self, state_bytes: int) -> None:
        """Note the size of the state, for the size of the reserve."""
        self._state_bytes = state_bytes

    def hold(self) -> bool:
        """Allocate what the reserve lacks, or free what it has too much; return whether it lacks nothing."""
        earlier = self.rules
        # Others have left; see `adapt` for the other way round.
        if self._disk_bytes >= 2 * earlier.disk_bytes:
            self.rules = DiskRules(self._disk_bytes)
        if self._hold():
            return True
        if self.rules is earlier:
            return False
        self.rules = earlier
        is_held = self._hold()
        self._disk_bytes = earlier.disk_bytes  # try again after the next measurement
        return is_held

    def _hold(self) -> bool:
        missing_bytes = self.missing_bytes
        if not missing_bytes:
            if self._held_bytes > 2 * self._wanted_bytes:
                self._shrink()
            return True
        self.measure()
        if self._free_bytes < missing_bytes:
            return False
        wanted_bytes = self._held_bytes + missing_bytes
        try:
            self._allocate(wanted_bytes)
        except OSError as error:
            if error.errno in _NO_SPACE:
                self._remove()
                return False
            if error.errno not in _DISK_REFUSES:
                self._do_without(str(error))
        else:
            self.measure()
            if self._held_bytes < wanted_bytes:
                self._do_without(f"its file system shows {self._held_bytes} of {wanted_bytes} bytes as allocated")
        return True

    def _do_without(self, reason: str) -> None:
        # The reserve is for disks that others fill; without it the journal still leaves room for itself.
        self._is_possible = False
        log.warning("journal_reserve_impossible", reason=reason)

    @property
    def _wanted_bytes(self) -> int:
        return self.rules.reserve_bytes(self._state_bytes)

    def _shrink(self) -> None:
        """Free the excess of a reserve of when the disk had more room, or the state was larger."""
        if self._held_bytes > self._wanted_bytes:
            with suppress(OSError):
                os.truncate(self._files.reserve, self._wanted_bytes)
            self.measure()

    def adapt(self) -> bool:
        """
        Follow the rules for the present disk, which others have filled; return whether the reserve gave room.

        The log must have been moved: a log of the larger disk can only be moved with its reserve.
        """
        held_bytes = self._held_bytes
        if self._disk_bytes < self.rules.disk_bytes:
            self.rules = DiskRules(self._disk_bytes)
        self._shrink()
        return self._held_bytes < held_bytes

    def release(self) -> bool:
        """Give the reserve up, and log it at most once a minute; return whether that made room."""
        is_released = self._remove()
        if is_released and time.monotonic() - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = time.monotonic()
            log.warning("journal_reserve_used", free_bytes=self._free_bytes)
        return is_released

    def _remove(self) -> bool:
        had_bytes = used_bytes_at(self._files.reserve)
        try:
            self._files.reserve.unlink(missing_ok=True)
        except OSError:
            return False
        self.measure()
        return had_bytes > 0

    def _allocate(self, size: int) -> None:
        descriptor = os.open(self._files.reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)


def bound_in(directory: Path, *, max_bytes: int) -> int:
    """Return how many unacknowledged bytes a journal in a folder would have room for, if it were opened now."""
    rules = _rules_for(JournalFiles(directory))
    return rules.bound_bytes(
        max_bytes,
        stored_bytes=0,
        free_bytes=rules.disk_bytes,
        reserve_missing_bytes=rules.least_reserve_bytes,
    )


def _rules_for(files: JournalFiles) -> DiskRules:
    return DiskRules(free_bytes_at(files.directory) + _own_bytes(files))


def _own_bytes(files: JournalFiles) -> int:
    return sum(used_bytes_at(path) for path in files.own)


def first_existing(folder: Path) -> Path:
    """Return a folder, or the first existing one above it."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def free_bytes_at(folder: Path) -> int:
    """
    Return the free bytes of the disk of a folder, or of the first existing one above it.

    Raises:
        OSError: The disk cannot be read.
    """
    status = os.statvfs(first_existing(folder))
    return status.f_bavail * status.f_frsize


def used_bytes_at(path: Path) -> int:
    """Return the bytes that a file uses of the disk, 0 if there is none."""
    try:
        # Blocks, not bytes: a file that was not allocated completely holds less.
        return min(path.stat().st_size, path.stat().st_blocks * 512)
    except OSError:
        return 0
