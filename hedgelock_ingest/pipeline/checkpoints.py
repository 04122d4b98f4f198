"""Checkpoints: the state saved with an acknowledged position, from which a restart continues."""

import asyncio

import msgspec
import structlog

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import JournalError
from hedgelock_ingest.models.topics import Offsets
from hedgelock_ingest.pipeline.options import StreamOptions
from hedgelock_ingest.pipeline.ports import FrameLog, Sink
from hedgelock_ingest.translate.translator import Translator

log = structlog.get_logger(__name__)

_READ_FRAMES = 1_000


class Checkpoint(msgspec.Struct, frozen=True):
    """State saved with an acknowledged position: the translator's state, and the end offsets of the topics."""

    translator: bytes
    offsets: Offsets


class Checkpoints:
    """Saves the translator's state and the topics' end offsets every few seconds, and loads the last checkpoint."""

    def __init__(self, journal: FrameLog, sink: Sink, options: StreamOptions, clock: Clock) -> None:
        """Save into `journal`."""
        self._journal = journal
        self._sink = sink
        self._options = options
        self._clock = clock
        self._unsaved: tuple[int, bytes] | None = None
        self._wanted = asyncio.Event()
        self._lock = asyncio.Lock()
        self._saved_s = float("-inf")
        self._is_refused = False

    @property
    def is_due(self) -> bool:
        """Whether the save interval has passed, or the journal is filling up."""
        is_pressing = self._journal.backlog_bytes * 4 > self._journal.bound_bytes
        return is_pressing or self._clock.monotonic() - self._saved_s >= self._options.save_interval_s

    def offer(self, translator: Translator, position: int) -> None:
        """Save the state soon if it is due; `translator` is at `position`, which Kafka has acknowledged."""
        if position <= self._journal.state_position or not self.is_due:
            return
        self._saved_s = self._clock.monotonic()
        self.put(translator, position)
        self._wanted.set()

    def put(self, translator: Translator, position: int) -> None:
        """Encode the current state, to be saved next."""
        self._unsaved = position, _checkpoint(translator, self._sink.offsets_at(position))

    async def run(self) -> None:
        """Save what is offered, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.save()
            except JournalError as error:
                if not error.transient:
                    raise
                self.note_refusal(error)

    def note_refusal(self, error: JournalError) -> None:
        """Log that the disk refuses what must be saved before publishing continues; once until a state is saved."""
        if not self._is_refused:
            log.error("state_not_saved", message=str(error))
        self._is_refused = True

    async def save(self) -> None:
        """
        Save the state that was put, unless it is saved already.

        Raises:
            JournalError: The disk refuses it.
        """
        async with self._lock:
            if self._unsaved is not None:
                (position, state), self._unsaved = self._unsaved, None
                await self._save(position, state)

    async def load(self) -> tuple[int, Translator, Offsets | None]:
        """
        Load the last checkpoint; offsets are None if nothing was ever published, empty if that is not known.

        Raises:
            JournalError: The journal is damaged, or the disk refuses a rebuilt state.
        """
        await self.save()
        async with self._lock:
            position, saved = await asyncio.to_thread(self._journal.load_state)
            if saved is None:
                return position, self._translator(None), None
            try:
                checkpoint = msgspec.msgpack.decode(saved, type=Checkpoint)
                return position, self._translator(checkpoint.translator), checkpoint.offsets
            except msgspec.DecodeError as error:
                log.error("state_lost", position=position, reason=str(error))
            translator = await asyncio.to_thread(self._rebuilt, position)
            translator.counts.clear()
            await self._save(position, _checkpoint(translator, {}))
            return position, translator, {}

    async def _save(self, position: int, state: bytes) -> None:
        await self._journal.save_state(position, state)
        self._is_refused = False

    def _rebuilt(self, position: int) -> Translator:
        """Rebuild a lost state from the frames that the journal still has; the state before them is unknown."""
        translator, after = self._translator(None), 0
        while frames := self._journal.read(after, limit=_READ_FRAMES):
            for number, frame in frames:
                if after < position and number != after + 1:
                    translator.lose_frames(frame.received_ns // 1_000_000)
                if number > position:
                    return translator
                translator.translate(number, frame)
                after = number
        if after < position:
            translator.lose_frames(wall_ms(self._clock))
        return translator

    def _translator(self, state: bytes | None) -> Translator:
        depth, interval_ms = self._options.state_depth, self._options.state_interval_ms
        account_id = self._options.account_id
        return Translator(state, account_id=account_id, state_depth=depth, state_interval_ms=interval_ms)


def _checkpoint(translator: Translator, offsets: Offsets) -> bytes:
    return msgspec.msgpack.encode(Checkpoint(translator.save(), offsets))
