"""The journal: the durable local log of received frames, the only buffer between Bybit and Kafka."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Self

import structlog

from hedgelock_ingest.errors import JournalDamaged, JournalError, JournalFull, JournalWriteFailed
from hedgelock_ingest.journal.commit_group import counted_bytes
from hedgelock_ingest.journal.disk_room import DiskRoom, free_bytes_at
from hedgelock_ingest.journal.disk_rules import KEEP_BYTES, LEAST_DISK_BYTES
from hedgelock_ingest.journal.files import JournalFiles
from hedgelock_ingest.journal.lock import JournalLock
from hedgelock_ingest.journal.reader import Reader
from hedgelock_ingest.journal.recovery.recover import recover
from hedgelock_ingest.journal.results import Recovery
from hedgelock_ingest.journal.schema import connect_reader
from hedgelock_ingest.journal.sqlite_errors import write_error
from hedgelock_ingest.journal.store import Store
from hedgelock_ingest.journal.watermark import WatermarkFile
from hedgelock_ingest.journal.writer import Append, Call, Writer
from hedgelock_ingest.protocol.frames import Frame
from hedgelock_ingest.translate.record import RefusedRecord

log = structlog.get_logger(__name__)


class Journal:
    """
    Durable frames in the order they were accepted, numbered 1, 2, 3, ….

    Opened without an event loop; its coroutines may be called from one loop, its other methods from any thread.
    After `close` no method may be called.
    """

    def __init__(
        self,
        lock: JournalLock,
        watermark: WatermarkFile,
        store: Store,
        reader: Reader,
        *,
        max_bytes: int,
        recovery: Recovery,
    ) -> None:
        """Assemble the parts; callers use `open`."""
        self._lock = lock
        self._watermark = watermark
        self._store = store
        self._reader = reader
        self._max_bytes = max_bytes
        self._in_flight_bytes = 0
        self._epoch = 0
        self._is_closed = False
        self.journal_id = store.journal_id
        self.recovery = recovery
        self.ended_cleanly = watermark.ended_cleanly and watermark.journal_id == store.journal_id
        watermark.begin(store.journal_id, last_position=store.last_position, state_position=store.state_position)
        self._writer = Writer(store, watermark, self._resolve_appends)
        self._writer.start()

    @classmethod
    def open(cls, directory: Path, *, max_bytes: int, keep_bytes: int = KEEP_BYTES) -> Self:
        """
        Lock the journal in `directory`, create it if there is none, and recover it after a crash or a fault.

        Args:
            directory: One folder per shard; created readable by its user alone.
            max_bytes: Bound on the bytes of unacknowledged frames.
            keep_bytes: Acknowledged frames that stay for `replay`; fewer on a small or full disk.

        Raises:
            JournalLocked: Another process owns it.
            JournalDamaged: An unsupported version of this program wrote it.
            JournalWriteFailed: The disk, or the rights on the folder, refuse the writes of opening.
        """
        files = JournalFiles(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with ExitStack() as opened:
                lock = JournalLock(files.lock)
                opened.callback(lock.release)
                journal = cls._open_with_reserve(files, lock, max_bytes=max_bytes, keep_bytes=keep_bytes)
                opened.pop_all()
                return journal
        except sqlite3.Error as error:
            translated = write_error(error)
            raise type(translated)(f"{translated}{_lack_of_room(directory)}") from error
        except OSError as error:
            text = f"journal {directory} cannot be opened: {error}{_lack_of_room(directory)}"
            raise JournalWriteFailed(text) from error

    @classmethod
    def _open_with_reserve(cls, files: JournalFiles, lock: JournalLock, *, max_bytes: int, keep_bytes: int) -> Self:
        """Open the files; when the disk refuses it, give the reserve up and open them again."""
        room = DiskRoom(files)
        try:
            return cls._open(files, lock, room, max_bytes=max_bytes, keep_bytes=keep_bytes)
        except (sqlite3.Error, OSError, JournalWriteFailed):
            if not room.release():
                raise
        return cls._open(files, lock, room, max_bytes=max_bytes, keep_bytes=keep_bytes)

    @classmethod
    def _open(cls, files: JournalFiles, lock: JournalLock, room: DiskRoom, *, max_bytes: int, keep_bytes: int) -> Self:
        with ExitStack() as opened:
            watermark = opened.enter_context(WatermarkFile(files.watermark))
            recovery = recover(files, watermark)
            read_lock = Lock()
            store = Store(files, read_lock, room, keep_bytes=keep_bytes)
            opened.callback(store.close)
            reader = Reader(connect_reader(files.database), read_lock)
            opened.callback(reader.close)
            journal = cls(lock, watermark, store, reader, max_bytes=max_bytes, recovery=recovery)
            opened.pop_all()
            return journal

    @property
    def last_position(self) -> int:
        """Position of the last durable frame; 0 when there is none."""
        return self._store.last_position

    @property
    def state_position(self) -> int:
        """Position of the saved state; 0 when there is none."""
        return self._store.state_position

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the frames after `state_position`, including those not yet written."""
        return self._store.backlog_bytes + self._in_flight_bytes

    @property
    def is_owned(self) -> bool:
        """Whether the lock still excludes other processes; false after the folder was deleted or replaced."""
        return self._lock.is_held

    @property
    def bound_bytes(self) -> int:
        """Bound on `backlog_bytes`: `max_bytes`, or less where the disk has no room for that much now."""
        return self._store.bound_bytes(self._max_bytes)

    async def append(self, frames: Sequence[Frame]) -> int:
        """
        Write frames durably and return the position of the first; the others follow it consecutively.

        Calls may overlap: they are written in the order of the calls, and share commits. When one fails, those made
        before the failure was reported fail as well, so retried frames keep their order. The frames of a cancelled call
        may still be written.

        Raises:
            JournalFull: The bound of unacknowledged bytes would be exceeded, or the disk has no room.
            JournalWriteFailed: The disk refused the write; none of the frames is in the journal, and a later call
                may succeed.
            JournalDamaged: The database is damaged; opening the journal again recovers it.
        """
        if not frames:
            raise ValueError("an append needs at least one frame")
        frame_bytes = counted_bytes(frames)
        backlog_bytes = self.backlog_bytes
        # An append larger than the bound is accepted when the backlog is empty, or it never could be.
        if backlog_bytes and backlog_bytes + frame_bytes > self._max_bytes:
            raise JournalFull(f"{backlog_bytes} bytes of frames wait for Kafka, the bound is {self._max_bytes}")
        waiter: asyncio.Future[int] = self._waiter()
        self._in_flight_bytes += frame_bytes
        self._writer.submit(Append(frames, frame_bytes, self._epoch, waiter))
        return await waiter

    async def save_state(self, position: int, state: bytes) -> None:
        """
        Save the state at `position` durably; every frame up to it is acknowledged by Kafka.

        Acknowledged frames no longer count against the bound, and are deleted once they are older than the
        history kept for `replay`.

        Raises:
            JournalWriteFailed: The disk refused the write; the earlier state remains.
        """
        if not self.state_position <= position <= self.last_position:
            raise ValueError(f"state of position {position}, expected {self.state_position} to {self.last_position}")
        await self._call(lambda store: store.save_state(position, state))

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the position and the state saved last: (0, None) if none ever was, an empty state if it is lost."""
        return self._reader.load_state()

    def read(self, after: int, *, limit: int) -> list[tuple[int, Frame]]:
        """
        Return up to `limit` frames that follow position `after`, in order; empty at the end.

        May be called from a worker thread while appends go on. Positions may jump after frames that were lost.

        Raises:
            JournalDamaged: The next frames cannot be read; opening the journal again recovers the others.
        """
        try:
            return self._reader.read(after, limit=limit)
        except JournalDamaged:
            self._watermark.note_damage()
            raise

    async def add_dead_letter(self, letter: RefusedRecord) -> None:
        """
        Store a record that Kafka refuses permanently; adding the same record again increments its attempts.

        Raises:
            JournalWriteFailed: The disk refused the write.
        """
        await self._call(lambda store: store.add_dead_letter(letter))

    def dead_letters(self) -> list[RefusedRecord]:
        """Return the records that Kafka refuses permanently, by position."""
        return self._reader.dead_letters()

    async def close(self, *, clean: bool) -> None:
        """
        Write what was submitted, then release the journal.

        Args:
            clean: No record of its frames is in flight to Kafka; the next owner need not wait for late arrivals.
        """
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.to_thread(self._close, clean)

    def _close(self, clean: bool) -> None:
        self._writer.stop()
        self._reader.close()
        self._store.close()
        if clean:
            try:
                self._watermark.note_clean_end()
            except OSError as error:
                log.warning("clean_end_not_noted", reason=str(error))
        self._watermark.close()
        self._lock.release()

    async def _call[T](self, run: Callable[[Store], T]) -> T:
        waiter: asyncio.Future[T] = self._waiter()
        self._writer.submit(Call(run, waiter))
        return await waiter

    def _waiter(self) -> asyncio.Future[Any]:
        if self._is_closed:
            raise JournalError("the journal is closed")
        return asyncio.get_running_loop().create_future()

    def _resolve_appends(self, group: list[Append], first: int, error: JournalError | None) -> None:
        for append in group:
            self._in_flight_bytes -= append.frame_bytes
            if error is not None:
                self._epoch = max(self._epoch, append.epoch + 1)
            if not append.waiter.done():
                if error is None:
                    append.waiter.set_result(first)
                else:
                    append.waiter.set_exception(type(error)(str(error)))
            first += len(append.frames)


def _lack_of_room(directory: Path) -> str:
    try:
        free_bytes = free_bytes_at(directory)
    except OSError:
        return ""
    if free_bytes >= LEAST_DISK_BYTES:
        return ""
    return f"; its disk has {free_bytes} bytes free, a new journal needs {LEAST_DISK_BYTES}"
