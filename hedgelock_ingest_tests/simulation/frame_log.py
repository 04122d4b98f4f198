"""
A frame log in memory, the simulation's implementation of the pipeline's port.

It gives the real journal's guarantees (`journal/test_frame_log_conformance.py` runs both through one suite) without
threads or files: a commit is a timer of the event loop, whose time may be virtual.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import JournalError, JournalFull, JournalLocked, JournalWriteFailed
from hedgelock_ingest.journal import Recovery
from hedgelock_ingest.journal.commit_group import counted_bytes
from hedgelock_ingest.journal.disk_rules import KEEP_BYTES, DiskRules
from hedgelock_ingest.journal.schema import PAGE_BYTES
from hedgelock_ingest.journal.store import TRIM_BYTES
from hedgelock_ingest.journal.writer import GROUP_FRAMES, Append
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord
from hedgelock_ingest_tests.simulation.journal_content import JournalContent
from hedgelock_ingest_tests.simulation.lifetime import Lifetime

_REFUSED = "the journal's disk refused a write: database or disk is full"
_FULL = "the journal's disk has no room"


class Disk:
    """
    The storage that survives the successive owners of a journal, with switches for faults.

    Create it outside the simulated processes: its timers run in the context of its creation, and outlive each owner.
    """

    def __init__(self, clock: Clock, random: Random, *, commit_s: float = 0.002) -> None:
        """Begin with no journal; a commit takes half to one and a half times `commit_s`."""
        self._is_full = False
        self._clock = clock
        self._random = random
        self._commit_s = commit_s
        self._slow_s = 0.0
        self._room_bytes = 1 << 40
        self._reserve_bytes = 0
        self.rules = DiskRules(self._room_bytes)
        self._context = contextvars.copy_context()
        self._content: JournalContent | None = None
        self._owner: MemoryFrameLog | None = None

    def open(self, lifetime: Lifetime, *, max_bytes: int) -> "MemoryFrameLog":
        """
        Open the journal for a process, create it if there is none, and recover from a crash or a fault.

        Raises:
            JournalLocked: A running process owns it.
            JournalWriteFailed: The disk is full, and opening has to write.
        """
        if self.owner is not None:
            raise JournalLocked("the journal is owned by a running process; stop it, or take another disk")
        content = self._content
        if content is None or not content.is_sound:
            self.check_accepts_writes()
        if content is None:
            content = self._content = JournalContent(f"{self._random.getrandbits(128):032x}")
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        self.rules = DiskRules(self._room_bytes)
        self.hold()
        recovery = content.recover(Path(f"journal.damaged-{now:%Y%m%dT%H%M%S%fZ}"))
        self._owner = MemoryFrameLog(self, lifetime, content, max_bytes=max_bytes, recovery=recovery)
        return self._owner

    @property
    def owner(self) -> "MemoryFrameLog | None":
        """The log that is open in a running process."""
        if self._owner is not None and self._owner.is_dead:
            self._owner.write_unfinished_jobs(self._random)
            self._owner = None
        return self._owner

    @property
    def content(self) -> JournalContent:
        """The content of the disk, for inspection; there must have been an owner."""
        assert self.owner or self._content, "no journal was opened on this disk"
        assert self._content is not None
        return self._content

    @property
    def free_bytes(self) -> int:
        """Bytes free beside the journal, its reserve and the files of others."""
        content = self._content
        used_bytes = self._reserve_bytes + (content.stored_bytes + content.state_bytes if content else 0)
        return max(0, self._room_bytes - used_bytes)

    def leave(self, free_bytes: int) -> None:
        """Let others fill the disk up to this number of free bytes; they take nothing that the journal has."""
        self._room_bytes += free_bytes - self.free_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes that the reserve lacks."""
        return max(0, self._wanted_bytes - self._reserve_bytes)

    @property
    def _wanted_bytes(self) -> int:
        return self.rules.reserve_bytes(self._content.state_bytes if self._content else 0)

    def hold(self) -> bool:
        """Allocate what the reserve lacks, or free what it has too much; return whether it lacks nothing."""
        if self._reserve_bytes > 2 * self._wanted_bytes:
            self._reserve_bytes = self._wanted_bytes
        if self.missing_bytes <= self.free_bytes:
            self._reserve_bytes += self.missing_bytes
        return not self.missing_bytes

    def make_room(self, frame_bytes: int) -> None:
        """
        Make room for frames beside the reserve; drop acknowledged frames where they lack it.

        Raises:
            JournalFull: There is not enough.
        """
        content, needed_bytes = self.content, self.rules.needed_bytes(frame_bytes, 0)
        while not (self.hold() and self.free_bytes >= needed_bytes):
            try:
                self.take(PAGE_BYTES)
            except JournalWriteFailed as error:
                raise JournalFull(_FULL) from error
            if not content.trim(self.rules.history_bytes(KEEP_BYTES, is_pressed=True)) and not self._adapt():
                raise JournalFull(_FULL)

    def _adapt(self) -> bool:
        """Follow the rules for the present disk; return whether the reserve gave room."""
        reserve_bytes, self.rules = self._reserve_bytes, min(self.rules, DiskRules(self._room_bytes))
        self._reserve_bytes = min(reserve_bytes, self._wanted_bytes)
        return self._reserve_bytes < reserve_bytes

    def take(self, written_bytes: int) -> None:
        """
        Check that the disk accepts a write to the log and to the database; give the reserve up for it.

        Raises:
            JournalWriteFailed: The disk is full.
        """
        self.check_accepts_writes()
        if self.free_bytes < 2 * written_bytes:
            self._reserve_bytes = 0
        if self.free_bytes < 2 * written_bytes:
            raise JournalWriteFailed(_REFUSED)

    def slow(self, delay_s: float) -> None:
        """Add a delay to each commit from the next one on; 0 ends it."""
        self._slow_s = delay_s

    def fail_writes(self, fails: bool) -> None:
        """Refuse writes, as a full disk does, or accept them again."""
        self._is_full = fails

    def tear(self, groups: int = 1) -> int:
        """
        Truncate the last groups, with all that was written after the first of them; return the number of frames.

        The watermark stays ahead of the log, unless the last group was written as its process was killed.
        """
        return self._unowned_content.tear(groups)

    def lose_group(self, back: int) -> int:
        """Make the group unreadable that has `back` others after it; return its number of frames."""
        return self._unowned_content.lose_group(back)

    def lose_state(self) -> None:
        """Make the saved state unreadable."""
        self._unowned_content.lose_state()

    def lose_watermark(self) -> None:
        """Remove the watermark, so that the end of the log is unknown."""
        self._unowned_content.lose_watermark()

    @property
    def _unowned_content(self) -> JournalContent:
        assert self.owner is None, "files are damaged between two owners"
        return self.content

    def check_accepts_writes(self) -> None:
        """
        Check that the disk accepts a write.

        Raises:
            JournalWriteFailed: It refuses all writes.
        """
        if self._is_full:
            raise JournalWriteFailed(_REFUSED)

    def release(self) -> None:
        """Release the lock."""
        self._owner = None

    def after_commit(self, committed: Callable[[], None]) -> None:
        """Call `committed` when a commit that begins now has ended."""
        delay_s = self._slow_s + self._commit_s * (0.5 + self._random.random())
        asyncio.get_running_loop().call_later(delay_s, committed, context=self._context)


class _Call:
    """A write other than frames, or the close."""

    __slots__ = ("run", "waiter", "written_bytes")

    def __init__(self, run: Callable[[], None], waiter: asyncio.Future[None], *, written_bytes: int = 0) -> None:
        self.run = run
        self.waiter = waiter
        self.written_bytes = written_bytes


class MemoryFrameLog:
    """
    The journal of one process on a `Disk`; see `Journal` for the guarantees of its methods.

    Once the process has ended, calls change nothing and are never answered.
    """

    def __init__(
        self, disk: Disk, lifetime: Lifetime, content: JournalContent, *, max_bytes: int, recovery: Recovery
    ) -> None:
        """Create the log; use `Disk.open` instead."""
        self.journal_id = content.journal_id
        self.recovery = recovery
        self.ended_cleanly = content.watermark.ended_cleanly
        content.begin()
        self._disk = disk
        self._lifetime = lifetime
        self._content = content
        self._max_bytes = max_bytes
        self._jobs: deque[Append | _Call] = deque()
        self._under_way: list[Append] | _Call | None = None
        self._in_flight_bytes = 0
        self._epoch = 0
        self._failed_epoch = -1
        self._is_closed = False

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._lifetime.is_dead

    @property
    def last_position(self) -> int:
        """Position of the last durable frame; 0 when there is none."""
        return self._content.last_position

    @property
    def state_position(self) -> int:
        """Position the saved state belongs to; 0 when there is none."""
        return self._content.state_position

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the frames after `state_position`, including those under way to the disk."""
        return self._content.backlog_bytes + self._in_flight_bytes

    @property
    def is_owned(self) -> bool:
        """Whether this log still holds the lock."""
        return self._disk.owner is self

    @property
    def bound_bytes(self) -> int:
        """Bound on `backlog_bytes`."""
        return self._disk.rules.bound_bytes(
            self._max_bytes,
            stored_bytes=self._content.stored_bytes,
            free_bytes=self._disk.free_bytes,
            reserve_missing_bytes=self._disk.missing_bytes,
        )

    async def append(self, frames: Sequence[Frame]) -> int:
        """Write frames durably and return the position of the first; calls may overlap, and share commits."""
        if not frames:
            raise ValueError("an append needs at least one frame")
        frame_bytes = counted_bytes(frames)
        backlog_bytes = self.backlog_bytes
        if backlog_bytes and backlog_bytes + frame_bytes > self._max_bytes:
            raise JournalFull(f"{backlog_bytes} bytes of frames wait for Kafka, the bound is {self._max_bytes}")
        waiter: asyncio.Future[int] = self._waiter()
        self._in_flight_bytes += frame_bytes
        self._hand_over(Append(frames, frame_bytes, self._epoch, waiter))
        return await waiter

    async def save_state(self, position: int, state: bytes) -> None:
        """Save durably the state that belongs to `position`; everything up to it is acknowledged by Kafka."""
        if not self.state_position <= position <= self.last_position:
            raise ValueError(f"state of position {position}, expected {self.state_position} to {self.last_position}")
        await self._call(partial(self._save_state, position, state), written_bytes=len(state))

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the position and the state saved last; (0, None) when none ever was, empty when it is lost."""
        self._check_is_open()
        return self._content.load_state()

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """Return up to `limit` frames that follow position `after`, in order; empty at the end."""
        self._check_is_open()
        return self._content.read(after, limit=limit)

    async def add_dead_letter(self, letter: RefusedRecord) -> None:
        """Keep durably a record that no topic accepts; the same one again counts another attempt."""
        await self._call(partial(self._content.add_dead_letter, letter), written_bytes=len(letter.body))

    def dead_letters(self) -> list[RefusedRecord]:
        """Return the records that no topic accepted, by position."""
        self._check_is_open()
        return self._content.dead_letters

    async def close(self, *, clean: bool) -> None:
        """Write the pending jobs, then release the journal."""
        if self._is_closed:
            return
        waiter = self._waiter()
        self._is_closed = True
        self._hand_over(_Call(partial(self._end, clean), waiter))
        await waiter

    def write_unfinished_jobs(self, random: Random) -> None:
        """
        Write the jobs that reached the disk before a kill: none, or some of the pending ones from the first on.

        The writer may have been some jobs ahead of what the process had observed. It writes the watermark just after a
        commit; the kill may come in between.
        """
        job, self._under_way = self._under_way, None
        with suppress(JournalError):
            while job is not None and random.random() < 0.5:
                self._write(job)
                job = self._gather() if self._jobs else None
                if job is not None or random.random() < 0.5:
                    self._content.note()

    def _end(self, clean: bool) -> None:
        self._content.watermark.ended_cleanly = clean
        self._disk.release()

    def _save_state(self, position: int, state: bytes) -> None:
        self._content.save_state(position, state)
        while not self._disk.hold() and self._content.trim(0):
            pass
        history_bytes = self._disk.rules.history_bytes(KEEP_BYTES, is_pressed=False)
        if self._content.overdue_bytes(history_bytes) >= TRIM_BYTES:
            self._content.trim(history_bytes)

    async def _call(self, run: Callable[[], None], *, written_bytes: int) -> None:
        waiter = self._waiter()
        self._hand_over(_Call(run, waiter, written_bytes=written_bytes + 1))
        await waiter

    def _check_is_open(self) -> None:
        if self._is_closed:
            raise JournalError("the journal is closed")

    def _waiter(self) -> asyncio.Future[Any]:
        self._check_is_open()
        return asyncio.get_running_loop().create_future()

    def _hand_over(self, job: Append | _Call) -> None:
        if self._lifetime.is_dead:
            return
        self._jobs.append(job)
        if self._under_way is None:
            self._begin_next()

    def _begin_next(self) -> None:
        while self._jobs:
            job = self._gather()
            if isinstance(job, list) and job[0].epoch <= self._failed_epoch:
                self._settle(job, 0, JournalWriteFailed("an earlier batch could not be written"))
                continue
            self._under_way = job
            self._disk.after_commit(self._committed)
            return

    def _gather(self) -> list[Append] | _Call:
        """Take the next job; an append takes the appends that wait after it along."""
        first = self._jobs.popleft()
        if isinstance(first, _Call):
            return first
        group, frames, frame_bytes = [first], len(first.frames), first.frame_bytes
        while self._jobs and frames < GROUP_FRAMES and frame_bytes < self._disk.rules.group_bytes:
            job = self._jobs[0]
            if isinstance(job, _Call) or job.epoch != first.epoch:
                break
            self._jobs.popleft()
            group.append(job)
            frames += len(job.frames)
            frame_bytes += job.frame_bytes
        return group

    def _committed(self) -> None:
        job = self._under_way
        if job is None or self._lifetime.is_dead:
            return
        self._under_way = None
        first, error = 0, None
        try:
            first = self._write(job)
            self._content.note()
        except JournalError as caught:
            error = caught
        self._settle(job, first, error)
        self._begin_next()

    def _write(self, job: list[Append] | _Call) -> int:
        """Write a job, and return the position of its first frame."""
        if isinstance(job, _Call):
            if job.written_bytes:
                self._disk.take(job.written_bytes)
            job.run()
            return 0
        try:
            self._disk.check_accepts_writes()
            self._disk.make_room(sum(append.frame_bytes for append in job))
        except JournalError:
            self._failed_epoch = job[0].epoch
            raise
        if len(job) == 1:
            return self._content.append(job[0].frames, job[0].frame_bytes)
        frames = [frame for append in job for frame in append.frames]
        return self._content.append(frames, sum(append.frame_bytes for append in job))

    def _settle(self, job: list[Append] | _Call, first: int, error: JournalError | None) -> None:
        if isinstance(job, _Call):
            _answer(job.waiter, None, error)
            return
        for append in job:
            self._in_flight_bytes -= append.frame_bytes
            if error is not None:
                self._epoch = max(self._epoch, append.epoch + 1)
            _answer(append.waiter, first, error)
            first += len(append.frames)


def _answer(waiter: asyncio.Future[Any], answer: int | None, error: JournalError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(answer)
    else:
        waiter.set_exception(type(error)(str(error)))
