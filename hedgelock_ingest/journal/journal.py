"""The journal: the durable local log of received frames, and the only buffer between Bybit and Kafka."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Self

from hedgelock_ingest.errors import JournalDamaged, JournalError, JournalFull, JournalWriteFailed
from hedgelock_ingest.journal.faults import write_error
from hedgelock_ingest.journal.files import Files
from hedgelock_ingest.journal.groups import size_of
from hedgelock_ingest.journal.lock import Ownership
from hedgelock_ingest.journal.reader import Reader
from hedgelock_ingest.journal.recovery import recover
from hedgelock_ingest.journal.schema import connect_reader
from hedgelock_ingest.journal.store import Store
from hedgelock_ingest.journal.values import Recovery, RefusedRecord
from hedgelock_ingest.journal.watermark import Mark
from hedgelock_ingest.journal.writer import Append, Call, Writer
from hedgelock_ingest.protocol.frames import Frame


class Journal:
    """
    Frames in the order they were accepted, numbered 1, 2, 3, …, durable before anything is done with them.

    Opened without an event loop; its coroutines may be called from one loop, its other methods from any thread.
    After `close` nothing else may be called.
    """

    def __init__(
        self,
        directory: Path,
        ownership: Ownership,
        mark: Mark,
        store: Store,
        reader: Reader,
        *,
        max_bytes: int,
        recovery: Recovery,
    ) -> None:
        """Join the parts; use `open`."""
        self._directory = directory
        self._ownership = ownership
        self._mark = mark
        self._store = store
        self._reader = reader
        self._max_bytes = max_bytes
        self._in_flight_bytes = 0
        self._epoch = 0
        self._is_closed = False
        self.journal_id = store.journal_id
        self.recovery = recovery
        self.ended_cleanly = mark.ended_cleanly and mark.journal_id == store.journal_id
        mark.begin(store.journal_id, last_position=store.last_position, state_position=store.state_position)
        self._writer = Writer(store, mark, self._settle)
        self._writer.start()

    @classmethod
    def open(cls, directory: Path, *, max_bytes: int) -> Self:
        """
        Take the journal in `directory`, make it if there is none, and recover what a crash or a fault left.

        Args:
            directory: One folder a shard; made readable by its owner alone.
            max_bytes: Bound of the frames that are not acknowledged.

        Raises:
            JournalLocked: Another process owns it.
            JournalDamaged: It was written by a version of this program that this one does not know.
            JournalWriteFailed: The disk, or the rights on the folder, refuse what opening has to write.
        """
        files = Files(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with ExitStack() as opened:
                return cls._open(files, max_bytes, opened)
        except sqlite3.Error as error:
            raise write_error(error) from error
        except OSError as error:
            raise JournalWriteFailed(f"journal {directory} cannot be opened: {error}") from error

    @classmethod
    def _open(cls, files: Files, max_bytes: int, opened: ExitStack) -> Self:
        ownership = Ownership(files.lock)
        opened.callback(ownership.release)
        mark = opened.enter_context(Mark(files.mark))
        recovery = recover(files, mark)
        reading = Lock()
        store = Store(files.database, reading)
        opened.callback(store.close)
        reader = Reader(connect_reader(files.database), reading)
        opened.callback(reader.close)
        journal = cls(files.directory, ownership, mark, store, reader, max_bytes=max_bytes, recovery=recovery)
        opened.pop_all()
        return journal

    @property
    def last_position(self) -> int:
        """Position of the last durable frame; 0 when there is none."""
        return self._store.last_position

    @property
    def state_position(self) -> int:
        """Position the saved state belongs to; 0 when there is none."""
        return self._store.state_position

    @property
    def backlog_bytes(self) -> int:
        """Bytes of the frames after `state_position`, with those on their way to the disk."""
        return self._store.backlog_bytes + self._in_flight_bytes

    @property
    def is_owned(self) -> bool:
        """Whether the lock still keeps others away; not after the folder was deleted or replaced."""
        return self._ownership.is_held

    @property
    def free_bytes(self) -> int:
        """Bytes free on the disk that the folder lies on."""
        return shutil.disk_usage(self._directory).free

    async def append(self, frames: Sequence[Frame]) -> int:
        """
        Write frames durably and return the position of the first; the others follow it without a hole.

        Calls may overlap: they are written in the order of the calls, and share commits. When one fails, those
        made before its failure was seen fail as well, so frames tried again keep their order. A cancelled call
        may still be written.

        Raises:
            JournalFull: The bound of unacknowledged bytes would be exceeded.
            JournalWriteFailed: The disk refused; none of the frames is in the journal, and a later call may
                succeed.
            JournalDamaged: The database is damaged; opening the journal again recovers it.
        """
        if not frames:
            raise ValueError("an append needs at least one frame")
        frame_bytes = size_of(frames)
        backlog_bytes = self.backlog_bytes
        # What is larger than the bound alone is taken when nothing else waits, or it could never be.
        if backlog_bytes and backlog_bytes + frame_bytes > self._max_bytes:
            raise JournalFull(f"{backlog_bytes} bytes of frames wait for Kafka, the bound is {self._max_bytes}")
        waiter: asyncio.Future[int] = self._waiter()
        self._in_flight_bytes += frame_bytes
        self._writer.hand_over(Append(frames, frame_bytes, self._epoch, waiter))
        return await waiter

    async def save_state(self, position: int, state: bytes) -> None:
        """
        Save durably the state that belongs to `position`; everything up to it is acknowledged by Kafka.

        Acknowledged frames no longer count against the bound, and are deleted once they are older than the
        history kept for `replay`.

        Raises:
            JournalWriteFailed: The disk refused; the earlier state stands.
        """
        if not self.state_position <= position <= self.last_position:
            raise ValueError(f"state of position {position}, expected {self.state_position} to {self.last_position}")
        await self._call(lambda store: store.save_state(position, state))

    def load_state(self) -> tuple[int, bytes | None]:
        """Return the position and the state saved last; (0, None) when none ever was, empty when it is lost."""
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
            self._mark.note_damage()
            raise

    async def add_dead_letter(self, letter: RefusedRecord) -> None:
        """
        Keep durably a record that no topic can take; the same one again counts an attempt more.

        Raises:
            JournalWriteFailed: The disk refused.
        """
        await self._call(lambda store: store.add_dead_letter(letter))

    def dead_letters(self) -> list[RefusedRecord]:
        """Return the records that no topic could take, by position."""
        return self._reader.dead_letters()

    async def close(self, *, clean: bool) -> None:
        """
        Write what was handed over, then give the journal up.

        Args:
            clean: Nothing made from its frames is under way to Kafka any more; the next owner need not settle.
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
            self._mark.note_clean_end()
        self._mark.close()
        self._ownership.release()

    async def _call[T](self, run: Callable[[Store], T]) -> T:
        waiter: asyncio.Future[T] = self._waiter()
        self._writer.hand_over(Call(run, waiter))
        return await waiter

    def _waiter(self) -> asyncio.Future[Any]:
        if self._is_closed:
            raise JournalError("the journal is closed")
        return asyncio.get_running_loop().create_future()

    def _settle(self, group: list[Append], first: int, error: JournalError | None) -> None:
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
