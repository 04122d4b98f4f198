"""Guarantees of the frame log in memory that only a simulation needs; the conformance suite has the others."""

import asyncio
import selectors
from collections.abc import Coroutine
from contextvars import ContextVar
from random import Random
from typing import Any

import pytest

from hedgelock_ingest.clock import SystemClock
from hedgelock_ingest.errors import JournalFull, JournalWriteFailed
from hedgelock_ingest.journal.commit_group import counted_bytes
from hedgelock_ingest.journal.disk_rules import KEEP_BYTES
from hedgelock_ingest.journal.store import TRIM_BYTES
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.journal.builders import MAX_BYTES, a_frame, everything, frames
from hedgelock_ingest_tests.simulation.frame_log import Disk, MemoryFrameLog

PROCESS: ContextVar[str | None] = ContextVar("process", default=None)
LETTER = RefusedRecord(1, 0, "market-trades", "too large", b"body", 1)


class VirtualTime(selectors.DefaultSelector):
    """A selector that does not wait: time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time-out pass."""
        assert timeout is not None, "every task waits, and no timer is scheduled"
        self.now_s += max(timeout, 0.0)
        return super().select(0)


def run[T](main: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time."""
    time = VirtualTime()
    loop = asyncio.SelectorEventLoop(time)
    loop.time = lambda: time.now_s  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


class ObservedLifetime:
    """The lifetime of a process; records the contexts in which `is_dead` is read."""

    def __init__(self) -> None:
        self.died = False
        self.asked_by: set[str | None] = set()

    @property
    def is_dead(self) -> bool:
        """Whether the process was killed."""
        self.asked_by.add(PROCESS.get())
        return self.died


def a_disk(seed: int = 1, *, commit_s: float = 0.002) -> Disk:
    """Return a new disk."""
    return Disk(SystemClock(), Random(seed), commit_s=commit_s)


def opened(disk: Disk, lifetime: ObservedLifetime | None = None) -> MemoryFrameLog:
    """Open its journal."""
    return disk.open(lifetime or ObservedLifetime(), max_bytes=MAX_BYTES)


def test_same_seed_gives_the_same_times_and_the_same_id() -> None:
    """A seed must reproduce a failure."""

    async def times(seed: int) -> tuple[str, list[float]]:
        log = opened(a_disk(seed))
        found = []
        for number in range(10):
            await log.append([a_frame(number)])
            found.append(asyncio.get_running_loop().time())
        return log.journal_id, found

    assert run(times(1)) == run(times(1))
    assert run(times(1)) != run(times(2))


def test_appends_handed_over_during_a_commit_share_the_next_one() -> None:
    """A hundred overlapping appends take two commits on a disk of any speed."""

    async def scenario() -> float:
        disk = a_disk(commit_s=0)
        disk.slow(1.0)
        log = opened(disk)
        assert await asyncio.gather(*(log.append([a_frame(n)]) for n in range(100))) == list(range(1, 101))
        took_s = asyncio.get_running_loop().time()
        disk.slow(0)
        await log.append([a_frame()])
        assert asyncio.get_running_loop().time() == took_s
        return took_s

    assert run(scenario()) == pytest.approx(2.0)


def test_kill_during_a_commit_writes_complete_groups_from_the_first_on_or_nothing() -> None:
    """The writer may have been ahead of the process; some seed covers each possible end of a kill."""

    async def last_after_kill(seed: int) -> tuple[int, bool]:
        disk, lifetime = a_disk(seed, commit_s=1.0), ObservedLifetime()
        log = opened(disk, lifetime)
        await log.append(frames(1, 2))
        tasks = [asyncio.create_task(log.append(frames(3, 6)))]
        await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(log.append([a_frame(n)])) for n in (7, 8)]
        await asyncio.sleep(0.1)
        lifetime.died = True
        await asyncio.sleep(10)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        after = opened(disk)
        assert after.recovery.is_clean
        assert not after.ended_cleanly
        assert everything(after) == list(enumerate(frames(1, after.last_position), 1))
        last = after.last_position
        assert await after.append([a_frame()]) == last + 1
        return last, log.is_owned

    ends = [run(last_after_kill(seed)) for seed in range(40)]
    assert {last for last, _ in ends} == {2, 6, 8}
    assert not any(is_owned for _, is_owned in ends)


def test_lost_end_without_a_watermark_may_go_unnoticed() -> None:
    """The watermark is written after the commit: a kill in between leaves frames that are not known to be durable."""

    async def is_noticed(seed: int) -> bool | None:
        disk, lifetime = a_disk(seed), ObservedLifetime()
        log = opened(disk, lifetime)
        await log.append([a_frame(1)])
        append = asyncio.create_task(log.append([a_frame(2)]))
        await asyncio.sleep(0)
        lifetime.died = True
        append.cancel()
        if disk.content.last_position == 1:
            return None
        assert disk.tear() == 1
        after = opened(disk)
        assert after.last_position == 1
        return not after.recovery.is_clean

    assert {run(is_noticed(seed)) for seed in range(30)} == {None, False, True}


def test_calls_of_an_ended_process_change_nothing_and_are_never_answered() -> None:
    """Its coroutines may still run to their end when the simulation discards them."""

    async def scenario() -> None:
        disk, lifetime = a_disk(), ObservedLifetime()
        ended = opened(disk, lifetime)
        await ended.append(frames(1, 3))
        lifetime.died = True
        before = [ended.append([a_frame(4)]), ended.save_state(1, b""), ended.add_dead_letter(LETTER)]
        calls = [asyncio.create_task(call) for call in before]
        await asyncio.sleep(1)
        log = opened(disk)
        after = [ended.append([a_frame(4)]), ended.save_state(2, b""), ended.close(clean=True)]
        calls += [asyncio.create_task(call) for call in after]
        await asyncio.sleep(1)
        assert not any(call.done() for call in calls)
        assert (log.last_position, log.state_position, log.dead_letters()) == (3, 0, [])
        assert log.is_owned
        assert await log.append([a_frame(4)]) == 4
        await log.close(clean=False)
        assert not opened(disk).ended_cleanly

    run(scenario())


def test_timers_run_outside_the_process_that_waits_for_them() -> None:
    """A simulation kills a process by dropping everything in its context; the disk continues."""

    async def scenario() -> None:
        lifetime = ObservedLifetime()
        disk = a_disk()

        async def live() -> None:
            PROCESS.set("killed")
            log = opened(disk, lifetime)
            lifetime.asked_by.clear()
            append = asyncio.create_task(log.append([a_frame()]))
            await asyncio.sleep(0)
            lifetime.asked_by.clear()
            assert await append == 1

        await asyncio.create_task(live())
        assert lifetime.asked_by == {None}

    run(scenario())


def test_opening_that_has_to_write_waits_for_room() -> None:
    """A full disk accepts neither a new journal nor a rebuilt one, and a rebuild is still possible later."""

    async def scenario() -> None:
        disk, lifetime = a_disk(), ObservedLifetime()
        disk.fail_writes(True)
        with pytest.raises(JournalWriteFailed):
            opened(disk)
        disk.fail_writes(False)
        log = opened(disk, lifetime)
        await log.append(frames(1, 3))
        await log.append(frames(4, 6))
        lifetime.died = True
        disk.tear()
        disk.fail_writes(True)
        with pytest.raises(JournalWriteFailed):
            opened(disk)
        disk.fail_writes(False)
        assert [(lost.first, lost.last) for lost in opened(disk).recovery.lost] == [(4, 6)]

    run(scenario())


def test_acknowledged_frames_are_removed_once_older_than_the_history() -> None:
    """The memory of a long simulation is bounded."""

    async def scenario() -> None:
        log = opened(a_disk())
        frame = a_frame(raw_bytes=TRIM_BYTES)
        count = KEEP_BYTES // TRIM_BYTES + 10
        for _ in range(count):
            await log.append([frame])
        assert log.read(0, limit=1)[0][0] == 1
        await log.save_state(count, b"")
        kept = len(everything(log))
        assert KEEP_BYTES // TRIM_BYTES - 1 <= kept <= KEEP_BYTES // TRIM_BYTES + 1
        assert await log.append([frame]) == count + 1

    run(scenario())


def test_reserve_of_a_large_disk_makes_room_on_a_crowded_one() -> None:
    """The rules follow what others have left of the disk."""

    async def scenario() -> None:
        disk = a_disk()
        log = opened(disk)
        disk.leave(100_000)
        assert await log.append([a_frame()]) == 1

    run(scenario())


def test_delivered_frames_make_room_on_a_crowded_disk() -> None:
    """The frames that Kafka has go first; without such frames new ones are refused."""

    async def scenario() -> None:
        disk = a_disk()
        disk.leave(4_000_000)  # whose reserve cannot be smaller
        log = opened(disk)
        last = await log.append(frames(1, 100, raw_bytes=5_000)) + 99
        await log.append(frames(101, 200, raw_bytes=5_000))
        disk.leave(100_000)
        with pytest.raises(JournalFull):
            await log.append([a_frame()])
        await log.save_state(last + 100, b"state")
        assert await log.append([a_frame(201)]) == 201
        assert everything(log)[0][0] == 101
        assert log.backlog_bytes == counted_bytes([a_frame(201)]) <= log.bound_bytes

    run(scenario())


def test_state_is_saved_with_the_reserve_and_the_reserve_is_made_again() -> None:
    """A full disk refuses frames before it refuses states."""

    async def scenario() -> None:
        disk = a_disk()
        log = opened(disk)
        await log.append(frames(1, 100, raw_bytes=5_000))
        await log.append(frames(101, 200, raw_bytes=5_000))
        disk.leave(0)
        await log.save_state(200, bytes(50_000))
        assert disk.missing_bytes == 0
        assert await log.append([a_frame()]) == 201
        disk.leave(0)
        with pytest.raises(JournalWriteFailed):
            await log.save_state(201, bytes(9_000_000))
        assert log.state_position == 200

    run(scenario())
