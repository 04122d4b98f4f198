"""The journal on a small disk: it fills, others fill it, and once Kafka has taken the frames it continues."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hedgelock_ingest.errors import JournalFull, JournalWriteFailed
from hedgelock_ingest.journal import Journal, disk_room
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest_tests.journal.builders import a_frame, everything, frames, opened
from hedgelock_ingest_tests.journal.small_disk import MEBIBYTE, SMALLEST_BYTES, SmallDisk, may_mount, mounted

STATE = bytes(60_000)
BATCH = 5

pytestmark = pytest.mark.skipif(not may_mount(), reason="no right to mount; the conformance suite has a simulated disk")


@pytest.fixture(params=[SMALLEST_BYTES, 40 * MEBIBYTE], ids=["4MiB", "40MiB"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a disk of its own."""
    with mounted(tmp_path, request.param) as found:
        yield found


async def fill_with_frames(journal: Journal) -> int:
    """Append frames of 20 kB until the disk has no room; return the last position."""
    group = frames(1, BATCH, raw_bytes=20_000)
    for _ in range(10_000):
        try:
            await journal.append(group)
        except JournalFull:
            return journal.last_position
    raise AssertionError("the disk refused nothing")


async def test_frames_fill_the_disk_and_it_continues_when_kafka_has_taken_them(disk: SmallDisk) -> None:
    """Most of the disk is used for frames, again and again: a full disk only delays."""
    async with opened(disk.folder) as journal:
        filled = []
        for _ in range(3):
            before = journal.last_position
            await fill_with_frames(journal)
            filled.append((journal.last_position - before) * 20_000)
            await journal.save_state(journal.last_position - 1, STATE)
        assert min(filled) > disk_bytes(disk) * 0.4
        assert journal.backlog_bytes <= journal.bound_bytes
    async with opened(disk.folder) as journal:
        assert journal.recovery.is_clean
        last = journal.last_position
        assert everything(journal, after=last - 1) == [(last, a_frame(BATCH, raw_bytes=20_000))]
        assert await journal.append([a_frame()]) == last + 1


async def test_state_is_saved_on_a_disk_that_others_have_filled(disk: SmallDisk) -> None:
    """The reserve is given up for it; then delivered frames go, the reserve is back, and frames are accepted."""
    async with opened(disk.folder) as journal:
        last = await fill_with_frames(journal)
        disk.fill()
        with pytest.raises(JournalFull, match=r"bytes free, expected \d+"):
            await journal.append(frames(1, BATCH, raw_bytes=20_000))
        await journal.save_state(last, STATE)
        assert journal.load_state() == (last, STATE)
        assert await journal.append(frames(1, BATCH, raw_bytes=20_000)) == last + 1


async def test_delivered_frames_make_room_on_a_disk_that_others_fill_at_any_moment(disk: SmallDisk) -> None:
    """Frames are not refused, also when the disk was filled since it was measured."""
    async with opened(disk.folder) as journal:
        await fill_with_frames(journal)
        await journal.save_state(journal.last_position, STATE)
        last = await journal.append([a_frame()])
        disk.fill()
        assert await journal.append([a_frame()]) == last + 1


async def test_reserve_of_a_larger_disk_makes_room(disk: SmallDisk) -> None:
    """Others have filled the disk since: a restart adapts the reserve to what is left."""
    async with opened(disk.folder) as journal:
        last = await journal.append([a_frame()])
        await journal.save_state(last, STATE)
    reserve = JournalFiles(disk.folder).reserve
    with reserve.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, disk.free_bytes - MEBIBYTE)
    disk.fill(but_bytes=120_000)
    async with opened(disk.folder) as journal:
        assert reserve.stat().st_size < disk.free_bytes
        assert await journal.append([a_frame()]) == last + 1


async def test_delivered_frames_make_room_where_only_a_quota_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk states free bytes that this user does not get: the refused write is the only sign."""
    monkeypatch.setattr(disk_room, "free_bytes_at", lambda _: 1 << 40)
    group = frames(1, BATCH, raw_bytes=20_000)
    with capture_logs() as logs, mounted(tmp_path, 40 * MEBIBYTE) as disk:
        async with opened(disk.folder) as journal:
            while disk.free_bytes > 10 * MEBIBYTE:
                await journal.append(group)
            await journal.save_state(journal.last_position, STATE)
            disk.fill()
            for _ in range(10):
                last = await journal.append(group)
                await journal.save_state(last, STATE)
            assert journal.state_position == last
    assert [line["event"] for line in logs].count("journal_reserve_used") <= 1


async def test_use_of_the_reserve_is_logged_once_while_others_fill_the_disk(disk: SmallDisk) -> None:
    """Every state needs it, several a minute: one line is enough."""
    with capture_logs() as logs:
        async with opened(disk.folder) as journal:
            await fill_with_frames(journal)
            for _ in range(6):
                disk.fill()
                await journal.save_state(journal.last_position, STATE)
                with suppress(JournalFull):  # a tiny disk has no delivered frames left
                    await journal.append([a_frame()])
    assert [line["event"] for line in logs].count("journal_reserve_used") == 1


async def test_rules_follow_a_disk_that_others_have_left(tmp_path: Path) -> None:
    """The reserve, and with it commits and history, become those of the larger disk without a restart."""
    with mounted(tmp_path, 40 * MEBIBYTE) as disk:
        disk.folder.mkdir()
        disk.fill(but_bytes=MEBIBYTE)
        async with opened(disk.folder) as journal:
            reserve = JournalFiles(disk.folder).reserve
            small_bytes = reserve.stat().st_size
            disk.free()
            async with asyncio.timeout(20):
                while reserve.stat().st_size < 4 * small_bytes:
                    last = await journal.append([a_frame()])
            disk.fill()
            await journal.save_state(last, STATE)
            assert await journal.append([a_frame()]) == last + 1


async def test_reserve_that_a_file_system_does_not_allocate_is_tried_once(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compressing file system keeps no blocks for zeros; the journal does without, and logs it once."""
    sizes: list[int] = []

    def compress(descriptor: int, _: int, size: int) -> None:
        sizes.append(size)
        os.ftruncate(descriptor, size)

    monkeypatch.setattr(os, "posix_fallocate", compress)
    with capture_logs() as logs:
        async with opened(disk.folder) as journal:
            for _ in range(5):
                await journal.append([a_frame()])
            await journal.save_state(5, STATE)
    assert len(sizes) == 1
    assert [line["event"] for line in logs].count("journal_reserve_impossible") == 1


async def test_reserve_makes_room_while_the_journal_is_idle(tmp_path: Path) -> None:
    """Others fill the disk when the journal holds nothing: its lines must not stay closed beside a large reserve."""
    with mounted(tmp_path, 40 * MEBIBYTE) as disk:
        async with opened(disk.folder) as journal:
            last = await journal.append([a_frame()])
            await journal.save_state(last, STATE)
            disk.fill()
            assert await journal.append([a_frame()]) == last + 1


async def test_reserve_that_is_gone_as_well_only_delays(disk: SmallDisk) -> None:
    """Somebody removed the file to make room, and others took it: when they leave, everything is there."""
    async with opened(disk.folder) as journal:
        last = await fill_with_frames(journal)
        JournalFiles(disk.folder).reserve.unlink()
        disk.fill()
        for _ in range(2):
            with pytest.raises(JournalWriteFailed):
                await journal.save_state(last, bytes(SMALLEST_BYTES))  # a small one may fit into the log as it is
            with pytest.raises(JournalFull):
                await journal.append([a_frame()])
        assert journal.state_position == 0
        assert len(everything(journal)) == last
        disk.free()
        await journal.save_state(last, STATE)
        assert await journal.append([a_frame()]) == last + 1


@pytest.mark.parametrize("is_killed", [False, True])
async def test_journal_opens_on_a_full_disk(disk: SmallDisk, is_killed: bool) -> None:
    """Opening needs room for the log and the shared memory: the reserve."""
    async with opened(disk.folder) as journal:
        last = await fill_with_frames(journal)
        if is_killed:
            shutil.copytree(disk.folder, disk.folder.parent.parent / "copy")
    if is_killed:
        shutil.rmtree(disk.folder)
        shutil.copytree(disk.folder.parent.parent / "copy", disk.folder)
    disk.fill()
    async with opened(disk.folder) as journal:
        assert journal.recovery.is_clean
        assert len(everything(journal)) == last
        await journal.save_state(last, STATE)
        assert await journal.append([a_frame()]) == last + 1


async def test_opening_without_any_room_states_what_is_needed(disk: SmallDisk) -> None:
    """Nothing is damaged by the attempt, and the next one succeeds."""
    disk.fill()
    for _ in range(2):
        with pytest.raises(JournalWriteFailed, match="bytes free"):
            Journal.open(disk.folder, max_bytes=10 * MEBIBYTE)
    disk.free()
    async with opened(disk.folder) as journal:
        assert journal.recovery.is_clean
        assert await journal.append([a_frame()]) == 1


async def test_bound_follows_the_room_on_the_disk(disk: SmallDisk) -> None:
    """An operator sees how much fits now."""
    async with opened(disk.folder) as journal:
        bound_bytes = journal.bound_bytes
        assert 0.5 * disk_bytes(disk) < bound_bytes < disk_bytes(disk)
    disk.fill(but_bytes=MEBIBYTE)
    async with opened(disk.folder) as journal:
        assert journal.bound_bytes < bound_bytes - MEBIBYTE


def disk_bytes(disk: SmallDisk) -> int:
    """Return the size of a disk."""
    status = os.statvfs(disk.folder)
    return status.f_blocks * status.f_frsize
