"""Recovery of damaged files at opening: every readable frame is kept, and every loss is reported."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgelock_ingest.errors import JournalDamaged, JournalError
from hedgelock_ingest.journal import Journal, LostRange, schema
from hedgelock_ingest.journal.recovery.readable_rows import readable_rows
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.journal.builders import MAX_BYTES, everything, frames, opened

LAST = 600
STATE = 100
LETTER = RefusedRecord(7, 2, "market-trades", "too large", b"body", 1_700_000_000_000_000_000)
BY_POSITION = dict(enumerate(frames(1, LAST), 1))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crashed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """
    Return the journal of a killed process, with frames in the database and in its write-ahead log.

    Groups are of 1 to 40 frames, so that rows stand on one page and on several.
    """
    folder = tmp_path_factory.mktemp("journal")
    sizes = Random(1)
    number = 1

    async def append_to(journal: Journal, last: int) -> None:
        nonlocal number
        while number <= last:
            end = min(number + sizes.choice((1, 2, 40)) - 1, last)
            await journal.append(frames(number, end))
            number = end + 1

    async with opened(folder) as journal:
        await append_to(journal, LAST // 2)
        await journal.save_state(STATE, b"state" * 5_000)
        await journal.add_dead_letter(LETTER)
    async with opened(folder) as journal:
        await append_to(journal, LAST)
        copy = tmp_path_factory.mktemp("crashed")
        shutil.copytree(folder, copy, dirs_exist_ok=True)
    yield copy


async def recovered(crashed: Path, folder: Path, damage: Callable[[Path], None]) -> Journal:
    """Open a damaged copy of the journal."""
    shutil.copytree(crashed, folder, dirs_exist_ok=True)
    damage(folder)
    return Journal.open(folder, max_bytes=MAX_BYTES)


async def assert_every_loss_is_reported(journal: Journal) -> None:
    """Check that frames are unchanged, that losses are reported, and that positions are not reused."""
    found = dict(everything(journal, after=journal.state_position))
    assert found.items() <= BY_POSITION.items()
    assert list(found) == sorted(found)
    missing = {position for position in BY_POSITION if position > journal.state_position} - found.keys()
    named = {
        position
        for lost in journal.recovery.lost
        for position in range(lost.first, (LAST if lost.last is None else lost.last) + 1)
    }
    assert missing == named & BY_POSITION.keys()
    assert not missing or journal.recovery.findings
    first = await journal.append(frames(1, 1))
    assert first > LAST or journal.recovery.new_identity


def overwrite(name: str, at: float, content: bytes) -> Callable[[Path], None]:
    """Overwrite a part of a file, starting at a share of its size."""

    def damage(folder: Path) -> None:
        path = folder / name
        old = path.read_bytes()
        start = int(at * len(old))
        path.write_bytes((old[:start] + content + old[start + len(content) :])[: len(old)])

    return damage


def cut(name: str, at: float) -> Callable[[Path], None]:
    """Truncate a file at a share of its size."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])

    return damage


def delete(*names: str) -> Callable[[Path], None]:
    """Delete files."""

    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


GARBAGE = Random(2).randbytes(20_000)
DAMAGES = {
    "first page zeroed": overwrite("journal.db", 0, bytes(8192)),
    "header garbage": overwrite("journal.db", 0, GARBAGE[:100]),
    "pages of garbage": overwrite("journal.db", 0.5, GARBAGE),
    "one byte wrong": overwrite("journal.db", 0.6, b"\xa5"),
    "all zeros": overwrite("journal.db", 0, bytes(10_000_000)),
    "database cut": cut("journal.db", 0.4),
    "database empty": cut("journal.db", 0),
    "database missing": delete("journal.db"),
    "log cut": cut("journal.db-wal", 0.5),
    "log cut short": cut("journal.db-wal", 0.99),
    "log header garbage": overwrite("journal.db-wal", 0, GARBAGE[:32]),
    "log garbage": overwrite("journal.db-wal", 0.3, GARBAGE),
    "log missing": delete("journal.db-wal"),
    "log and database missing": delete("journal.db", "journal.db-wal"),
}


NOTHING_LOST = ("first page zeroed", "header garbage")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_damaged_journal_opens_and_reports_its_losses(
    crashed: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """After any damage the journal opens, reports what is lost, and keeps its identity."""
    journal = await recovered(crashed, tmp_path, damage)
    try:
        assert journal.recovery.findings
        assert not journal.recovery.new_identity
        assert not journal.ended_cleanly
        await assert_every_loss_is_reported(journal)
    finally:
        await journal.close(clean=True)
    async with opened(tmp_path) as journal:
        assert journal.recovery.is_clean
        assert journal.ended_cleanly


@pytest.mark.parametrize("name", [*list(DAMAGES)[:-1], "nothing else"])
async def test_missing_watermark_is_reported_and_positions_are_never_reused(
    crashed: Path, tmp_path: Path, name: str
) -> None:
    """Frames cut off at the end cannot be detected then, so numbering continues beyond them."""

    def damage_both(folder: Path) -> None:
        if name in DAMAGES:
            DAMAGES[name](folder)
        (folder / "journal.mark").unlink()

    journal = await recovered(crashed, tmp_path, damage_both)
    try:
        assert journal.recovery.new_identity or "journal.mark is missing" in "".join(journal.recovery.findings)
        assert not journal.ended_cleanly
        assert dict(everything(journal)).items() <= BY_POSITION.items()
        first = await journal.append(frames(1, 1))
        assert first > LAST or journal.recovery.new_identity
    finally:
        await journal.close(clean=True)


@pytest.mark.parametrize("name", NOTHING_LOST)
async def test_all_frames_are_recovered_when_only_the_first_page_is_damaged(
    crashed: Path, tmp_path: Path, name: str
) -> None:
    """The write-ahead log holds the first page as well, and SQLite reads it from there."""
    journal = await recovered(crashed, tmp_path, DAMAGES[name])
    try:
        assert journal.recovery.lost == ()
        assert dict(everything(journal)) == BY_POSITION
        assert journal.load_state() == (STATE, b"state" * 5_000)
        assert journal.dead_letters() == [LETTER]
        assert await journal.append(frames(1, 1)) == LAST + 1
    finally:
        await journal.close(clean=True)


async def test_damaged_file_is_kept_as_it_was(crashed: Path, tmp_path: Path) -> None:
    """Other tools may read what recovery could not."""
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    DAMAGES["pages of garbage"](tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("journal.db", "journal.db-wal")]
    async with opened(tmp_path) as journal:
        kept = journal.recovery.kept_as
        assert kept is not None
        assert kept.name.startswith("journal.damaged-2")
        assert [path.read_bytes() for path in (kept, kept.with_name(kept.name + "-wal"))] == before


async def test_position_of_a_lost_state_is_known(crashed: Path, tmp_path: Path) -> None:
    """Frames that Kafka holds are neither reported as lost nor published again."""
    journal = await recovered(crashed, tmp_path, DAMAGES["all zeros"])
    try:
        assert journal.recovery.state_lost
        assert journal.load_state() == (STATE, b"")
        assert journal.recovery.lost[0].first == STATE + 1
    finally:
        await journal.close(clean=True)


@pytest.mark.parametrize("name", ["header garbage", "nothing else"])
async def test_lost_state_differs_from_a_state_that_was_never_saved(crashed: Path, tmp_path: Path, name: str) -> None:
    """Without the watermark its position is unknown, yet records may have been published, however often we start."""

    def damage_both(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "journal.db")) as connection, connection:
            connection.execute("DELETE FROM state")
        if name in DAMAGES:
            DAMAGES[name](folder)
        (folder / "journal.mark").unlink()

    journal = await recovered(crashed, tmp_path, damage_both)
    try:
        assert journal.load_state() == (0, b"")
    finally:
        await journal.close(clean=True)
    async with opened(tmp_path) as journal:
        assert journal.recovery.is_clean
        assert journal.load_state() == (0, b"")


async def test_identity_is_new_when_no_file_holds_the_old_one(crashed: Path, tmp_path: Path) -> None:
    """Positions of the old numbering must not be mistaken for ours."""

    def damage(folder: Path) -> None:
        for name in ("journal.db", "journal.db-wal", "journal.mark"):
            overwrite(name, 0, bytes(10_000_000))(folder)

    journal = await recovered(crashed, tmp_path, damage)
    try:
        assert journal.recovery.new_identity
        assert journal.recovery.lost == (LostRange(1, None),)
        assert await journal.append(frames(1, 1)) == 1
    finally:
        await journal.close(clean=True)


async def test_interrupted_recovery_is_finished(crashed: Path, tmp_path: Path) -> None:
    """A crash between the two renames leaves a complete database that is not in place."""
    shutil.copytree(crashed, tmp_path, dirs_exist_ok=True)
    DAMAGES["first page zeroed"](tmp_path)
    other = tmp_path / "other"
    async with opened(other):
        pass
    (other / "journal.db").rename(tmp_path / "journal.rebuilt")
    (tmp_path / "journal.mark").unlink()
    async with opened(tmp_path) as journal:
        assert "interrupted" in journal.recovery.findings[0]
        assert journal.last_position == 0
        kept = sorted(path.name.rpartition("Z")[2] for path in tmp_path.iterdir() if "damaged" in path.name)  # noqa: ASYNC240
        assert kept == ["", "-shm", "-wal"]


async def test_newer_version_is_left_unchanged(crashed: Path, tmp_path: Path) -> None:
    """A downgrade must not mistake an intact journal for a damaged one."""
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("PRAGMA user_version = 9")
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(JournalDamaged, match="version 9, expected 1"):
        Journal.open(tmp_path, max_bytes=MAX_BYTES)
    assert (tmp_path / "journal.db").read_bytes() == before


async def test_damage_found_while_reading_is_recovered_by_the_next_opening(crashed: Path, tmp_path: Path) -> None:
    """Opening has no time to check a long history; damage in the rest is found when it is read."""
    journal = await recovered(crashed, tmp_path, lambda _: None)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        connection.execute("UPDATE groups SET checksum = checksum + 1 WHERE first = 1")
    with pytest.raises(JournalDamaged, match="positions 1 to"):
        journal.read(0, limit=10)
    await journal.close(clean=True)
    async with opened(tmp_path) as journal:
        assert "positions 1 to" in journal.recovery.findings[0]
        found = dict(everything(journal))
        assert found.items() <= BY_POSITION.items()
        assert found.keys() >= set(range(STATE, LAST + 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["journal.db", "journal.db-wal", "journal.mark"]),
    at=st.floats(0, 1, exclude_max=True),
    size=st.integers(1, 60_000),
    seed=st.integers(0, 1_000),
)
def test_any_damage_in_one_place_is_survived(
    crashed: Path, tmp_path: Path, name: str, at: float, size: int, seed: int
) -> None:
    """Garbage at any place causes no wrong frame, no unreported loss and no reused position."""

    async def scenario(folder: Path) -> None:
        journal = await recovered(crashed, folder, overwrite(name, at, Random(seed).randbytes(size)))
        try:
            await assert_every_loss_is_reported(journal)
        finally:
            await journal.close(clean=True)

    with TemporaryDirectory(dir=tmp_path) as folder:
        asyncio.run(scenario(Path(folder)))


def test_locked_database_is_not_taken_for_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuilt from no rows, the journal would report all its frames as lost, although a retry could read them."""
    connect = sqlite3.connect
    schema.create(tmp_path / "journal.db", "")
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **(kwargs | {"timeout": 0.01})))
    with closing(connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalError, match="locked"):
            list(readable_rows(tmp_path / "journal.db"))
    assert list(readable_rows(tmp_path / "missing.db")) == []
