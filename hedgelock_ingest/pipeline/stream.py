"""The stream: what lines receive is journalled, translated and published, through every kind of trouble."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import structlog

from hedgelock_ingest.errors import (
    IngestError,
    JournalError,
    JournalFull,
    JournalWriteFailed,
    KafkaError,
    TopicMismatch,
    first_error,
)
from hedgelock_ingest.pipeline.outbox import Group, Outbox
from hedgelock_ingest.pipeline.ports import FrameLog, Offsets, Sink, Source
from hedgelock_ingest.pipeline.receiver import Arrival, Receiver
from hedgelock_ingest.pipeline.stats import Stats
from hedgelock_ingest.protocol.breaker import CircuitBreaker
from hedgelock_ingest.translate.account import PARTS
from hedgelock_ingest.translate.record import Record, RefusedRecord
from hedgelock_ingest.translate.translator import Translator

log = structlog.get_logger(__name__)

_LARGEST_APPEND_FRAMES = 1_000
_LARGEST_APPEND_BYTES = 4 * 1024 * 1024
_MANY_FRAMES = 10
_COMMIT_PACE_S = 0.006
"""At high rates a commit waits until so long after the last: fewer, larger groups leave time for publishing."""
_LARGEST_GROUP = 1_000
_MANY_WAITING = 200
"""Frames from which on the next group is translated while Kafka has not answered yet; few make too small a group."""
_TURNS_TO_SEND = 5
"""Turns of the event loop after which aiokafka has written a group's batches to its sockets."""
_LARGEST_BACKLOG_FRAMES = 200_000
"""Frames that may wait in memory for a slow disk before the lines are closed."""
_SAVE_INTERVAL_S = 5.0
"""Saving halts the loop for milliseconds when many symbols are carried: less than one frame in a hundred may notice."""
_JOURNAL_RETRY_S = 0.25
_WHEN_UNKNOWN_MS = 7 * 86_400_000


class Checkpoint(msgspec.Struct, frozen=True):
    """What is saved with an acknowledged position: the translation's state, and where the topics ended then."""

    translator: bytes
    offsets: Offsets


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Our own full order books, how long a stop may take, the journal's bound, whose account it is."""

    state_depth: int
    state_interval_ms: int
    stop_timeout_s: float
    journal_max_bytes: int
    account_id: str = "default_account"


class _Translated(NamedTuple):
    group: Group
    records: list[Record]


class Stream:
    """
    Joins the lines, the journal, the translation and Kafka.

    Two tasks carry the frames: one takes arrivals and journals them in groups, the other translates what is durable
    and publishes it in groups. Frames reach the second through memory while it keeps up, else through the journal.
    """

    def __init__(
        self, journal: FrameLog, sink: Sink, receiver: Receiver, sources: Sequence[Source], options: StreamOptions
    ) -> None:
        """Join the parts; `sources` hand their frames to `receiver`."""
        self.stats = Stats(durable_position=journal.last_position, position=journal.state_position)
        self.breaker = CircuitBreaker()
        self._journal = journal
        self._sink = sink
        self._receiver = receiver
        self._sources = sources
        self._options = options
        self._outbox = Outbox()
        self._arrived = asyncio.Event()
        self._durable = asyncio.Event()
        self._moved = asyncio.Event()
        self._unsaved: tuple[int, bytes] | None = None
        self._saving = asyncio.Event()
        self._save_lock = asyncio.Lock()
        self._saved_s = 0.0
        self._settle = not journal.ended_cleanly
        self._opened_once = False
        self._is_paused = False
        self._translating: Translator | None = None
        # Of the last owner's records some may still lie in a broker's socket, too.
        self._is_under_way = not journal.ended_cleanly
        self._is_appending = False

    def wake(self) -> None:
        """Tell that the receiver has arrivals."""
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """
        Carry frames until `stop` is set, then drain under one deadline and save the position.

        Raises:
            IngestError: Nothing that waiting could mend: a topic that may not be created, a damaged journal.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                lines = [tasks.create_task(source.run(), name=source.name) for source in self._sources]
                workers = [
                    tasks.create_task(self._journal_arrivals(), name="journal"),
                    tasks.create_task(self._publish(), name="publish"),
                    tasks.create_task(self._save_states(), name="save"),
                    tasks.create_task(self._tick(), name="tick"),
                ]
                await stop.wait()
                await self._drain(lines)
                for worker in workers:
                    worker.cancel()
        except* IngestError as errors:
            raise first_error(errors) from errors
        finally:
            await self._end()

    @property
    def is_paused(self) -> bool:
        """Whether the lines are closed because the journal takes no more."""
        return self._is_paused

    @property
    def missing_account_parts(self) -> list[str]:
        """Name the parts of the account that were never seen; all of them before translation has begun."""
        return list(PARTS) if self._translating is None else self._translating.missing_account_parts

    async def last_seen_ms(self, feed: str) -> int | None:
        """
        Give Bybit's time of the last frame of a feed that was translated, None if there was none.

        While a feed has a hole, this is where the hole begins. Should the journal not tell, it is a week ago.
        """
        translator = self._translating
        if translator is None:
            try:
                _, translator, _ = await self._load()
            except JournalError as error:
                log.warning("last_seen_unknown", feed=feed, reason=str(error))
                return time.time_ns() // 1_000_000 - _WHEN_UNKNOWN_MS
        return translator.last_seen_ms(feed)

    async def _drain(self, lines: Sequence[asyncio.Task[None]]) -> None:
        log.info("stream_draining", timeout_s=self._options.stop_timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.stop_timeout_s):
                for source in self._sources:
                    source.stop()
                await asyncio.wait(lines)
                while self._receiver.arrivals or self.stats.lag_frames or self._is_appending:
                    self._moved.clear()
                    await self._moved.wait()

    async def _end(self) -> None:
        await self._sink.close()
        if self._translating is not None and not self._is_under_way:  # else it may be ahead of what is acknowledged
            position = self.stats.position
            self._unsaved = position, _checkpoint(self._translating, self._sink.offsets_at(position))
        with contextlib.suppress(JournalError):
            await self._save_now()
        await self._journal.close(clean=not self._is_under_way)
        log.info("stream_stopped", position=self.stats.position, left_to_the_journal=self.stats.lag_frames)

    # Receive -> journal

    async def _journal_arrivals(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._receiver.arrivals:
                self._is_appending = True
                began_s = time.monotonic()
                arrivals = self._next_arrivals()
                first = await self._append(arrivals)
                self._outbox.put(first, arrivals)
                self.stats.durable_position = first + len(arrivals) - 1
                self.stats.frames_journalled += len(arrivals)
                self._is_appending = False
                self._durable.set()
                if len(arrivals) >= _MANY_FRAMES:
                    await asyncio.sleep(max(0.0, began_s + _COMMIT_PACE_S - time.monotonic()))

    def _next_arrivals(self) -> list[Arrival]:
        arrivals = self._receiver.arrivals
        taken_bytes = count = 0
        for arrival in arrivals:
            taken_bytes += len(arrival.frame.raw)
            count += 1
            if count >= _LARGEST_APPEND_FRAMES or taken_bytes >= _LARGEST_APPEND_BYTES:
                break
        taken = arrivals[:count]
        del arrivals[:count]
        return taken

    async def _append(self, arrivals: Sequence[Arrival]) -> int:
        """Append, and try again for as long as the journal is full or the disk refuses: what was read is kept."""
        frames = [arrival.frame for arrival in arrivals]
        while True:
            try:
                first = await self._journal.append(frames)
            except JournalError as error:
                if not error.transient:
                    raise
                self._pause(error)
                await self._until_journal_may_take(isinstance(error, JournalFull))
            else:
                self._resume()
                return first

    async def _until_journal_may_take(self, is_full: bool) -> None:
        await asyncio.sleep(_JOURNAL_RETRY_S)
        while is_full and self._journal.backlog_bytes > self._options.journal_max_bytes // 2:  # noqa: ASYNC110
            await asyncio.sleep(_JOURNAL_RETRY_S)

    def _pause(self, error: JournalError) -> None:
        self.stats.journal_trouble = str(error)
        if self._is_paused:
            return
        self._is_paused = True
        self.stats.pauses += 1
        log.error("stream_paused", cause=type(error).__name__, message=str(error))
        for source in self._sources:
            source.pause()

    def _resume(self) -> None:
        if not self._is_paused or len(self._receiver.arrivals) > _LARGEST_BACKLOG_FRAMES // 2:
            return
        self._is_paused = False
        self.stats.journal_trouble = None
        log.warning("stream_resumed", backlog_bytes=self._journal.backlog_bytes)
        for source in self._sources:
            source.resume()

    # Journal -> translate -> publish

    async def _publish(self) -> None:
        while True:
            try:
                translator, position = await self._open()
                await self._publish_from(translator, position)
            except KafkaError as error:
                if isinstance(error, TopicMismatch) and not self._opened_once:
                    raise
                self._settle = True
                delay_s = self.breaker.failed(str(error))
                if self.breaker.failures == 1:
                    log.error("kafka_lost", cause=type(error).__name__, message=str(error))
                await asyncio.sleep(delay_s)
            except JournalError as error:  # what it refused to keep comes again from the saved state
                if not error.transient:
                    raise
                log.error("state_not_saved", message=str(error))
                await asyncio.sleep(_JOURNAL_RETRY_S)

    async def _open(self) -> tuple[Translator, int]:
        """Begin at the saved state, in a new producer that knows what has arrived since."""
        self.breaker.probing()
        position, translator, known = await self._load()
        await self._sink.open(known, settle=self._settle)
        if known is None:  # before the first record is sent, so that without a state none was
            self._unsaved = position, _checkpoint(translator, self._sink.offsets_at(position))
            await self._save_now()
        self.stats.producer_opened += 1
        self.stats.position = position
        self._opened_once = True
        self._is_under_way = False
        self.breaker.succeeded()
        log.info("kafka_connected", position=position, durable_position=self._journal.last_position)
        return translator, position

    async def _load(self) -> tuple[int, Translator, Offsets | None]:
        """Load what was saved last; offsets are None if nothing was ever published, empty if that is not known."""
        await self._save_now()
        async with self._save_lock:
            position, saved = await asyncio.to_thread(self._journal.load_state)
            if saved is None:
                return position, self._translator(None), None
            try:
                checkpoint = msgspec.msgpack.decode(saved, type=Checkpoint)
                return position, self._translator(checkpoint.translator), checkpoint.offsets
            except msgspec.DecodeError as error:
                log.error("state_lost", position=position, reason=str(error))
            translator = await asyncio.to_thread(self._made_again, position)
            translator.counts.clear()
            await self._journal.save_state(position, _checkpoint(translator, {}))
            return position, translator, {}

    def _made_again(self, position: int) -> Translator:
        """Make a lost state again, from the frames that the journal still has; of what was before nobody knows."""
        translator, after = self._translator(None), 0
        while frames := self._journal.read(after, limit=_LARGEST_GROUP):
            for number, frame in frames:
                if after < position and number != after + 1:
                    translator.lose_frames(frame.received_ns // 1_000_000)
                if number > position:
                    return translator
                translator.translate(number, frame)
                after = number
        if after < position:
            translator.lose_frames(time.time_ns() // 1_000_000)
        return translator

    def _translator(self, state: bytes | None) -> Translator:
        depth, interval_ms = self._options.state_depth, self._options.state_interval_ms
        account_id = self._options.account_id
        return Translator(state, account_id=account_id, state_depth=depth, state_interval_ms=interval_ms)

    async def _publish_from(self, translator: Translator, position: int) -> None:
        self._translating = translator
        ahead: _Translated | None = None
        while True:
            if ahead is None:
                group = await self._next_group(position)
                # From here on the translator is ahead of what is acknowledged.
                self._is_under_way = True
                group, records = _translated(translator, group, position)
            else:
                group, records = ahead
            ahead = await self._publish_group(translator, group, records)
            position = group.positions[-1]
            self._count(group, records, translator)
            if ahead is None:
                self._is_under_way = False
                self._offer_state(translator, position)
            self._moved.set()

    async def _publish_group(
        self, translator: Translator, group: Group, records: Sequence[Record]
    ) -> _Translated | None:
        """Publish one group, and give the next one if time allowed for its translation meanwhile."""
        if not records:
            return None
        self.breaker.asked(time.monotonic())
        ahead = asyncio.create_task(self._translate_ahead(translator, group.positions[-1]), name="translate")
        try:
            refused = await self._sink.publish(records)
            self.breaker.succeeded()
            for refusal in refused:
                await self._keep_refused(refusal.record, refusal.reason)
            return await ahead
        finally:
            ahead.cancel()

    async def _translate_ahead(self, translator: Translator, position: int) -> _Translated | None:
        """Use the time until Kafka answers, if much waits and no state is due, which must not be ahead of Kafka."""
        for _ in range(_TURNS_TO_SEND):
            await asyncio.sleep(0)
        if self.stats.durable_position - position < _MANY_WAITING or self._is_state_due():
            return None
        group = self._outbox.take(position, _LARGEST_GROUP)
        return None if group is None else _translated(translator, group, position)

    async def _next_group(self, position: int) -> Group:
        while True:
            self._durable.clear()
            if group := self._outbox.take(position, _LARGEST_GROUP):
                return group
            if position < self._journal.last_position and (group := await self._read_group(position)):
                return group
            await self._durable.wait()

    async def _read_group(self, position: int) -> Group | None:
        if self._outbox.begins_at is None:
            self._outbox.attach(self._journal.last_position + 1)
        frames = await asyncio.to_thread(self._journal.read, position, limit=_LARGEST_GROUP // 2)
        if not frames:
            return None
        return Group([number for number, _ in frames], [Arrival(frame, None) for _, frame in frames])

    async def _keep_refused(self, record: Record, reason: str) -> None:
        self.stats.refused += 1
        log.error("record_refused", topic=record.topic.value, position=record.position, reason=reason)
        await self._journal.add_dead_letter(
            RefusedRecord(record.position, record.number, record.topic.value, reason, record.value, time.time_ns())
        )

    def _count(self, group: Group, records: Sequence[Record], translator: Translator) -> None:
        now_ns, now_s = time.time_ns(), time.monotonic()
        stats = self.stats
        stats.position = group.positions[-1]
        stats.frames_acknowledged += len(group.positions)
        stats.records.update([record.topic for record in records])
        stats.dropped.update(translator.counts)
        translator.counts.clear()
        for received_ns, count in Counter([arrival.frame.received_ns for arrival in group.arrivals]).items():
            stats.receive_to_acknowledged.observe((now_ns - received_ns) / 1e9, count, now_s)
        if records:
            delay_s = now_ns / 1e9 - records[-1].exchange_ms / 1e3
            stats.exchange_to_acknowledged.observe(delay_s, len(group.positions), now_s)

    # Saving

    def _offer_state(self, translator: Translator, position: int) -> None:
        if position <= self._journal.state_position or not self._is_state_due():
            return
        self._saved_s = time.monotonic()
        self._unsaved = position, _checkpoint(translator, self._sink.offsets_at(position))
        self._saving.set()

    def _is_state_due(self) -> bool:
        is_pressing = self._journal.backlog_bytes * 4 > self._options.journal_max_bytes
        return is_pressing or time.monotonic() - self._saved_s >= _SAVE_INTERVAL_S

    async def _save_states(self) -> None:
        while True:
            await self._saving.wait()
            self._saving.clear()
            try:
                await self._save_now()
            except JournalError as error:
                if not error.transient:
                    raise
                log.error("state_not_saved", message=str(error))

    async def _save_now(self) -> None:
        async with self._save_lock:
            if self._unsaved is not None:
                (position, state), self._unsaved = self._unsaved, None
                await self._journal.save_state(position, state)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self._receiver.tick()
            self.stats.mark_rate(time.monotonic())
            if self._translating is not None and not self._is_under_way:
                self._offer_state(self._translating, self.stats.position)  # when nothing comes any more
            if len(self._receiver.arrivals) > _LARGEST_BACKLOG_FRAMES:
                self._pause(JournalWriteFailed("the disk takes frames more slowly than they come"))


def _translated(translator: Translator, group: Group, after: int) -> _Translated:
    """Add the records of a group that follows position `after`; where positions jump, the journal has lost frames."""
    records: list[Record] = []
    translate = translator.translate
    for position, arrival in zip(group.positions, group.arrivals, strict=True):
        if position != after + 1:
            log.error("frames_lost", first=after + 1, last=position - 1)
            translator.lose_frames(arrival.frame.received_ns // 1_000_000)
        records += translate(position, arrival.frame, arrival.message)
        after = position
    return _Translated(group, records)


def _checkpoint(translator: Translator, offsets: Offsets) -> bytes:
    return msgspec.msgpack.encode(Checkpoint(translator.save(), offsets))
