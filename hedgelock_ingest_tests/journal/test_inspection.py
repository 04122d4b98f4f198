"""Inspection of a journal that another process owns."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hedgelock_ingest.errors import JournalDamaged
from hedgelock_ingest.journal import SavedState, dead_letters_in, journal_id_of, open_copy, saved_state_in
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.journal.builders import frames, opened

LETTER = RefusedRecord(7, 2, "market-trades", "too large", b"body", 1_700_000_000_000_000_000)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file with its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_journal_in_use_is_read_while_it_grows(tmp_path: Path) -> None:
    """Replay neither stops the stream nor waits for it to end."""
    async with opened(tmp_path) as journal:
        await journal.append(frames(1, 10))
        await journal.add_dead_letter(LETTER)
        replay = open_copy(tmp_path)
        assert next(replay) == (1, frames(1, 1)[0])
        await journal.append(frames(11, 20))
        assert list(replay)[:9] == list(enumerate(frames(2, 10), 2))
        assert list(open_copy(tmp_path)) == list(enumerate(frames(1, 20), 1))
        assert dead_letters_in(tmp_path) == [LETTER]
        assert journal_id_of(tmp_path) == journal.journal_id


async def test_state_of_a_journal_in_use_is_read_with_the_frame_behind_it(tmp_path: Path) -> None:
    """A backfill reads the progress of the stream while it runs."""
    async with opened(tmp_path) as journal:
        assert saved_state_in(tmp_path) == SavedState(0, None, None)
        await journal.append(frames(1, 10))
        assert saved_state_in(tmp_path) == SavedState(0, None, frames(1, 1)[0])
        await journal.save_state(7, b"state")
        assert saved_state_in(tmp_path) == SavedState(7, b"state", frames(8, 8)[0])
        await journal.save_state(10, b"later")
    assert saved_state_in(tmp_path) == SavedState(10, b"later", None)


@pytest.mark.parametrize("without", [[], ["journal.db-shm"], ["journal.lock", "journal.mark", "journal.db-shm"]])
async def test_copy_of_a_folder_in_use_is_read_with_its_log(tmp_path: Path, without: list[str]) -> None:
    """All frames in a plain copy of the files are read, and the copy stays unchanged."""
    copy = tmp_path / "copy"
    async with opened(tmp_path / "live") as journal:
        await journal.append(frames(1, 10))
        shutil.copytree(tmp_path / "live", copy)
    for name in without:
        (copy / name).unlink()
    before = contents(copy)
    assert list(open_copy(copy)) == list(enumerate(frames(1, 10), 1))
    after = contents(copy)
    for files in (before, after):
        files.pop("journal.db-shm", None)  # SQLite's index of the log, which each reader may recreate
    assert after == before


async def test_closed_journal_or_its_database_alone_is_read(tmp_path: Path) -> None:
    """A folder, or its database file alone."""
    async with opened(tmp_path) as journal:
        await journal.append(frames(1, 10))
    before = contents(tmp_path)
    assert list(open_copy(tmp_path)) == list(enumerate(frames(1, 10), 1))
    assert list(open_copy(tmp_path / "journal.db")) == list(enumerate(frames(1, 10), 1))
    assert contents(tmp_path) == before


def overwrite(path: Path) -> None:
    """Replace the content by other data."""
    path.write_bytes(b"frames" * 1_000)


def make_newer(path: Path) -> None:
    """Set the version of a later program."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Path.unlink, "there is no journal at"),
        (overwrite, "is not a journal"),
        (make_newer, "has version 9, expected 1"),
    ],
)
@pytest.mark.parametrize("read", [lambda path: list(open_copy(path)), dead_letters_in, journal_id_of])
async def test_file_that_is_not_a_journal_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[Path], None], message: str, read: Callable[[Path], object]
) -> None:
    """An operator reads what the file is, not SQLite's message."""
    async with opened(tmp_path):
        pass
    change(tmp_path / "journal.db")
    with pytest.raises(JournalDamaged, match=message):
        read(tmp_path)


async def test_damaged_frame_in_a_copy_is_never_returned(tmp_path: Path) -> None:
    """Frames that do not match their checksum are refused, with their positions."""
    async with opened(tmp_path) as journal:
        await journal.append(frames(1, 10))
        await journal.append(frames(11, 20))
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        connection.execute("UPDATE groups SET checksum = checksum + 1 WHERE first = 11")
    replay = open_copy(tmp_path)
    assert [next(replay)[0] for _ in range(10)] == list(range(1, 11))
    with pytest.raises(JournalDamaged, match="positions 11 to 20"):
        next(replay)
