"""The journal on a disk that refuses writes."""

import asyncio
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hedgelock_ingest.errors import JournalFull, JournalWriteFailed
from hedgelock_ingest.journal import Journal
from hedgelock_ingest_tests.journal.builders import a_frame, everything, frames, opened

ROOM_BYTES = 3 * 1024 * 1024

type EndFault = Callable[[], None]


@contextmanager
def limited_files(_folder: Path, room_bytes: int = ROOM_BYTES) -> Iterator[EndFault]:
    """Limit every file of this process to `room_bytes`, as a quota does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
        yield stack.close


@contextmanager
def full_disk(folder: Path) -> Iterator[EndFault]:
    """Mount a separate disk, almost filled by a file whose removal frees the room."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={10 * ROOM_BYTES},mode=700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(9 * ROOM_BYTES))
        yield ballast.unlink
    finally:
        subprocess.run(["umount", folder], check=True)


def disk_faults() -> list[Callable[[Path], object]]:
    """Return the available faults: mounting needs rights that not every environment gives."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with full_disk(Path(folder)):
                return [limited_files, full_disk]
        except (OSError, subprocess.CalledProcessError):
            return [limited_files]


@pytest.fixture(params=disk_faults(), ids=lambda fault: fault.__name__)
def end_fault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EndFault]:
    """Refuse writes beyond the room, until the returned function is called."""
    with request.param(tmp_path) as end:
        yield end


async def append_until_refused(journal: Journal) -> int:
    """Append until the disk is full; return the last number that is durable."""
    for first in range(1, 1_000_000, 100):
        try:
            await journal.append(frames(first, first + 99))
        except (JournalFull, JournalWriteFailed):
            return first - 1
    raise AssertionError("the disk refused nothing")


async def test_full_disk_refuses_and_accepts_again_when_there_is_room(tmp_path: Path, end_fault: EndFault) -> None:
    """Refused frames are absent, accepted ones stay, and positions are consecutive."""
    async with opened(tmp_path / "journal") as journal:
        last = await append_until_refused(journal)
        assert last > 1_000
        backlog_bytes = journal.backlog_bytes
        with pytest.raises((JournalFull, JournalWriteFailed), match="the journal's disk"):
            await journal.append(frames(1, 10_000))
        assert (journal.last_position, journal.backlog_bytes) == (last, backlog_bytes)
        assert everything(journal) == list(enumerate(frames(1, last), 1))
        end_fault()
        assert await journal.append(frames(last + 1, last + 3)) == last + 1
        await journal.save_state(last, b"state")
    async with opened(tmp_path / "journal") as journal:
        assert journal.recovery.is_clean
        assert everything(journal, after=last) == [(n, a_frame(n)) for n in range(last + 1, last + 4)]


async def test_batches_after_a_refused_one_are_refused_too(tmp_path: Path, end_fault: EndFault) -> None:
    """A small batch that still fits must not overtake the large one before it."""
    async with opened(tmp_path / "journal") as journal:
        last = await append_until_refused(journal)
        batches = [frames(1, 20_000), frames(1, 2_000), *([a_frame(n)] for n in range(5))]
        outcomes = await asyncio.gather(*map(journal.append, batches), return_exceptions=True)
        assert isinstance(outcomes[0], JournalFull | JournalWriteFailed)
        assert [type(outcome) for outcome in outcomes[1:]] == [JournalWriteFailed] * len(batches[1:])
        end_fault()
        assert await journal.append([a_frame()]) == last + 1


async def test_journal_killed_on_a_full_disk_is_intact(tmp_path: Path, end_fault: EndFault) -> None:
    """A partial group in the write-ahead log is not damage."""
    async with opened(tmp_path / "journal", clean=False) as journal:
        last = await append_until_refused(journal)
    end_fault()
    async with opened(tmp_path / "journal") as journal:
        assert journal.recovery.is_clean
        assert everything(journal) == list(enumerate(frames(1, last), 1))


@pytest.mark.parametrize("room_bytes", [0, 4096, 20_000])
async def test_opening_on_a_full_disk_reports_the_refused_write(tmp_path: Path, room_bytes: int) -> None:
    """An operator reads the cause, and the next attempt succeeds."""
    with limited_files(tmp_path, room_bytes), pytest.raises(JournalWriteFailed, match=r"refused a write|too large"):
        Journal.open(tmp_path, max_bytes=1)
    async with opened(tmp_path) as journal:
        assert journal.recovery.is_clean
        assert await journal.append([a_frame()]) == 1


async def test_damaged_journal_waits_for_room_to_be_rebuilt(tmp_path: Path) -> None:
    """A recovery stopped by a full disk has removed nothing, and is repeated at the next opening."""
    async with opened(tmp_path) as journal:
        for first in range(1, 2_001, 100):
            await journal.append(frames(first, first + 99))
    database = tmp_path / "journal.db"
    with database.open("r+b") as file:
        file.seek(database.stat().st_size * 3 // 4)
        file.write(bytes(100))
    damaged = database.read_bytes()
    with limited_files(tmp_path, 200_000), pytest.raises(JournalWriteFailed, match="cannot be rebuilt"):
        Journal.open(tmp_path, max_bytes=1)
    assert database.read_bytes() == damaged
    async with opened(tmp_path) as journal:
        lost = {number for one in journal.recovery.lost for number in range(one.first, (one.last or 0) + 1)}
        assert 0 < len(lost) < 1_000
        assert everything(journal) == [pair for pair in enumerate(frames(1, 2_000), 1) if pair[0] not in lost]
