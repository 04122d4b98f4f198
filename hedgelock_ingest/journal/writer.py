"""The writer thread of the database: it commits jobs of the event loop, and does housekeeping between them."""

import asyncio
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

import structlog

from hedgelock_ingest.errors import JournalDamaged, JournalError, JournalWriteFailed
from hedgelock_ingest.journal.store import Store
from hedgelock_ingest.journal.watermark import WatermarkFile
from hedgelock_ingest.protocol.frames import Frame

GROUP_FRAMES = 1_000
_HOUSEKEEPING_RETRY_S = 1.0

log = structlog.get_logger(__name__)


class Append:
    """A job that appends frames; several may share a commit."""

    __slots__ = ("epoch", "frame_bytes", "frames", "waiter")

    def __init__(self, frames: Sequence[Frame], frame_bytes: int, epoch: int, waiter: asyncio.Future[int]) -> None:
        self.frames = frames
        self.frame_bytes = frame_bytes
        self.epoch = epoch
        self.waiter = waiter


class Call:
    """Any other job for the database, run between two groups."""

    __slots__ = ("run", "waiter")

    def __init__(self, run: Callable[[Store], Any], waiter: asyncio.Future[Any]) -> None:
        self.run = run
        self.waiter = waiter


type Job = Append | Call | None
type ResolveAppends = Callable[[list[Append], int, JournalError | None], None]


class Writer:
    """
    Runs jobs in order; resolves them on the event loop.

    When an append fails, those submitted before the failure was reported fail too, so that a caller who retries keeps
    the order of its frames.
    """

    def __init__(self, store: Store, watermark: WatermarkFile, resolve_appends: ResolveAppends) -> None:
        self._store = store
        self._watermark = watermark
        self._resolve_appends = resolve_appends
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._held: list[Job] = []
        self._failed_epoch = -1
        self._housekeeping_from_s = 0.0
        self._housekeeping_cause: str | None = None
        self._thread = Thread(target=self._run, name="journal-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Append | Call) -> None:
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
            if self._store.needs_urgent_housekeeping:
                self._run_housekeeping()

    def _next_job(self) -> Job:
        if self._held:
            return self._held.pop()
        while self._store.needs_housekeeping and monotonic() >= self._housekeeping_from_s:
            try:
                return self._jobs.get_nowait()
            except Empty:
                self._run_housekeeping()
        return self._jobs.get()

    def _run_housekeeping(self) -> None:
        if monotonic() < self._housekeeping_from_s:
            return
        try:
            self._store.run_housekeeping()
            self._housekeeping_cause = None
        except Exception as error:  # noqa: BLE001
            # Housekeeping can wait; an append that fails for the same reason reports it to the caller.
            self._housekeeping_from_s = monotonic() + _HOUSEKEEPING_RETRY_S
            earlier, self._housekeeping_cause = self._housekeeping_cause, str(self._described(error))
            if earlier != self._housekeeping_cause:
                log.warning("journal_housekeeping_failed", cause=self._housekeeping_cause)

    def _gather(self, first: Append) -> list[Append]:
        """Collect the appends that are already queued into one group."""
        group, frames, frame_bytes = [first], len(first.frames), first.frame_bytes
        while frames < GROUP_FRAMES and frame_bytes < self._store.group_bytes:
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
                self._note_watermark()
            except Exception as caught:  # noqa: BLE001
                error = self._described(caught)
                self._failed_epoch = group[0].epoch
        self._call_on_loop(group[0].waiter, self._resolve_appends, group, first, error)

    def _call(self, call: Call) -> None:
        answer, error = None, None
        try:
            answer = call.run(self._store)
            self._note_watermark()
        except Exception as caught:  # noqa: BLE001
            error = self._described(caught)
        self._call_on_loop(call.waiter, _resolve, call.waiter, answer, error)

    def _note_watermark(self) -> None:
        self._watermark.note(last_position=self._store.last_position, state_position=self._store.state_position)

    def _described(self, error: Exception) -> JournalError:
        if isinstance(error, JournalDamaged):
            self._watermark.note_damage()
        if isinstance(error, JournalWriteFailed):
            self._store.write_refused()
        if isinstance(error, JournalError):
            return error
        wrapped = JournalError(f"the journal's writer failed: {error!r}")
        wrapped.__cause__ = error
        return wrapped

    def _call_on_loop(self, waiter: asyncio.Future[Any], callback: Callable[..., None], *arguments: object) -> None:
        try:
            waiter.get_loop().call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, so no caller waits.
            return


def _resolve(waiter: asyncio.Future[Any], answer: object, error: JournalError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(answer)
    else:
        waiter.set_exception(error)
