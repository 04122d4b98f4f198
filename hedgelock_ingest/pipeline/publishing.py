"""Publishing: translate durable frames and send their records to Kafka, with recovery from failures of Kafka."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from hedgelock_ingest.clock import Clock, wall_ms
from hedgelock_ingest.errors import JournalError, KafkaError, ProducerSpent, TopicMismatch
from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.checkpoints import Checkpoints
from hedgelock_ingest.pipeline.frame_buffer import FrameBuffer, Group
from hedgelock_ingest.pipeline.ports import FrameLog, Sink
from hedgelock_ingest.pipeline.stats import Stats
from hedgelock_ingest.protocol.circuit_breaker import CircuitBreaker
from hedgelock_ingest.translate.account import PARTS
from hedgelock_ingest.translate.formatting import uuid_texts
from hedgelock_ingest.translate.record import Record, Refusal, RefusedRecord
from hedgelock_ingest.translate.record_builder import RecordBuilder
from hedgelock_ingest.translate.translator import Translator

log = structlog.get_logger(__name__)

_GROUP_FRAMES = 1_000
_BACKLOG_GROUP_FRAMES = 2_000
"""With this backlog, groups are as large: latency of a single frame grows, throughput improves."""
_TRANSLATE_AHEAD_FRAMES = 200
"""Backlog from which on the next group is translated before Kafka has answered; below it, groups would be small."""
_TURNS_TO_SEND = 2
"""Turns of the event loop after which a group's batches have been written to the sockets."""
_BLOCKED_LOOK_S = 0.5
"""How long the sink waits for frames while a topic is blocked: it tries blocked topics when it publishes."""
_LAST_SEEN_FALLBACK_MS = 7 * 86_400_000


class Translated(NamedTuple):
    """The records of a group of frames; `received` counts the frames by the time they were read."""

    last_position: int
    frames: int
    received: Counter[int]
    records: list[Record]


class Publishing:
    """
    Publishes frames from the journal to Kafka, in groups, one group in flight at a time.

    While it keeps up, it takes frames from `frame_buffer`, else it reads them from the journal.
    """

    def __init__(
        self,
        journal: FrameLog,
        sink: Sink,
        frame_buffer: FrameBuffer,
        stats: Stats,
        checkpoints: Checkpoints,
        *,
        clock: Clock,
        journal_retry_s: float,
    ) -> None:
        """Prepare; `run` continues from the last checkpoint."""
        self._clock = clock
        self._journal_retry_s = journal_retry_s
        self.breaker = CircuitBreaker()
        self.opened = asyncio.Event()
        """Set when Kafka has become ready for records the first time."""
        self._journal = journal
        self._sink = sink
        self._frame_buffer = frame_buffer
        self._stats = stats
        self._checkpoints = checkpoints
        self._durable = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._settle = not journal.ended_cleanly
        self._journal_end = journal.last_position
        self._translating: Translator | None = None
        self._logged = ""
        # Records of the previous owner may still be in a broker's socket buffer.
        self._is_under_way = not journal.ended_cleanly

    def wake(self) -> None:
        """Signal that there are more durable frames."""
        self._durable.set()

    async def next_acknowledgement(self) -> None:
        """Wait until Kafka acknowledges another group."""
        self._acknowledged.clear()
        await self._acknowledged.wait()

    def tick(self) -> None:
        """Offer the state for saving, also while no frames arrive."""
        if self._translating is not None and not self._is_under_way:
            self._checkpoints.offer(self._translating, self._stats.position)

    async def end(self) -> bool:
        """Close the sink and keep the last state; return whether no records are in flight."""
        await self._sink.close()
        if self._translating is not None and not self._is_under_way:  # else it may be ahead of what is acknowledged
            self._checkpoints.put(self._translating, self._stats.position)
        return not self._is_under_way

    @property
    def blocked_topics(self) -> Mapping[str, str]:
        """Why a topic accepts nothing for now, by topic."""
        return self._sink.blocked

    @property
    def missing_account_parts(self) -> list[str]:
        """The parts of the account that were never received; all of them before translation has started."""
        return list(PARTS) if self._translating is None else self._translating.missing_account_parts

    async def last_seen_ms(self, feed: str) -> int | None:
        """
        Return Bybit's time of the last translated frame of a feed, None if there was none.

        While a feed has a gap, this is where the gap begins. For a feed without translated frames it is the time of
        the first frame that waits for translation. If the journal cannot be read, it is a week ago.
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
            return wall_ms(self._clock) - _LAST_SEEN_FALLBACK_MS
        return waiting[0][1].received_ns // 1_000_000 if waiting else None

    async def run(self) -> None:
        """
        Publish until cancelled.

        Raises:
            IngestError: A failure that a retry cannot recover: a topic that may not be created, a damaged journal.
        """
        while True:
            try:
                translator, position = await self._open()
                while True:
                    await self._publish_from(translator, position)
                    translator, position = await self._go_back()
            except KafkaError as error:
                if isinstance(error, TopicMismatch) and not self.opened.is_set():
                    raise
                self._settle = True
                if self.breaker.failures == 0 or str(error) != self._logged:
                    log.error("kafka_lost", cause=type(error).__name__, message=str(error))
                self._logged = str(error)
                delay_s = self.breaker.failed(str(error))
                await self._clock.sleep(delay_s)
            except JournalError as error:  # its frames are translated again from the saved state
                if not error.transient:
                    raise
                self._checkpoints.note_refusal(error)
                await self._clock.sleep(self._journal_retry_s)

    async def _open(self) -> tuple[Translator, int]:
        """Load the saved state, and open a new producer that knows which records have arrived since."""
        self.breaker.probing()
        position, translator, known = await self._checkpoints.load()
        await self._sink.open(known, settle=self._settle, journal_end=self._journal_end)
        if known is None:  # before the first record is sent: no saved state then means that none was sent
            self._checkpoints.put(translator, position)
            await self._checkpoints.save()
        self._stats.producer_opened += 1
        self._stats.position = position
        self._is_under_way = False
        self.breaker.reached()
        self.opened.set()
        log.info("kafka_connected", position=position, durable_position=self._journal.last_position)
        return translator, position

    async def _go_back(self) -> tuple[Translator, int]:
        """Load the saved state, to publish what was left out of a topic that was blocked."""
        position, translator, known = await self._checkpoints.load()
        if not known:
            raise ProducerSpent("the saved state was lost, so the tails of the topics are read back")
        self._sink.catch_up(known)
        log.info("catching_up", position=position, durable_position=self._journal.last_position)
        self._stats.position = position
        return translator, position

    async def _publish_from(self, translator: Translator, position: int) -> None:
        """Publish what follows a position, until records that were left out can be published."""
        self._translating = translator
        ahead: Translated | None = None
        while True:
            if ahead is None:
                group = await self._next_group(position)
                # From here on the translator is ahead of what Kafka has acknowledged.
                self._is_under_way = True
                translated = translate_group(translator, group, position)
            else:
                translated = ahead
            ahead = await self._publish_group(translator, translated)
            position = translated.last_position
            self._count(translated, translator)
            if ahead is None and not self._sink.is_behind:
                self._is_under_way = False
                self._checkpoints.offer(translator, position)
            self._acknowledged.set()
            if self._sink.must_catch_up:
                return

    async def _publish_group(self, translator: Translator, translated: Translated) -> Translated | None:
        """Publish one group; return the next one if it was translated meanwhile."""
        if not translated.records and not self._sink.is_behind:
            return None
        self.breaker.request_sent(self._clock.monotonic())
        ahead = asyncio.create_task(self._translate_ahead(translator, translated.last_position), name="translate")
        try:
            await self._sink.publish(translated.records, self._keep_refused)
            self.breaker.succeeded()
            return await ahead
        finally:
            ahead.cancel()

    async def _translate_ahead(self, translator: Translator, position: int) -> Translated | None:
        """Translate the next group while Kafka has not answered; None if few frames wait or a state is due."""
        # A saved state must not be ahead of what Kafka has acknowledged.
        for _ in range(_TURNS_TO_SEND):
            await self._clock.sleep(0)
        is_due = self._checkpoints.is_due and not self._sink.is_behind
        if self._stats.durable_position - position < _TRANSLATE_AHEAD_FRAMES or is_due:
            return None
        group = self._frame_buffer.take(position, self._group_limit(position))
        return None if group is None else translate_group(translator, group, position)

    async def _next_group(self, position: int) -> Group:
        while True:
            self._durable.clear()
            if group := self._frame_buffer.take(position, self._group_limit(position)):
                return group
            if position < self._journal.last_position and (group := await self._read_group(position)):
                return group
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(_BLOCKED_LOOK_S if self._sink.is_behind else None):
                    await self._durable.wait()
                    continue
            return Group([], Arrivals())

    def _group_limit(self, position: int) -> int:
        waiting = self._stats.durable_position - position
        return _BACKLOG_GROUP_FRAMES if waiting >= _BACKLOG_GROUP_FRAMES else _GROUP_FRAMES

    async def _read_group(self, position: int) -> Group | None:
        if self._frame_buffer.begins_at is None:
            self._frame_buffer.attach(self._journal.last_position + 1)
        limit = self._group_limit(position) // 2  # frames from the journal also need decoding
        frames = await asyncio.to_thread(self._journal.read, position, limit=limit)
        if not frames:
            return None
        arrivals = Arrivals()
        for _, frame in frames:
            arrivals.add(frame)
        return Group([number for number, _ in frames], arrivals)

    async def _keep_refused(self, refused: Sequence[Refusal]) -> None:
        """Keep records in the journal's table; one line of the log for all of a topic."""
        by_topic: dict[str, list[Refusal]] = {}
        for refusal in refused:
            record, topic = refusal.record, refusal.record.topic.value
            await self._journal.add_dead_letter(
                RefusedRecord(
                    record.position, record.number, topic, refusal.reason, record.value, self._clock.wall_ns()
                )
            )
            self._stats.refused += 1
            by_topic.setdefault(topic, []).append(refusal)
        for topic, kept in by_topic.items():
            first = kept[0]
            log.error(
                "records_refused", topic=topic, count=len(kept), position=first.record.position, reason=first.reason
            )

    def _count(self, translated: Translated, translator: Translator) -> None:
        now_ns, now_s = self._clock.wall_ns(), self._clock.monotonic()
        stats, records = self._stats, translated.records
        stats.records = self._sink.records
        if self._sink.is_behind:  # the frames are acknowledged when the topics that were blocked have caught up
            return
        stats.dropped.update(translator.counts)
        translator.counts.clear()
        stats.position = translated.last_position
        stats.frames_acknowledged += translated.frames
        for received_ns, count in translated.received.items():
            stats.receive_to_acknowledged.observe((now_ns - received_ns) / 1e9, count, now_s)
        if records:
            delay_s = now_ns / 1e9 - records[-1].exchange_ms / 1e3
            stats.exchange_to_acknowledged.observe(delay_s, translated.frames, now_s)


def translate_group(translator: Translator, group: Group, after: int) -> Translated:
    """
    Translate and empty a group that follows position `after`; where positions jump, the journal has lost frames.

    Each frame is freed as soon as it is translated: later it would have left the processor's cache.
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
