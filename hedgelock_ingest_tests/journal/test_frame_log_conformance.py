"""Conformance of the real and the simulated journal to what the pipeline relies on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from hedgelock_ingest.errors import JournalError, JournalFull, JournalLocked, JournalWriteFailed
from hedgelock_ingest.journal import LostRange
from hedgelock_ingest.journal.commit_group import counted_bytes
from hedgelock_ingest.journal.recovery.rebuilt_content import STRIDE
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.journal.builders import MAX_BYTES, a_frame, everything, frames
from hedgelock_ingest_tests.journal.frame_logs import ROOM_BYTES, JournalFolder, LogPlace, MemoryDisk, OpenedLog

LETTER = RefusedRecord(7, 2, "market-trades", "too large", b"body", 1_700_000_000_000_000_000)
TOO_MUCH = frames(1, 20, raw_bytes=ROOM_BYTES // 10)
HISTORIES = 12


@pytest.fixture(params=["journal", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LogPlace:
    """Return the storage of a test's log."""
    return JournalFolder(tmp_path) if request.param == "journal" else MemoryDisk(Random(1))


@asynccontextmanager
async def owned(place: LogPlace, *, max_bytes: int = MAX_BYTES, clean: bool = True) -> AsyncIterator[OpenedLog]:
    """Own the log for the length of a block."""
    log = place.open(max_bytes=max_bytes)
    try:
        yield log
    finally:
        await log.close(clean=clean)


async def killed_after_groups(place: LogPlace, groups: int, *, state: int | None = None) -> None:
    """Leave the log of a killed owner: groups of ten frames, and a state saved at position `state`."""
    log = place.open()
    for first in range(1, groups * 10, 10):
        await log.append(frames(first, first + 9))
        if state is not None and first <= state < first + 10:
            await log.save_state(state, b"state")
    await place.die(log)


async def test_frames_are_numbered_consecutively_in_the_order_of_the_calls(place: LogPlace) -> None:
    """Calls may overlap; records in Kafka are recognised by positions."""
    async with owned(place) as log:
        assert log.last_position == 0
        firsts = await asyncio.gather(*(log.append(frames(n, n + 2)) for n in range(1, 300, 3)))
        assert firsts == list(range(1, 300, 3))
        assert log.last_position == 300
        assert everything(log) == list(enumerate(frames(1, 300), 1))
        with pytest.raises(ValueError, match="at least one frame"):
            await log.append([])


@pytest.mark.parametrize("limit", [1, 3, 7])
async def test_reading_continues_after_any_position(place: LogPlace, limit: int) -> None:
    """Catch-up may stop inside a group and continue there."""
    async with owned(place) as log:
        await log.append(frames(1, 5))
        await log.append(frames(6, 10))
        for after in range(12):
            assert log.read(after, limit=limit) == list(enumerate(frames(after + 1, 10), after + 1))[:limit]


async def test_appended_list_may_be_emptied_afterwards(place: LogPlace) -> None:
    """Publishing empties the list that was appended."""
    async with owned(place) as log:
        batch = frames(1, 3)
        await log.append(batch)
        batch.clear()
        assert everything(log) == list(enumerate(frames(1, 3), 1))


async def test_cancelled_append_keeps_its_positions(place: LogPlace) -> None:
    """It may still be written, and then counts like any other append."""
    async with owned(place) as log:
        tasks = [asyncio.create_task(log.append([a_frame(n)])) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert (outcomes[0], outcomes[2]) == (1, 3)
        assert everything(log) == list(enumerate(frames(1, 3), 1))
        assert log.backlog_bytes == counted_bytes(frames(1, 3))


async def test_batches_after_a_refused_one_are_refused_too(place: LogPlace) -> None:
    """A small batch that would fit must not overtake the large one before it; retried batches keep their order."""
    async with owned(place) as log:
        await log.append(frames(1, 3))
        with place.full_disk() as end_fault:
            batches = [TOO_MUCH, *([a_frame(n)] for n in range(5))]
            outcomes = await asyncio.gather(*map(log.append, batches), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [JournalWriteFailed] * len(batches)
            assert (log.last_position, log.backlog_bytes) == (3, counted_bytes(frames(1, 3)))
            end_fault()
            assert await asyncio.gather(*map(log.append, batches)) == [4, 24, 25, 26, 27, 28]
        assert everything(log) == list(enumerate([*frames(1, 3), *TOO_MUCH, *(a_frame(n) for n in range(5))], 1))


async def test_full_disk_keeps_the_earlier_state(place: LogPlace) -> None:
    """The earlier state remains, and saving succeeds when there is room again."""
    async with owned(place) as log:
        await log.append(frames(1, 10))
        await log.save_state(4, b"earlier")
        with place.full_disk() as end_fault:
            for _ in range(2):
                with pytest.raises(JournalWriteFailed, match="refused a write"):
                    await log.save_state(7, bytes(2 * ROOM_BYTES))
            assert (log.state_position, log.load_state()) == (4, (4, b"earlier"))
            end_fault()
            await log.save_state(7, b"later")
        assert log.load_state() == (7, b"later")


async def test_unacknowledged_bytes_are_bounded(place: LogPlace) -> None:
    """Overlapping appends share the bound; refused frames are not in the log."""
    batch = frames(1, 10)
    async with owned(place, max_bytes=3 * counted_bytes(batch)) as log:
        outcomes = await asyncio.gather(*(log.append(batch) for _ in range(5)), return_exceptions=True)
        assert outcomes[:3] == [1, 11, 21]
        assert [type(outcome) for outcome in outcomes[3:]] == [JournalFull, JournalFull]
        assert (log.last_position, log.backlog_bytes) == (30, 3 * counted_bytes(batch))
        await log.save_state(30, b"")
        assert log.backlog_bytes == 0
        assert await log.append(batch) == 31


async def test_backlog_is_counted_in_complete_groups_also_after_reopening(place: LogPlace) -> None:
    """A group counts until its last frame is acknowledged."""
    async with owned(place) as log:
        await log.append(frames(1, 10))
        await log.append(frames(11, 20))
        await log.save_state(15, b"")
        assert log.backlog_bytes == counted_bytes(frames(11, 20))
    async with owned(place) as log:
        assert log.backlog_bytes == counted_bytes(frames(11, 20))


async def test_batch_above_the_bound_is_accepted_when_the_backlog_is_empty(place: LogPlace) -> None:
    """An oversized frame must become a dead letter, and not block the stream forever."""
    async with owned(place, max_bytes=100) as log:
        assert await log.append(frames(1, 10)) == 1
        with pytest.raises(JournalFull):
            await log.append([a_frame()])
        await log.save_state(10, b"")
        assert await log.append(frames(11, 20)) == 11


async def test_reopened_log_continues_where_it_ended(place: LogPlace) -> None:
    """Identity, frames, state and numbering survive the process."""
    async with owned(place) as log:
        assert log.load_state() == (0, None)
        identity = log.journal_id
        assert len(bytes.fromhex(identity)) == 16
        assert log.bound_bytes == MAX_BYTES
        await log.append(frames(1, 10))
        await log.save_state(4, b"books")
    async with owned(place) as log:
        assert log.journal_id == identity
        assert (log.last_position, log.state_position) == (10, 4)
        assert log.load_state() == (4, b"books")
        assert log.recovery.findings == ()
        assert await log.append([a_frame(11)]) == 11
        assert everything(log, after=4) == list(enumerate(frames(5, 11), 5))


@pytest.mark.parametrize("position", [-1, 4, 11])
async def test_state_moves_forward_over_durable_frames_only(place: LogPlace, position: int) -> None:
    """Acknowledging backwards, or frames that are not written, would lose frames."""
    async with owned(place) as log:
        await log.append(frames(1, 10))
        await log.save_state(5, b"")
        with pytest.raises(ValueError, match="expected 5 to 10"):
            await log.save_state(position, b"")


async def test_owner_excludes_others_until_it_closes_or_is_killed(place: LogPlace) -> None:
    """Two owners would publish every frame twice."""
    first = place.open()
    with pytest.raises(JournalLocked, match="owned by"):
        place.open()
    assert first.is_owned
    await first.close(clean=True)
    assert not first.is_owned
    second = place.open()
    await place.die(second)
    await place.open().close(clean=True)


@pytest.mark.parametrize("clean", [True, False])
async def test_next_owner_sees_whether_the_last_one_ended_cleanly(place: LogPlace, clean: bool) -> None:
    """After an unclean end, records may still be in flight to Kafka."""
    async with owned(place, clean=clean) as log:
        assert log.ended_cleanly
    async with owned(place) as log:
        assert log.ended_cleanly is clean
    log = place.open()
    assert log.ended_cleanly
    await place.die(log)
    async with owned(place) as log:
        assert not log.ended_cleanly
        assert log.recovery.is_clean


async def test_closing_writes_submitted_frames_and_refuses_later_ones(place: LogPlace) -> None:
    """A stop loses no frame; closing twice has no effect."""
    log = place.open()
    appends = [asyncio.create_task(log.append([a_frame(n)])) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    await log.close(clean=True)
    await log.close(clean=False)
    assert await asyncio.gather(*appends) == [1, 2, 3]
    with pytest.raises(JournalError, match="is closed"):
        await log.append([a_frame(4)])
    with pytest.raises(JournalError):
        log.read(0, limit=1)
    async with owned(place) as log:
        assert log.ended_cleanly
        assert everything(log) == list(enumerate(frames(1, 3), 1))


async def test_same_dead_letter_again_increments_its_attempts(place: LogPlace) -> None:
    """Processing the same frame again after a crash yields one dead letter."""
    log = place.open()
    await log.add_dead_letter(LETTER)
    await log.add_dead_letter(RefusedRecord(3, 0, "market-data", "too large", b"other", 1))
    await place.die(log)
    async with owned(place) as log:
        await log.add_dead_letter(RefusedRecord(7, 2, "market-trades", "still too large", b"", 5, attempts=2))
        other, letter = log.dead_letters()
        assert other.body == b"other"
        assert letter == RefusedRecord(7, 2, "market-trades", "still too large", b"body", 5, attempts=3)


async def test_rebuilt_log_keeps_all_attempts_of_a_dead_letter(place: LogPlace) -> None:
    """Of two rows of one dead letter, the one with more attempts is kept."""
    async with owned(place) as log:
        await log.add_dead_letter(LETTER)
    log = place.open()
    await log.add_dead_letter(LETTER)
    await log.append(frames(1, 1))
    await place.die(log)
    place.tear(1)
    async with owned(place) as log:
        assert not log.recovery.is_clean
        assert [letter.attempts for letter in log.dead_letters()] == [2]


async def test_killed_process_leaves_all_durable_frames_and_no_partial_group(place: LogPlace) -> None:
    """Frames of completed appends are present and unchanged; the others as complete groups or not at all."""
    random = Random(4)
    for _ in range(3):
        durable = await place.kill_appending(random.randrange(1, 30), random)
        async with owned(place, clean=False) as log:
            assert log.recovery.is_clean
            assert not log.ended_cleanly
            assert log.last_position >= durable
            position, state = log.load_state()
            assert state == (str(position).encode() * 1_000 if position else None)
            assert everything(log) == list(enumerate(frames(1, log.last_position), 1))


async def test_torn_end_is_reported_and_its_positions_are_never_reused(place: LogPlace) -> None:
    """Kafka may hold records of the lost frames."""
    await killed_after_groups(place, 5, state=15)
    place.tear(2)
    log = place.open()
    assert log.recovery.lost == (LostRange(31, 50),)
    assert "frames at positions 31 to 50 are lost" in log.recovery.findings
    assert not log.recovery.state_lost
    assert not log.ended_cleanly
    assert (log.last_position, log.load_state()) == (30, (15, b"state"))
    assert await log.append(frames(1, 2)) == 50 + STRIDE
    await place.die(log)
    async with owned(place) as log:
        assert log.recovery.is_clean
        numbers = [*range(1, 31), 50 + STRIDE, 51 + STRIDE]
        assert everything(log) == list(zip(numbers, [*frames(1, 30), *frames(1, 2)], strict=True))
        assert log.read(30, limit=1)[0][0] == 50 + STRIDE


async def test_state_whose_frames_are_torn_off_is_lost_but_keeps_its_position(place: LogPlace) -> None:
    """Frames that Kafka holds are neither reported as lost nor published again."""
    await killed_after_groups(place, 5, state=45)
    place.tear(3)
    async with owned(place) as log:
        assert log.recovery.state_lost
        assert log.recovery.lost == (LostRange(46, 50),)
        assert log.load_state() == (45, b"")
        assert await log.append([a_frame()]) == 50 + STRIDE


async def test_lost_state_is_empty_at_its_position(place: LogPlace) -> None:
    """It is not mistaken for a state that was never saved, however often the log is opened."""
    await killed_after_groups(place, 2, state=12)
    place.lose_state()
    log = place.open()
    assert log.recovery.state_lost
    assert log.recovery.lost == ()
    assert log.load_state() == (12, b"")
    await log.close(clean=True)
    async with owned(place) as log:
        assert log.recovery.is_clean
        assert log.load_state() == (12, b"")
        assert await log.append([a_frame()]) == 21


@pytest.mark.parametrize("state", [None, 12])
async def test_lost_watermark_skips_the_positions_of_frames_that_may_be_lost(
    place: LogPlace, state: int | None
) -> None:
    """Without the watermark a torn end cannot be detected."""
    await killed_after_groups(place, 3, state=state)
    place.tear(1)
    place.lose_watermark()
    log = place.open()
    assert log.recovery.lost == ()
    assert "journal.mark is missing" in "".join(log.recovery.findings)
    assert not log.ended_cleanly
    assert log.load_state() == ((12, b"state") if state else (0, b""))
    assert await log.append([a_frame()]) == 21 + STRIDE
    await log.close(clean=True)
    async with owned(place) as log:
        assert log.recovery.is_clean


async def test_state_and_watermark_lost_together_start_from_position_0(place: LogPlace) -> None:
    """All frames count as new then."""
    await killed_after_groups(place, 2, state=12)
    place.lose_state()
    place.lose_watermark()
    async with owned(place) as log:
        assert log.recovery.lost == (LostRange(21, None),)
        assert log.recovery.state_lost
        assert log.load_state() == (0, b"")
        assert await log.append([a_frame()]) == 20 + STRIDE


class RandomLogHistory:
    """A random history of a log, with kills and disk faults, and everything observed of it."""

    def __init__(self, place: LogPlace, random: Random) -> None:
        self._place = place
        self._random = random
        self._groups = 0
        self._log = place.open()
        self.observed: list[object] = []

    async def run(self, steps: int) -> list[object]:
        """Run `steps` random steps, and return the observations."""
        actions = (
            [self._append] * 5 + [self._save_state] * 2 + [self._add_dead_letter, self._close, self._die, self._die]
        )
        for _ in range(steps):
            await self._random.choice(actions)()
            self._observe()
        await self._log.close(clean=True)
        return self.observed

    async def _append(self) -> None:
        self.observed.append(await self._log.append(frames(1, self._random.choice((1, 2, 40)))))
        self._groups += 1

    async def _save_state(self) -> None:
        log = self._log
        waiting = [position for position, _ in log.read(log.state_position, limit=1_000)]
        position = self._random.choice([log.state_position, *waiting])
        await log.save_state(position, b"%d" % position * 100)

    async def _add_dead_letter(self) -> None:
        await self._log.add_dead_letter(RefusedRecord(self._random.randrange(3), 0, "t", "r", b"body", 1))

    async def _close(self) -> None:
        await self._log.close(clean=self._random.random() < 0.5)
        self._reopen()

    async def _die(self) -> None:
        await self._place.die(self._log)
        faults = self._random.random(), self._random.random(), self._random.random()
        if faults[0] < 0.5 and self._groups:
            self._place.tear(self._random.randint(1, min(3, self._groups)))
        if faults[1] < 0.2:
            self._place.lose_state()
        if faults[2] < 0.2:
            self._place.lose_watermark()
        self._reopen()

    def _reopen(self) -> None:
        self._groups = 0
        self._log = self._place.open()
        recovery = self._log.recovery
        self.observed.append((recovery.findings, recovery.lost, recovery.state_lost, recovery.kept_as is None))

    def _observe(self) -> None:
        log = self._log
        self.observed.append((log.last_position, log.state_position, log.backlog_bytes, log.ended_cleanly))
        self.observed.append((log.load_state(), log.dead_letters(), everything(log)))


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_both_logs_show_the_same_history(tmp_path: Path, seed: int) -> None:
    """For any sequence of events, positions, bounds, losses and findings are the same."""
    places: list[LogPlace] = [JournalFolder(tmp_path), MemoryDisk(Random(seed))]
    real, simulated = [await RandomLogHistory(place, Random(seed)).run(25) for place in places]
    for number, (expected, found) in enumerate(zip(real, simulated, strict=True)):
        assert found == expected, f"step {number}"
