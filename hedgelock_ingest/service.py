"""Composition root: from settings to one running shard of the stream."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import structlog

from hedgelock_ingest.account.service import RestService, private_authentication
from hedgelock_ingest.bybit import rest_http
from hedgelock_ingest.bybit.line import Line, LineLimits, LineStatus
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.bybit.rest_port import OpenHttp
from hedgelock_ingest.bybit.socket_port import Connect
from hedgelock_ingest.bybit.websocket_clients import CONNECT_BY_CLIENT
from hedgelock_ingest.clock import Clock, SystemClock
from hedgelock_ingest.errors import KeyRefused, SettingsInvalid, first_error
from hedgelock_ingest.journal import Journal
from hedgelock_ingest.kafka.aiokafka_cluster import kafka_publisher
from hedgelock_ingest.kafka.durability import durability_warnings
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue
from hedgelock_ingest.pipeline.options import StreamOptions
from hedgelock_ingest.pipeline.ports import FrameLog
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stream import Stream
from hedgelock_ingest.protocol.arbitration import DEFAULT_TIMING, ArbitrationTiming
from hedgelock_ingest.protocol.channels import LinePlan, channels_for, feed_name, plan_lines, plan_private_lines
from hedgelock_ingest.protocol.frames import PRIVATE, Category
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.protocol.silence import Silence
from hedgelock_ingest.protocol.websocket_session import SessionTiming
from hedgelock_ingest.settings import Settings, Shard

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """Lines of a shard, and its feeds such as `linear:publicTrade.BTCUSDT`."""

    lines: list[LinePlan]
    feeds: list[str]


def plan(shard: Shard, *, copies: int, has_key: bool) -> Plan:
    """Plan the lines of a shard; private ones need a key."""
    lines: list[LinePlan] = []
    feeds: list[str] = []
    for category, symbols in ((Category.SPOT, shard.spot_symbols), (Category.LINEAR, shard.linear_symbols)):
        channels = channels_for(category, symbols, shard.public_feeds)
        lines += plan_lines(category, channels, copies=copies)
        feeds += [feed_name(category, channel) for channel in channels]
    if shard.carries_private_feeds and has_key:
        lines += plan_private_lines(copies=copies)
        feeds += [feed_name(PRIVATE, channel) for channel in lines[-1].channels]
    return Plan(lines, feeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """
    External dependencies of a shard, and their timing; `real_dependencies` returns the production ones.

    `open_log` opens the journal in a folder, with its bound in bytes; `publisher` takes the journal's id;
    `arbitration_timing` bounds how far lines may lag behind each other.
    """

    clock: Clock
    random: Random
    random_bytes: Callable[[int], bytes]
    connect: Connect
    open_http: OpenHttp
    open_log: Callable[[Path, int], FrameLog]
    publisher: Callable[[str], Publisher]
    save_interval_s: float = 5.0
    arbitration_timing: ArbitrationTiming = DEFAULT_TIMING


def real_dependencies(settings: Settings) -> Dependencies:
    """Return the machine's clock and disk, and connections to Bybit and to Kafka."""
    clock = SystemClock()
    return Dependencies(
        clock=clock,
        random=Random(),
        random_bytes=os.urandom,
        connect=CONNECT_BY_CLIENT[settings.bybit_websocket_client],
        open_http=rest_http.open_http,
        open_log=lambda folder, max_bytes: Journal.open(
            folder, max_bytes=max_bytes, keep_bytes=settings.journal_keep_bytes
        ),
        publisher=lambda journal_id: kafka_publisher(settings, journal_id, clock=clock),
    )


class Service:
    """
    One shard: its journal, its lines, its stream.

    Created without an event loop; it owns the journal from then on, so `run` must follow.
    """

    def __init__(self, settings: Settings, shard_name: str, dependencies: Dependencies | None = None) -> None:
        """
        Open the journal and prepare everything else; nothing is connected.

        `dependencies` defaults to `real_dependencies`.

        Raises:
            SettingsInvalid: The shard is unknown or carries nothing.
            JournalLocked: Another process runs this shard.
            JournalError: The journal cannot be used.
        """
        self.settings = settings
        self._dependencies = dependencies = dependencies or real_dependencies(settings)
        self.shard = settings.shard(shard_name)
        self.plan = plan(self.shard, copies=settings.bybit_lines, has_key=settings.has_key)
        if not self.plan.lines:
            raise SettingsInvalid(
                [
                    f'shard "{shard_name}" carries no symbol and no account; '
                    "set BYBIT_SPOT_SYMBOLS or BYBIT_LINEAR_SYMBOLS"
                ]
            )
        self.journal = dependencies.open_log(self.shard.journal_directory, settings.journal_max_bytes)
        self.publisher = dependencies.publisher(self.journal.journal_id)
        rest = RestClient(
            settings, clock=dependencies.clock, open_http=dependencies.open_http, random=dependencies.random
        )
        begins_with_gap = bool(self.journal.last_position)
        queue = GapFillQueue(self.plan.feeds if begins_with_gap else ())
        arrived = asyncio.Event()
        self.receiver = Receiver(
            self.plan.feeds,
            arrived.set,
            clock=dependencies.clock,
            watcher=queue,
            now_ms=rest.now_ms,
            random_bytes=dependencies.random_bytes,
            arbitration_timing=dependencies.arbitration_timing,
        )
        self.lines = self._make_lines(rest)
        interval_ms = int(settings.order_book_state_interval * 1000) if settings.order_book_state_depth else 0
        self.stream = Stream(
            self.journal,
            self.publisher,
            self.receiver,
            self.lines,
            StreamOptions(
                state_depth=settings.order_book_state_depth,
                state_interval_ms=interval_ms,
                stop_timeout_s=settings.stop_timeout,
                account_id=settings.bybit_account_id,
                save_interval_s=dependencies.save_interval_s,
            ),
            arrived=arrived,
            clock=dependencies.clock,
        )
        self.rest_service = RestService(
            rest,
            settings,
            self.receiver,
            self.stream,
            [line for line in self.lines if line.name.startswith(PRIVATE)],
            queue,
            feeds=self.plan.feeds,
            journal_id=self.journal.journal_id,
            begins_with_gap=begins_with_gap,
            clock=dependencies.clock,
        )

    @property
    def line_statuses(self) -> Sequence[LineStatus]:
        """Status of each line."""
        return [line.status for line in self.lines]

    async def run(self, stop: asyncio.Event) -> None:
        """
        Carry frames until `stop` is set, then drain.

        Raises:
            KeyRefused: Bybit refuses the key, or it may trade; nothing was opened.
            IngestError: A failure that a retry cannot recover.
        """
        with structlog.contextvars.bound_contextvars(shard=self.shard.name):
            self._log_start()
            try:
                await self.rest_service.begin()
            except KeyRefused:
                await self.journal.close(clean=self.journal.ended_cleanly)
                raise
            self.receiver.note("started", self.plan.feeds, self._why_frames_are_missing(), fills_gaps=True)
            try:
                async with asyncio.TaskGroup() as tasks:
                    rest = tasks.create_task(self.rest_service.run(), name="rest")
                    durability = tasks.create_task(self._warn_of_durability(), name="durability")
                    tasks.create_task(_cancel_at(stop, rest, durability), name="stop")
                    await self.stream.run(stop)
            except* Exception as errors:
                # A group names no cause where only the text of an error is shown.
                raise first_error(errors) from errors

    def _make_lines(self, rest: RestClient) -> list[Line]:
        budget = ConnectionBudget()
        limits = LineLimits(
            reconnect_initial_delay_s=self.settings.bybit_reconnect_initial_delay,
            reconnect_max_delay_s=self.settings.bybit_reconnect_max_delay,
            rotate_after_s=self.settings.bybit_connection_max_age,
            timing=SessionTiming(
                ping_interval_s=self.settings.bybit_ping_interval,
                pong_timeout_s=self.settings.bybit_ping_interval / 2,
                stale_after_s=self.settings.bybit_stale_after,
            ),
        )
        silences: defaultdict[tuple[str, ...], Silence] = defaultdict(lambda: Silence(limits.timing.stale_after_s))
        return [
            Line(
                name,
                channels,
                self.receiver,
                url=self._url(category),
                budget=budget,
                limits=limits,
                clock=self._dependencies.clock,
                random=self._dependencies.random,
                connect=self._dependencies.connect,
                authenticate=private_authentication(self.settings, rest.now_ms) if category == PRIVATE else None,
                silence=silences[category, *channels],
            )
            for name, category, channels in self.plan.lines
        ]

    def _url(self, category: str) -> str:
        if category == PRIVATE:
            return self.settings.bybit_private_ws_url
        return f"{self.settings.bybit_public_ws_url}/{category}"

    def _log_start(self) -> None:
        journal = self.journal
        log.info(
            "stream_starting",
            lines=[line.name for line in self.lines],
            journal=str(self.shard.journal_directory),
            position=journal.state_position,
            unacknowledged=journal.last_position - journal.state_position,
            ended_cleanly=journal.ended_cleanly,
            has_key=self.settings.has_key,
        )
        for finding in journal.recovery.findings:
            log.error("journal_recovered", finding=finding)
        bound_bytes, wanted_bytes = journal.bound_bytes, int(self.settings.journal_max_bytes)
        if bound_bytes < wanted_bytes:
            log.warning("disk_smaller_than_journal", bound_bytes=bound_bytes, wanted_bytes=wanted_bytes)

    async def _warn_of_durability(self) -> None:
        await self.stream.kafka_opened.wait()
        for warning in durability_warnings(self.publisher.topics, self.settings):
            log.warning("topics_not_durable", reason=warning)

    def _why_frames_are_missing(self) -> str:
        if not self.journal.recovery.is_clean:
            return "the journal was damaged: " + "; ".join(self.journal.recovery.findings)
        return "the process was stopped" if self.journal.ended_cleanly else "the process ended without a stop"


async def _cancel_at(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    await stop.wait()
    for task in tasks:
        task.cancel()
