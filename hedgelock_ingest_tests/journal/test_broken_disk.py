"""The journal on a disk that refuses all writes, or that cannot be measured: every call is refused, none ends it."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from hedgelock_ingest.errors import JournalWriteFailed
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.journal.sqlite_errors import may_be_full
from hedgelock_ingest_tests.journal.builders import MAX_BYTES, a_frame, everything, frames, opened
from hedgelock_ingest_tests.journal.small_disk import may_mount_ext4, mounted_ext4, turn_read_only
from hedgelock_ingest_tests.journal.test_full_disk import limited_files


@pytest.mark.skipif(not may_mount_ext4(), reason="no right to mount an ext4 disk")
async def test_disk_that_turns_read_only_refuses_and_keeps_what_is_durable(tmp_path: Path) -> None:
    """After an error of the disk Linux mounts it read-only: everything can be read, and a retry may succeed later."""
    with mounted_ext4(tmp_path) as disk:
        async with opened(disk.folder) as journal:
            await journal.append(frames(1, 10))
            await journal.save_state(5, b"state")
            bound_bytes = journal.bound_bytes
            turn_read_only(disk)
            for _ in range(2):
                with pytest.raises(JournalWriteFailed):
                    await journal.append([a_frame()])
                with pytest.raises(JournalWriteFailed):
                    await journal.save_state(10, bytes(60_000))
            assert journal.bound_bytes > bound_bytes // 2
            assert journal.load_state() == (5, b"state")
            assert everything(journal) == list(enumerate(frames(1, 10), 1))
        with pytest.raises(JournalWriteFailed, match="cannot be opened"):
            Journal.open(disk.folder, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
async def test_disk_that_cannot_be_measured_counts_as_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Only writes decide whether frames are accepted; the reserve stays when it cannot be removed."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    async with opened(tmp_path) as journal:
        await journal.append([a_frame()])
        bound_bytes = journal.bound_bytes
        for name in ("statvfs", "unlink", "truncate", "posix_fallocate"):
            monkeypatch.setattr(os, name, fail)
        assert await journal.append([a_frame()]) == 2
        with limited_files(tmp_path, 0), pytest.raises(JournalWriteFailed, match="refused a write"):
            await journal.save_state(2, bytes(60_000))
        await journal.save_state(2, bytes(60_000))
        assert await journal.append([a_frame()]) == 3
        assert journal.bound_bytes > bound_bytes // 2


async def test_opening_on_a_disk_that_cannot_be_measured_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one of the journal's, with the disk's own text."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(JournalWriteFailed, match="Input/output error"):
        Journal.open(tmp_path, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("code", "is_expected"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_IOERR_SHMSIZE, True),
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_IOERR_LOCK, False),
    ],
)
def test_reserve_is_given_up_only_for_room(code: int, is_expected: bool) -> None:
    """A lock, or a read-only disk, is not answered by more room."""
    error = JournalWriteFailed("refused")
    error.__cause__ = cause = sqlite3.OperationalError()
    cause.sqlite_errorcode = code
    assert may_be_full(error) is is_expected
