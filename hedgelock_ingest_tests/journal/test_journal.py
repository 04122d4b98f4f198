"""The journal without faults."""

import asyncio
import stat
from pathlib import Path

import pytest

from hedgelock_ingest.errors import JournalFull, JournalLocked
from hedgelock_ingest.journal import Journal, Recovery
from hedgelock_ingest.journal.commit_group import counted_bytes
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.journal.builders import a_frame, everything, frames, opened


async def test_frames_are_numbered_consecutively_from_one(tmp_path: Path) -> None:
    """Records in Kafka are recognised by positions."""
    async with opened(tmp_path) as journal:
        assert journal.last_position == 0
        assert await journal.append(frames(1, 3)) == 1
        assert await journal.append(frames(4, 4)) == 4
        assert everything(journal) == list(enumerate(frames(1, 4), 1))
        assert journal.last_position == 4


async def test_overlapping_appends_keep_the_order_of_the_calls(tmp_path: Path) -> None:
    """A caller may append the next batch before the last is durable."""
    async with opened(tmp_path) as journal:
        firsts = await asyncio.gather(*(journal.append([a_frame(number)]) for number in range(1, 201)))
        assert firsts == list(range(1, 201))
        assert everything(journal) == list(enumerate(frames(1, 200), 1))


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_reading_continues_after_any_position(tmp_path: Path, limit: int) -> None:
    """Catch-up may stop inside a group and continue there."""
    async with opened(tmp_path) as journal:
        await journal.append(frames(1, 5))
        await journal.append(frames(6, 10))
        for after in range(11):
            expected = list(enumerate(frames(after + 1, 10), after + 1))[:limit]
            assert journal.read(after, limit=limit) == expected


async def test_reopened_journal_continues_where_it_ended(tmp_path: Path) -> None:
    """Identity, frames, state and numbering survive the process."""
    async with opened(tmp_path) as journal:
        identity = journal.journal_id
        await journal.append(frames(1, 10))
        await journal.save_state(4, b"books")
    async with opened(tmp_path) as journal:
        assert journal.journal_id == identity
        assert (journal.last_position, journal.state_position) == (10, 4)
        assert journal.load_state() == (4, b"books")
        assert journal.recovery == Recovery()
        assert await journal.append(frames(11, 11)) == 11
        assert everything(journal, after=4) == list(enumerate(frames(5, 11), 5))


@pytest.mark.parametrize("clean", [True, False])
async def test_next_owner_sees_whether_the_last_one_ended_cleanly(tmp_path: Path, clean: bool) -> None:
    """After an unclean end, records may still be in flight to Kafka."""
    async with opened(tmp_path, clean=clean) as journal:
        assert journal.ended_cleanly
        await journal.append(frames(1, 1))
    async with opened(tmp_path) as journal:
        assert journal.ended_cleanly is clean


async def test_unacknowledged_bytes_are_bounded(tmp_path: Path) -> None:
    """A long outage of Kafka must not fill the disk; refused frames are not in the journal."""
    batch = frames(1, 10)
    async with opened(tmp_path, max_bytes=2 * counted_bytes(batch)) as journal:
        await journal.append(batch)
        await journal.append(batch)
        with pytest.raises(JournalFull):
            await journal.append([a_frame()])
        assert (journal.last_position, journal.backlog_bytes) == (20, 2 * counted_bytes(batch))
        await journal.save_state(10, b"")
        assert journal.backlog_bytes == counted_bytes(batch)
        assert await journal.append(batch) == 21


async def test_frame_above_the_bound_is_accepted_when_the_backlog_is_empty(tmp_path: Path) -> None:
    """An oversized frame must become a dead letter, and not block the stream forever."""
    async with opened(tmp_path, max_bytes=100) as journal:
        assert await journal.append(frames(1, 10)) == 1
        with pytest.raises(JournalFull):
            await journal.append([a_frame()])
        await journal.save_state(10, b"")
        assert await journal.append(frames(11, 20)) == 11


async def test_bound_counts_batches_that_are_not_written_yet(tmp_path: Path) -> None:
    """Overlapping appends share the bound."""
    batch = frames(1, 10)
    async with opened(tmp_path, max_bytes=3 * counted_bytes(batch)) as journal:
        outcomes = await asyncio.gather(*(journal.append(batch) for _ in range(5)), return_exceptions=True)
        assert outcomes[:3] == [1, 11, 21]
        assert [type(outcome) for outcome in outcomes[3:]] == [JournalFull, JournalFull]


async def test_backlog_is_known_after_reopening(tmp_path: Path) -> None:
    """The bound also holds after a restart."""
    async with opened(tmp_path) as journal:
        for number in range(1, 6):
            await journal.append([a_frame(number)])
        await journal.save_state(3, b"")
    async with opened(tmp_path) as journal:
        assert journal.backlog_bytes == 2 * counted_bytes([a_frame()])


@pytest.mark.parametrize("position", [-1, 4, 11])
async def test_state_moves_forward_over_durable_frames_only(tmp_path: Path, position: int) -> None:
    """Acknowledging backwards, or frames that are not written, would lose frames."""
    async with opened(tmp_path) as journal:
        await journal.append(frames(1, 10))
        await journal.save_state(5, b"")
        with pytest.raises(ValueError, match="expected 5 to 10"):
            await journal.save_state(position, b"")


async def test_second_owner_is_refused_with_the_id_of_the_owner(tmp_path: Path) -> None:
    """Two owners would publish every frame twice."""
    async with opened(tmp_path):
        with pytest.raises(JournalLocked, match=r"owned by process \d+ .*journal\.lock"):
            Journal.open(tmp_path, max_bytes=1)
    async with opened(tmp_path):
        pass


async def test_records_that_kafka_refuses_are_kept(tmp_path: Path) -> None:
    """Processing the same frame again after a crash yields one dead letter with one more attempt."""
    letter = RefusedRecord(7, 2, "market-trades", "too large", b"body", 1_700_000_000_000_000_000)
    async with opened(tmp_path) as journal:
        await journal.add_dead_letter(letter)
        await journal.add_dead_letter(letter)
    async with opened(tmp_path) as journal:
        (kept,) = journal.dead_letters()
        assert (kept.position, kept.record_index, kept.topic, kept.reason) == (7, 2, "market-trades", "too large")
        assert (kept.body, kept.at_ns, kept.attempts) == (b"body", letter.at_ns, 2)


async def test_only_the_owner_of_the_process_can_read_the_files(tmp_path: Path) -> None:
    """Private frames hold balances."""
    folder = tmp_path / "journal"
    async with opened(folder) as journal:
        await journal.append(frames(1, 1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert {"journal.db", "journal.db-wal"} <= modes.keys()
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
