"""The thread that owns the database: it commits what the event loop hands over, and tidies up between."""

import asyncio
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

import structlog

from hedgelock_ingest.errors import JournalDamaged, JournalError, JournalWriteFailed
from hedgelock_ingest.journal.store import Store
from hedgelock_ingest.journal.watermark import Mark
from hedgelock_ingest.protocol.frames import Frame

GROUP_FRAMES = 1_000
GROUP_BYTES = 1024 * 1024
_CHORE_PAUSE_S = 1.0

log = structlog.get_logger()


class Append:
    """A batch on its way to the disk; several may share a commit."""

    __slots__ = ("epoch", "frame_bytes", "frames", "waiter")

    def __init__(self, frames: Sequence[Frame], frame_bytes: int, epoch: int, waiter: asyncio.Future[int]) -> None:
        self.frames = frames
        self.frame_bytes = frame_bytes
        self.epoch = epoch
        self.waiter = waiter


class Call:
    """Any other work for the database, between two groups."""

    __slots__ = ("run", "waiter")

    def __init__(self, run: Callable[[Store], Any], waiter: asyncio.Future[Any]) -> None:
        self.run = run
        self.waiter = waiter


type Job = Append | Call | None
type Settle = Callable[[list[Append], int, JournalError | None], None]


class Writer:
    """
    Takes jobs in order; answers them on the event loop.

    When an append fails, those handed over before the failure was answered fail too, so that a caller who
    retries keeps the order of its frames.
    """

    def __init__(self, store: Store, mark: Mark, settle: Settle) -> None:
        self._store = store
        self._mark = mark
        self._settle = settle
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._held: list[Job] = []
        self._failed_epoch = -1
        self._chores_from = 0.0
        self._thread = Thread(target=self._run, name="journal-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hand_over(self, job: Append | Call) -> None:
        """Queue a job; called on the event loop that its waiter belongs to."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Finish what is queued, then end the thread. Blocks until then."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            if isinstance(job, Append):
                self._append(self._gather(job))
            else:
                self._call(job)
            if self._store.has_urgent_chore:
                self._do_chore()

    def _next_job(self) -> Job:
        if self._held:
            return self._held.pop()
        while self._store.has_chore and monotonic() >= self._chores_from:
            try:
                return self._jobs.get_nowait()
            except Empty:
                self._do_chore()
        return self._jobs.get()

    def _do_chore(self) -> None:
        if monotonic() < self._chores_from:
            return
        try:
            self._store.do_chore()
        except Exception as error:  # noqa: BLE001
            # Nothing is lost by tidying later; an append that fails for the same reason is what tells the caller.
            self._chores_from = monotonic() + _CHORE_PAUSE_S
            log.warning("journal_chore_failed", cause=str(self._described(error)))

    def _gather(self, first: Append) -> list[Append]:
        """Take the appends that wait already into one group."""
        group, frames, frame_bytes = [first], len(first.frames), first.frame_bytes
        while frames < GROUP_FRAMES and frame_bytes < GROUP_BYTES:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if not isinstance(job, Append) or job.epoch != first.epoch:
                self._held.append(job)
                break
            group.append(job)
            frames += len(job.frames)
            frame_bytes += job.frame_bytes
        return group

    def _append(self, group: list[Append]) -> None:
        first = 0
        error: JournalError | None = None
        if group[0].epoch <= self._failed_epoch:
            error = JournalWriteFailed("an earlier batch could not be written")
        else:
            try:
                first = self._store.append(
                    group[0].frames if len(group) == 1 else [frame for job in group for frame in job.frames],
                    sum(job.frame_bytes for job in group),
                )
                self._note()
            except Exception as caught:  # noqa: BLE001
                error = self._described(caught)
                self._failed_epoch = group[0].epoch
        self._answer(group[0].waiter, self._settle, group, first, error)

    def _call(self, call: Call) -> None:
        answer, error = None, None
        try:
            answer = call.run(self._store)
            self._note()
        except Exception as caught:  # noqa: BLE001
            error = self._described(caught)
        self._answer(call.waiter, _resolve, call.waiter, answer, error)

    def _note(self) -> None:
        self._mark.note(last_position=self._store.last_position, state_position=self._store.state_position)

    def _described(self, error: Exception) -> JournalError:
        if isinstance(error, JournalDamaged):
            self._mark.note_damage()
        if isinstance(error, JournalWriteFailed):
            self._store.make_room()
        if isinstance(error, JournalError):
            return error
        wrapped = JournalError(f"the journal's writer failed: {error!r}")
        wrapped.__cause__ = error
        return wrapped

    def _answer(self, waiter: asyncio.Future[Any], answer: Callable[..., None], *arguments: object) -> None:
        try:
            waiter.get_loop().call_soon_threadsafe(answer, *arguments)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return


def _resolve(waiter: asyncio.Future[Any], answer: object, error: JournalError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(answer)
    else:
        waiter.set_exception(error)
