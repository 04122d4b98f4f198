"""A small stage for tests of the exchange: virtual time, and one real process without journal and Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import msgspec
from pydantic import SecretStr

from hedgelock_ingest.bybit.line import Line, LineLimits
from hedgelock_ingest.bybit.rest_client import RestClient
from hedgelock_ingest.models.topics import CONTRACTS, Topic
from hedgelock_ingest.pipeline.gap_fill import GapFill
from hedgelock_ingest.pipeline.gap_fill_queue import GapFillQueue
from hedgelock_ingest.pipeline.poll_loop import Polling
from hedgelock_ingest.pipeline.receiver import Receiver
from hedgelock_ingest.pipeline.stand_in import StandIn
from hedgelock_ingest.protocol.auth import websocket_authentication
from hedgelock_ingest.protocol.channels import feed_name, plan_lines, plan_private_lines
from hedgelock_ingest.protocol.frames import PRIVATE, Category
from hedgelock_ingest.protocol.rate_limits import ConnectionBudget
from hedgelock_ingest.protocol.silence import Silence
from hedgelock_ingest.protocol.websocket_session import SessionTiming
from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.translate.record import Record
from hedgelock_ingest.translate.translator import Translator
from hedgelock_ingest_tests.processes.evidence import Evidence, Outage, PublishedRecord
from hedgelock_ingest_tests.simulation.exchange import LINEAR_FEEDS, SPOT_FEEDS, Exchange
from hedgelock_ingest_tests.simulation.loop import EPOCH_NS, ProcessLifetime, VirtualClock, VirtualLoop
from hedgelock_ingest_tests.simulation.market import SYMBOL

BEAT_S = 0.25
_KEY = KEYS["read-only"]
_JOURNAL = b"5f0c3a1e9d7b4c2f8a6e1b3d5c7f9a02"


class SmallStage:
    """An exchange, and a process that keeps its records in a list."""

    def __init__(
        self, loop: VirtualLoop, *, seed: int = 7, copies: int = 2, requests_per_second: float = 50, **options: Any
    ) -> None:
        self.clock = VirtualClock(loop)
        self.exchange = Exchange(self.clock, Random(seed), loop=loop, base_ms=EPOCH_NS // 1_000_000, **options)
        self.lifetime = ProcessLifetime("stage", self.clock.wall_ns)
        self.outages: list[Outage] = []
        self.records: list[Record] = []
        self.translator = Translator()
        self._position = 0
        settings = Settings(
            bybit_api_key=SecretStr(_KEY.api_key),
            bybit_api_secret=SecretStr(_KEY.api_secret),
            bybit_rest_requests_per_second=requests_per_second,
        )
        http = self.exchange.http(self.lifetime)
        self.rest = RestClient(
            settings, clock=self.clock, open_http=lambda *_, **__: http, random=Random(f"rest {seed}")
        )
        spot, linear = (tuple(f"{feed}.{SYMBOL}" for feed in feeds) for feeds in (SPOT_FEEDS, LINEAR_FEEDS))
        plans = [
            *plan_lines(Category.SPOT, spot, copies=copies),
            *plan_lines(Category.LINEAR, linear, copies=copies),
            *plan_private_lines(copies=copies),
        ]
        self.feeds = list(dict.fromkeys(feed_name(one.category, name) for one in plans for name in one.channels))
        queue = GapFillQueue()
        self.receiver = Receiver(
            self.feeds,
            lambda: None,
            clock=self.clock,
            watcher=queue,
            now_ms=self.rest.now_ms,
            random_bytes=Random(f"traces {seed}").randbytes,
        )
        budget, limits = ConnectionBudget(), LineLimits(reconnect_max_delay_s=2.0, timing=SessionTiming())
        random = Random(f"lines {seed}")
        silences: defaultdict[tuple[str, ...], Silence] = defaultdict(lambda: Silence(limits.timing.stale_after_s))
        self.lines = [
            Line(
                one.name,
                one.channels,
                self.receiver,
                url=f"wss://simulated/v5/{one.category}",
                budget=budget,
                limits=limits,
                clock=self.clock,
                random=random,
                connect=self.exchange.connect(self.lifetime),
                authenticate=self._authenticate if one.category == PRIVATE else None,
                silence=silences[one.category, *one.channels],
            )
            for one in plans
        ]
        self.stand_in = StandIn(
            self.rest,
            self.receiver,
            self.receiver.without_line,
            may_request=lambda: True,
            may_request_account=lambda: True,
            clock=self.clock,
        )
        self.gap_fill = GapFill(
            self.rest,
            self.receiver,
            self._last_seen_ms,
            queue,
            may_request=lambda: True,
            on_rise=self.stand_in.end_requests,
            clock=self.clock,
        )
        self.polling = Polling(
            self.rest,
            self.receiver,
            collateral_interval_s=2.0,
            loan_interval_s=2.0,
            may_request=lambda: True,
            clock=self.clock,
        )

    def _authenticate(self) -> Sequence[str | int]:
        return websocket_authentication(_KEY.api_key, _KEY.api_secret, self.rest.now_ms())

    async def _last_seen_ms(self, feed: str) -> int | None:
        self.translate()
        return self.translator.last_seen_ms(feed)

    def translate(self) -> None:
        """Translate all received frames to records."""
        while self.receiver.waiting:
            for frame, message in self.receiver.take():
                self._position += 1
                self.records += self.translator.translate(self._position, frame, message)

    async def run(self, *acts: tuple[float, Callable[[], object]], seconds: float = 20.0) -> None:
        """Run the exchange, with actions after given seconds; then wait for everything under way to arrive."""
        began_s = self.clock.monotonic()
        self.receiver.note("started", self.feeds, "the process was stopped", fills_gaps=True)
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(one.run()) for one in self.lines]
            beside += [tasks.create_task(one.run()) for one in (self.gap_fill, self.stand_in, self.polling)]
            waiting = sorted(acts, key=lambda act: act[0])
            while (passed_s := self.clock.monotonic() - began_s) < seconds:
                await self.clock.sleep(BEAT_S)
                while waiting and waiting[0][0] <= passed_s + BEAT_S:
                    waiting.pop(0)[1]()
                self.exchange.beat()
                self.receiver.tick()
                self.translate()
            await self.clock.sleep(5.0)
            self.receiver.tick()
            for one in beside:
                one.cancel()
        self.translate()

    def published(self) -> dict[Topic, list[PublishedRecord]]:
        """Return the records as a proof needs them."""
        found: dict[Topic, list[PublishedRecord]] = {topic: [] for topic in Topic}
        for record in self.records:
            of_topic = found[record.topic]
            of_topic.append(
                PublishedRecord(
                    record.topic,
                    0,
                    len(of_topic),
                    record.key.decode(),
                    msgspec.json.decode(record.value),
                    _headers(record),
                )
            )
        return found

    def records_of(self, topic: Topic) -> list[PublishedRecord]:
        """Return the records of one topic."""
        return self.published()[topic]

    def evidence(self, **options: Any) -> Evidence:
        """Return the evidence for a proof; `options` are further fields of it."""
        return Evidence(
            frames=self.exchange.frames,
            sent=self.exchange.sent(),
            records=self.published(),
            outages=self.outages,
            dead_letters=self.exchange.known_dead_letters(),
            **options,
        )


def staged(test: Callable[[SmallStage], Coroutine[None, None, None]], **options: Any) -> None:
    """Run a test in virtual time."""

    async def run() -> None:
        await test(SmallStage(loop, **options))

    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())


def _headers(record: Record) -> dict[str, bytes]:
    trace = record.trace_id.replace("-", "")
    return {
        "trace-id": record.trace_id.encode(),
        "traceparent": f"00-{trace}-{trace[16:]}-01".encode(),
        "message-type": CONTRACTS[record.topic].message.__name__.encode(),
        "exchange-ms": b"%d" % record.exchange_ms,
        "received-ns": b"%d" % record.received_ns,
        "journal-id": _JOURNAL,
        "journal-position": b"%d" % record.position,
        "record-index": b"%d" % record.number,
    }
