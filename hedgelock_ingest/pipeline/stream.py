"""The stream of a shard: received frames are journalled, translated and published, with recovery from failures."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from itertools import accumulate

import structlog

from hedgelock_ingest.clock import Clock
from hedgelock_ingest.errors import (
    IngestError,
    JournalError,
    JournalFull,
    JournalWriteFailed,
    first_error,
)
from hedgelock_ingest.pipeline.arrivals import Arrivals
from hedgelock_ingest.pipeline.checkpoints import Checkpoints
from hedgelock_ingest.pipeline.frame_buffer import FrameBuffer
from hedgelock_ingest.pipeline.options import StreamOptions
from hedgelock_ingest.pipeline.ports import FrameLog, Sink, Source
from hedgelock_ingest.pipeline.publishing import Publishing
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stats import Stats
from hedgelock_ingest.protocol.circuit_breaker import CircuitBreaker
from hedgelock_ingest.protocol.frames import Frame

log = structlog.get_logger(__name__)

_PACED_APPEND_FRAMES = 10
"""From this many frames on, an append is followed by a pause of `commit_pace_s`."""
_MAX_WAITING_FRAMES = 200_000
"""Frames that may wait in memory for a slow disk before the lines are closed."""
_PARTS_OF_BOUND = 16
"""An append has at most this part of the bound: a small journal fills frame by frame, not with one large commit."""


class Stream:
    """
    Connects the lines, the journal, the translation and Kafka.

    The lines open when Kafka is ready, or after `open_lines_within_s` without it: frames that arrive before would wait.
    Two tasks carry the frames: one journals arrivals in groups, the other translates durable frames and publishes them
    in groups. Frames reach the second through memory while it keeps up, else through the journal.
    """

    def __init__(
        self,
        journal: FrameLog,
        sink: Sink,
        receiver: Receiver,
        sources: Sequence[Source],
        options: StreamOptions,
        *,
        arrived: asyncio.Event,
        clock: Clock,
    ) -> None:
        """Connect the parts; `sources` pass their frames to `receiver`, which sets `arrived`."""
        self.stats = Stats(clock.wall_ns(), durable_position=journal.last_position, position=journal.state_position)
        self._clock = clock
        self._journal = journal
        self._receiver = receiver
        self._sources = sources
        self._options = options
        self._frame_buffer = FrameBuffer()
        self._checkpoints = Checkpoints(journal, sink, options, clock)
        self._publishing = Publishing(
            journal,
            sink,
            self._frame_buffer,
            self.stats,
            self._checkpoints,
            clock=clock,
            journal_retry_s=options.journal_retry_s,
        )
        self._arrived = arrived
        self._may_open_lines = asyncio.Event()
        self._is_paused = False
        self._is_appending = False

    async def run(self, stop: asyncio.Event) -> None:
        """
        Carry frames until `stop` is set, then drain under one deadline and save the position.

        Raises:
            IngestError: A failure that a retry cannot recover: a topic that may not be created, a damaged journal.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                lines = [tasks.create_task(self._run_line(source), name=source.name) for source in self._sources]
                workers = [
                    tasks.create_task(self._allow_lines(), name="allow_lines"),
                    tasks.create_task(self._journal_arrivals(), name="journal"),
                    tasks.create_task(self._publishing.run(), name="publish"),
                    tasks.create_task(self._checkpoints.run(), name="save"),
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
        """Whether the lines are closed because the journal accepts no frames."""
        return self._is_paused

    @property
    def kafka_opened(self) -> asyncio.Event:
        """Set when Kafka has become ready for records the first time."""
        return self._publishing.opened

    @property
    def breaker(self) -> CircuitBreaker:
        """The circuit breaker around Kafka."""
        return self._publishing.breaker

    @property
    def blocked_topics(self) -> Mapping[str, str]:
        """Why a topic of Kafka accepts nothing for now, by topic."""
        return self._publishing.blocked_topics

    @property
    def missing_account_parts(self) -> list[str]:
        """The parts of the account that were never received; all of them before translation has started."""
        return self._publishing.missing_account_parts

    async def last_seen_ms(self, feed: str) -> int | None:
        """Return Bybit's time of the last translated frame of a feed; see `Publishing.last_seen_ms`."""
        return await self._publishing.last_seen_ms(feed)

    async def _allow_lines(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(self._options.open_lines_within_s):
                await self._publishing.opened.wait()
        self._may_open_lines.set()

    async def _run_line(self, source: Source) -> None:
        await self._may_open_lines.wait()
        await source.run()

    async def _drain(self, lines: Sequence[asyncio.Task[None]]) -> None:
        log.info("stream_draining", timeout_s=self._options.stop_timeout_s)
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(self._options.stop_timeout_s):
                for source in self._sources:
                    source.stop()
                self._may_open_lines.set()
                await asyncio.wait(lines)
                while self._receiver.waiting or self.stats.lag_frames or self._is_appending:
                    await self._publishing.next_acknowledgement()

    async def _end(self) -> None:
        is_clean = await self._publishing.end()
        with contextlib.suppress(JournalError):
            await self._checkpoints.save()
        await self._journal.close(clean=is_clean)
        log.info("stream_stopped", position=self.stats.position, unacknowledged=self.stats.lag_frames)

    async def _journal_arrivals(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._receiver.waiting:
                self._is_appending = True
                began_s = self._clock.monotonic()
                arrivals = self._receiver.take()
                count = len(arrivals)
                await self._append(arrivals)
                self._is_appending = False
                self._resume()
                if count >= _PACED_APPEND_FRAMES:
                    await self._clock.sleep(max(0.0, began_s + self._options.commit_pace_s - self._clock.monotonic()))

    async def _append(self, arrivals: Arrivals) -> None:
        """Append all, and retry while the journal is full or the disk refuses: received frames are never dropped."""
        is_complete = False
        while not is_complete:
            frames = _part(arrivals, self._journal.bound_bytes // _PARTS_OF_BOUND)
            try:
                first = await self._journal.append(frames)
            except JournalError as error:
                if not error.transient:
                    raise
                self._pause(error)
                await self._until_journal_may_take(isinstance(error, JournalFull))
                continue
            self.stats.durable_position = first + len(frames) - 1
            is_complete = len(frames) == len(arrivals)
            self._frame_buffer.put(first, arrivals if is_complete else arrivals.take(len(frames)))
            self._publishing.wake()

    async def _until_journal_may_take(self, is_full: bool) -> None:
        await self._clock.sleep(self._options.journal_retry_s)
        while is_full and self._journal.backlog_bytes > self._journal.bound_bytes // 2:
            await self._clock.sleep(self._options.journal_retry_s)

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
        if not self._is_paused or self._receiver.waiting > _MAX_WAITING_FRAMES // 2:
            return
        self._is_paused = False
        self.stats.journal_trouble = None
        log.warning("stream_resumed", backlog_bytes=self._journal.backlog_bytes)
        for source in self._sources:
            source.resume()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(self._options.tick_s)
            self._receiver.tick()
            self.stats.mark_rate(self._clock.monotonic())
            self._publishing.tick()
            if self._receiver.waiting > _MAX_WAITING_FRAMES:
                self._pause(JournalWriteFailed("the disk writes frames more slowly than they arrive"))


def _part(arrivals: Arrivals, limit_bytes: int) -> Sequence[Frame]:
    """Return the first frames, at least one, that together are within a limit."""
    frames = arrivals.frames
    if arrivals.raw_bytes <= limit_bytes:
        return frames
    totals = accumulate(len(frame.raw) for frame in frames)
    count = next((number for number, total in enumerate(totals) if total > limit_bytes), len(frames))
    return frames[: max(count, 1)]
