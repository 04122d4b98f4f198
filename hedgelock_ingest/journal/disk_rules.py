"""Rules for the disk of a journal, without I/O: the reserve, the history that stays, and the room that frames need."""

from typing import NamedTuple

from hedgelock_ingest.journal.schema import PAGE_BYTES

KEEP_BYTES = 64 * 1024 * 1024
"""Acknowledged frames that are kept for `replay`, unless the owner asks for another number."""

LEAST_DISK_BYTES = 1024 * 1024
"""Room that a new journal needs for itself and a few frames."""

_LEAST_RESERVE_BYTES = 512 * 1024
_MOST_RESERVE_BYTES = 16 * 1024 * 1024
_RESERVED_STATES = 4
_SLACK_BYTES = 64 * 1024
"""Shared memory of SQLite, the lock and the watermark."""


class DiskRules(NamedTuple):
    """
    Sizes that suit a disk; from 128 MiB on they are the same for every disk.

    `disk_bytes` is what the disk has for the journal: its free bytes, and those of the journal's files.
    """

    disk_bytes: int

    @property
    def least_reserve_bytes(self) -> int:
        """The reserve for a small state."""
        return min(max(self.disk_bytes // 8, _LEAST_RESERVE_BYTES), _MOST_RESERVE_BYTES)

    def reserve_bytes(self, state_bytes: int) -> int:
        """Return the reserve: on a full disk the log must be moved, and a state of this size be saved, with it."""
        return max(self.least_reserve_bytes, _RESERVED_STATES * state_bytes)

    @property
    def log_bytes(self) -> int:
        """The length of the write-ahead log from which on it is moved although frames wait."""
        return self.least_reserve_bytes // 2

    @property
    def group_bytes(self) -> int:
        """The size of a commit from which on later frames go to the next one."""
        return min(1024 * 1024, self.least_reserve_bytes // 4)

    def history_bytes(self, keep_bytes: int, *, is_pressed: bool) -> int:
        """Return the acknowledged bytes that stay: those wanted, a quarter of a small disk, nothing without room."""
        return 0 if is_pressed else min(keep_bytes, self.disk_bytes // 4)

    def needed_bytes(self, frame_bytes: int, unmoved_bytes: int) -> int:
        """
        Return the free bytes without which frames are refused.

        Frames are written to the log, and again when it is moved, as are the bytes that are in the log already.
        """
        pages = 4 + frame_bytes // PAGE_BYTES
        return 2 * pages * PAGE_BYTES + unmoved_bytes + _SLACK_BYTES

    def bound_bytes(self, max_bytes: int, *, stored_bytes: int, free_bytes: int, reserve_missing_bytes: int) -> int:
        """
        Return how many unacknowledged bytes fit, at most `max_bytes`; an estimate.

        Args:
            max_bytes: `JOURNAL_MAX_BYTES`.
            stored_bytes: Frames in the journal; acknowledged ones make room for others.
            free_bytes: Free bytes on the disk.
            reserve_missing_bytes: What has to be allocated for the reserve first.
        """
        room_bytes = max(0, free_bytes - reserve_missing_bytes - self.needed_bytes(0, 0))
        # Half of little room goes to the log, of more room as much as the log has before it is moved.
        log_bytes = min(room_bytes // 2, self.log_bytes + 2 * self.group_bytes)
        return min(max_bytes, stored_bytes + room_bytes - log_bytes)
