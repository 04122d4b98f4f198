"""Translate what is durable and publish it, through every kind of trouble with Kafka."""

import asyncio
from collections import Counter
from typing import NamedTuple

import structlog

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import JournalError, KafkaError, TopicMismatch
from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.checkpoints import Checkpoints
from hedgelock_ingest.pipeline.frame_buffer import Group, Outbox
from hedgelock_ingest.pipeline.ports import FrameLog, Sink
from hedgelock_ingest.pipeline.stats import Stats
from hedgelock_ingest.protocol.breaker import CircuitBreaker
from hedgelock_ingest.translate.account import PARTS
from hedgelock_ingest.translate.formatting import uuid_texts
from hedgelock_ingest.translate.record import Record, RefusedRecord
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.translator import Translator

log = structlog.get_logger(__name__)

_LARGEST_GROUP = 1_000
_FAR_BEHIND_FRAMES = 2_000
"""When so many wait, groups are as large: each frame is there later, but all of them sooner."""
_MANY_WAITING = 200
"""Frames from which on the next group is translated while Kafka has not answered yet; few make too small a group."""
_TURNS_TO_SEND = 2
"""Turns of the event loop after which a group's batches have been written to the sockets."""
_WHEN_UNKNOWN_MS = 7 * 86_400_000


class Translated(NamedTuple):
    """The records of a group of frames; `received` counts the frames by when they were read."""

    last_position: int
    frames: int
    received: Counter[int]
    records: list[Record]


class Publishing:
    """
    Carries frames from the journal to Kafka, in groups, one group under way at a time.

    While it keeps up, frames reach it through `outbox`, else it reads them from the journal.
    """

    def __init__(
        self,
        journal: FrameLog,
        sink: Sink,
        outbox: Outbox,
        stats: Stats,
        checkpoints: Checkpoints,
        *,
        clock: Clock,
        journal_retry_s: float,
    ) -> None:
        """Go on from the last checkpoint."""
        self._clock = clock
        self._journal_retry_s = journal_retry_s
        self.breaker = CircuitBreaker()
        self._journal = journal
        self._sink = sink
        self._outbox = outbox
        self._stats = stats
        self._checkpoints = checkpoints
        self._durable = asyncio.Event()
        self._moved = asyncio.Event()
        self._settle = not journal.ended_cleanly
        self._opened_once = False
        self._translating: Translator | None = None
        # Of the last owner's records some may still lie in a broker's socket, too.
        self._is_under_way = not journal.ended_cleanly

    def wake(self) -> None:
        """Tell that there are more durable frames."""
        self._durable.set()

    async def moved(self) -> None:
        """Wait until Kafka has acknowledged a group from now on."""
        self._moved.clear()
        await self._moved.wait()

    def tick(self) -> None:
        """Have the state saved when nothing comes any more."""
        if self._translating is not None and not self._is_under_way:
            self._checkpoints.offer(self._translating, self._stats.position)

    async def end(self) -> bool:
        """Give Kafka up and keep the last state; tell whether nothing is under way any more."""
        await self._sink.close()
        if self._translating is not None and not self._is_under_way:  # else it may be ahead of what is acknowledged
            self._checkpoints.put(self._translating, self._stats.position)
        return not self._is_under_way

    @property
    def missing_account_parts(self) -> list[str]:
        """Name the parts of the account that were never seen; all of them before translation has begun."""
        return list(PARTS) if self._translating is None else self._translating.missing_account_parts

    async def last_seen_ms(self, feed: str) -> int | None:
        """
        Give Bybit's time of the last frame of a feed that was translated, None if there was none.

        While a feed has a hole, this is where the hole begins. Of a feed that is not translated yet it is the first
        frame that waits for that. Should the journal not tell, it is a week ago.
        """
        translator, position = self._translating, self._stats.position
        try:
            if translator is None:
                position, translator, _ = await self._checkpoints.load()
            seen_ms = translator.last_seen_ms(feed)
            if seen_ms is not None:
                return seen_ms
            waiting = await asyncio.to_thread(self._journal.read, position, limit=1)
        except JournalError as error:
            log.warning("last_seen_unknown", feed=feed, reason=str(error))
            return wall_ms(self._clock) - _WHEN_UNKNOWN_MS
        return waiting[0][1].received_ns // 1_000_000 if waiting else None

    async def run(self) -> None:
        """
        Publish until it is cancelled.

        Raises:
            IngestError: Nothing that waiting could mend: a topic that may not be created, a damaged journal.
        """
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
                await self._clock.sleep(delay_s)
            except JournalError as error:  # what it refused to keep comes again from the saved state
                if not error.transient:
                    raise
                log.error("state_not_saved", message=str(error))
                await self._clock.sleep(self._journal_retry_s)

    async def _open(self) -> tuple[Translator, int]:
        """Begin at the saved state, in a new producer that knows what has arrived since."""
        self.breaker.probing()
        position, translator, known = await self._checkpoints.load()
        await self._sink.open(known, settle=self._settle)
        if known is None:  # before the first record is sent, so that without a state none was
            self._checkpoints.put(translator, position)
            await self._checkpoints.save()
        self._stats.producer_opened += 1
        self._stats.position = position
        self._opened_once = True
        self._is_under_way = False
        self.breaker.succeeded()
        log.info("kafka_connected", position=position, durable_position=self._journal.last_position)
        return translator, position

    async def _publish_from(self, translator: Translator, position: int) -> None:
        self._translating = translator
        ahead: Translated | None = None
        while True:
            if ahead is None:
                group = await self._next_group(position)
                # From here on the translator is ahead of what is acknowledged.
                self._is_under_way = True
                translated = translate_group(translator, group, position)
            else:
                translated = ahead
            ahead = await self._publish_group(translator, translated)
            position = translated.last_position
            self._count(translated, translator)
            if ahead is None:
                self._is_under_way = False
                self._checkpoints.offer(translator, position)
            self._moved.set()

    async def _publish_group(self, translator: Translator, translated: Translated) -> Translated | None:
        """Publish one group, and give the next one if time allowed for its translation meanwhile."""
        if not translated.records:
            return None
        self.breaker.asked(self._clock.monotonic())
        ahead = asyncio.create_task(self._translate_ahead(translator, translated.last_position), name="translate")
        try:
            refused = await self._sink.publish(translated.records)
            self.breaker.succeeded()
            for refusal in refused:
                await self._keep_refused(refusal.record, refusal.reason)
            return await ahead
        finally:
            ahead.cancel()

    async def _translate_ahead(self, translator: Translator, position: int) -> Translated | None:
        """Use the time until Kafka answers, if much waits and no state is due, which must not be ahead of Kafka."""
        for _ in range(_TURNS_TO_SEND):
            await self._clock.sleep(0)
        if self._stats.durable_position - position < _MANY_WAITING or self._checkpoints.is_due:
            return None
        group = self._outbox.take(position, self._largest_group(position))
        return None if group is None else translate_group(translator, group, position)

    async def _next_group(self, position: int) -> Group:
        while True:
            self._durable.clear()
            if group := self._outbox.take(position, self._largest_group(position)):
                return group
            if position < self._journal.last_position and (group := await self._read_group(position)):
                return group
            await self._durable.wait()

    def _largest_group(self, position: int) -> int:
        waiting = self._stats.durable_position - position
        return _FAR_BEHIND_FRAMES if waiting >= _FAR_BEHIND_FRAMES else _LARGEST_GROUP

    async def _read_group(self, position: int) -> Group | None:
        if self._outbox.begins_at is None:
            self._outbox.attach(self._journal.last_position + 1)
        limit = self._largest_group(position) // 2  # decoding takes as long again
        frames = await asyncio.to_thread(self._journal.read, position, limit=limit)
        if not frames:
            return None
        arrivals = Arrivals()
        for _, frame in frames:
            arrivals.add(frame)
        return Group([number for number, _ in frames], arrivals)

    async def _keep_refused(self, record: Record, reason: str) -> None:
        self._stats.refused += 1
        log.error("record_refused", topic=record.topic.value, position=record.position, reason=reason)
        await self._journal.add_dead_letter(
            RefusedRecord(
                record.position, record.number, record.topic.value, reason, record.value, self._clock.wall_ns()
            )
        )

    def _count(self, translated: Translated, translator: Translator) -> None:
        now_ns, now_s = self._clock.wall_ns(), self._clock.monotonic()
        stats, records = self._stats, translated.records
        stats.position = translated.last_position
        stats.frames_acknowledged += translated.frames
        stats.records.update([record.topic for record in records])
        stats.dropped.update(translator.counts)
        translator.counts.clear()
        for received_ns, count in translated.received.items():
            stats.receive_to_acknowledged.observe((now_ns - received_ns) / 1e9, count, now_s)
        if records:
            delay_s = now_ns / 1e9 - records[-1].exchange_ms / 1e3
            stats.exchange_to_acknowledged.observe(delay_s, translated.frames, now_s)


def translate_group(translator: Translator, group: Group, after: int) -> Translated:
    """
    Use up a group that follows position `after`; where positions jump, the journal has lost frames.

    Each frame is given up as soon as it is translated: later it would have left the processor's cache.
    """
    positions, arrivals = group
    frames, messages = arrivals.frames, arrivals.messages
    received = Counter([frame.received_ns for frame in frames])
    traces = uuid_texts([frame.trace for frame in frames])
    builder, take = RecordBuilder(), translator.take
    frames.reverse()
    messages.reverse()
    for position, trace_id in zip(positions, traces, strict=True):
        frame = frames.pop()
        if position != after + 1:
            log.error("frames_lost", first=after + 1, last=position - 1)
            translator.lose_frames(frame.received_ns // 1_000_000)
        builder.begin(position, frame, trace_id)
        take(builder, messages.pop())
        after = position
    return Translated(after, len(positions), received, builder.records)
