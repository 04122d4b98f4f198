"""The simulated world: exchange, broker, disk and clocks, the process, and the orchestrator that restarts it."""

import asyncio
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from pydantic import SecretStr

from hedgelock_ingest.sandbox.exchange.keys import KEYS
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.processes.evidence import Outage
from hedgelock_ingest_tests.simulation.broker import MemoryBroker
from hedgelock_ingest_tests.simulation.exchange import Exchange
from hedgelock_ingest_tests.simulation.frame_log import Disk
from hedgelock_ingest_tests.simulation.loop import EPOCH_NS, ProcessLifetime, VirtualClock, VirtualLoop
from hedgelock_ingest_tests.simulation.orchestration import Daemon, Orchestrator, Supervisor
from hedgelock_ingest_tests.simulation.process import SimulatedProcess

BEAT_S = 0.25
NEVER_MS = 2**62
PAUSES_WITHIN_S = 5.0
"""How long lines may stay open while the journal refuses frames: until a delayed close times out."""
SETTLED_S = 1.0
"""How long everything must be healthy before an outage counts as over."""
_DISK_BYTES = 8 * 1024 * 1024
"""Small enough that its reserve cannot shrink when others fill it."""


@cache
def base_settings() -> Settings:
    """Return the settings of the simulated world; each run overrides some of them."""
    key = KEYS["read-only"]
    return Settings(
        bybit_api_key=SecretStr(key.api_key),
        bybit_api_secret=SecretStr(key.api_secret),
        bybit_public_ws_url="ws://exchange/v5/public",
        bybit_private_ws_url="ws://exchange/v5/private",
        bybit_rest_url="http://exchange",
        bybit_rest_requests_per_second=50,
        bybit_reconnect_initial_delay=0.05,
        bybit_reconnect_max_delay=0.5,
        bybit_stale_after=6,
        bybit_ping_interval=10,
        kafka_topic_partitions=2,
        kafka_compression="none",
    )


class World:
    """
    Everything of one simulated run; all randomness comes from `seed`.

    `outages` are the times in which connections were cut and frames may be missing.
    `has_begun`: all feeds were live once. `calm_since_ms`, `calm_until_ms`: from the last fault to the last stop.
    `has_skipped`: a line may lack an update of a book.
    `most_ahead_ms`: by how much the process's wall clock, and with it the times of gaps, was ahead at most.
    `is_wallet_old`: REST has returned an old wallet, which its next poll corrects.
    """

    def __init__(self, seed: int, *, is_orchestrated: bool, fields: dict[str, Any]) -> None:
        """
        Prepare the world; nothing is started.

        Args:
            seed: The seed of all random draws.
            is_orchestrated: Whether Dagster's daemon starts processes, instead of a plain supervisor.
            fields: Settings of this run.
        """
        self.random = Random(seed)
        self.market_random = Random(f"market faults {seed}")
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.machine_clock = VirtualClock(self.loop)
        self.settings = base_settings().model_copy(update=fields)
        self.exchange = Exchange(
            self.clock, self._drawn(), loop=self.loop, base_ms=EPOCH_NS // 1_000_000, goes_flat=bool(seed % 2)
        )
        self.broker = MemoryBroker(self.clock, self._drawn())
        self.disk = Disk(self.clock, self._drawn())
        self.disk.leave(_DISK_BYTES)
        self.outages: list[Outage] = []
        self.findings: list[str] = []
        self.trace: list[str] = []
        self.starts = 0
        self.uncertain_dead_letters = self.most_ahead_ms = 0
        self.least_limit_bytes = 1 << 30
        self.is_wallet_old = self.has_begun = self.has_skipped = False
        self.calm_since_ms = self.calm_until_ms = NEVER_MS
        self.moves_market = self.moves_account = True
        self.save_interval_s = self.random.choice([0.1, 5.0])
        kind = Daemon if is_orchestrated else Supervisor
        self.orchestrator: Orchestrator = kind(self._start, self.machine_clock, self._drawn())
        self._disturbed_ms: int | None = None
        self._disturbed_until_s = 0.0
        self._well_since_s: float | None = None
        self._paused_s: float | None = None
        self.loop.on_death = self._died

    @property
    def process(self) -> SimulatedProcess | None:
        """The process that was started last."""
        return self.orchestrator.process

    def note(self, text: str) -> None:
        """Add an event with its time to the trace."""
        self.trace.append(f"{self.loop.now_s - 1_000.0:9.3f} s  {text}")

    def find(self, text: str) -> None:
        """Record a finding that breaks a guarantee."""
        self.note(f"FOUND {text}")
        self.findings.append(text)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run an action after a delay."""
        self.loop.call_later(delay_s, action)

    def disturb(self, for_s: float = 0.5, *, since_s: float = 0.0) -> None:
        """Declare that frames may be missing from `since_s` ago until all is healthy again after `for_s`."""
        if self._disturbed_ms is None:
            self._disturbed_ms = self.exchange.now_ms() - int(since_s * 1000)
        if self.calm_until_ms == NEVER_MS:
            self.calm_since_ms = NEVER_MS
        self._disturbed_until_s = max(self._disturbed_until_s, self.loop.now_s + for_s)
        self._well_since_s = None

    @property
    def is_disturbed(self) -> bool:
        """Whether frames may be missing now."""
        return self._disturbed_ms is not None

    async def beat(self) -> None:
        """Advance the market, and watch the process."""
        while True:
            if self.moves_market:
                self.exchange.beat(moves_account=self.moves_account)
            self._watch()
            await self.clock.sleep(BEAT_S * self.random.uniform(0.6, 1.4))

    @property
    def is_well(self) -> bool:
        """Whether every feed is live over connections without faults."""
        process = self.process
        if process is None or not process.is_live:
            return False
        sockets = self.exchange.connections(process.lifetime)
        wanted = 3 * self.settings.bybit_lines
        return len(sockets) >= wanted and all(each.takes_data and each.channels for each in sockets)

    @property
    def is_quiet(self) -> bool:
        """Whether the process has the complete account, and no pending REST requests."""
        service = None if self.process is None else self.process.service
        return (
            service is not None and not service.stream.missing_account_parts and service.rest_service.gap_fill.is_idle
        )

    def _watch(self) -> None:
        process = self.process
        if process is not None and process.crash is not None:
            self.find(f"{process.lifetime.name} crashed with {process.crash!r}")
            process.crash = None
        if process is not None and process.is_stopping and not process.is_over:
            self.disturb(since_s=2 * BEAT_S)  # Dagster's daemon requests the stop some time after the fault
        self._watch_pause(process)
        if self._disturbed_ms is None:
            return
        now_s = self.loop.now_s
        if not self.is_well or now_s < self._disturbed_until_s:
            self._well_since_s = None
        elif self._well_since_s is None:
            self._well_since_s = now_s
        elif now_s - self._well_since_s >= SETTLED_S:
            self.end_outage()

    def _watch_pause(self, process: SimulatedProcess | None) -> None:
        if process is None or process.service is None or not process.service.stream.is_paused:
            self._paused_s = None
            return
        self.disturb(since_s=2 * BEAT_S)
        self._paused_s = self.loop.now_s if self._paused_s is None else self._paused_s
        if self.loop.now_s - self._paused_s > PAUSES_WITHIN_S and self.exchange.connections(process.lifetime):
            self.find(f"{process.lifetime.name} keeps lines open while its journal refuses frames")
            self._paused_s = None

    def end_outage(self) -> None:
        """End the current outage."""
        if self._disturbed_ms is not None:
            self.outages.append(Outage(self._disturbed_ms, self.exchange.now_ms()))
            self._disturbed_ms = self._well_since_s = None

    def _start(self) -> SimulatedProcess:
        self.starts += 1
        self.note(f"process {self.starts} begins")
        return SimulatedProcess(
            f"process {self.starts}",
            self.settings,
            loop=self.loop,
            clock=self.machine_clock,
            random=self._drawn(),
            exchange=self.exchange,
            broker=self.broker,
            disk=self.disk,
            save_interval_s=self.save_interval_s,
        )

    def _died(self, lifetime: ProcessLifetime) -> None:
        self.note(f"{lifetime.name} ends")
        if not self.has_begun:
            # A feed without a frame in the journal has no recorded start, so its losses cannot be recorded.
            self.exchange.forget_readers()
        self.disturb(since_s=1.0)  # frames of a line closed before may not have been written yet
        self.exchange.process_ended(lifetime)

    def _drawn(self) -> Random:
        return Random(self.random.getrandbits(64))


async def until(world: World, condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    deadline_s = world.loop.now_s + timeout_s
    while not condition():
        if world.loop.now_s > deadline_s:
            return False
        await asyncio.sleep(BEAT_S)
    return True
