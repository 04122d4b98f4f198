"""One process in the simulated world: the real service with exchange, broker and disk in memory."""

import asyncio
import contextvars
from random import Random

from hedgelock_ingest.errors import IngestError
from hedgelock_ingest.kafka.ports import KafkaTiming
from hedgelock_ingest.kafka.publisher import Publisher
from hedgelock_ingest.protocol.arbitration import ArbitrationTiming
from hedgelock_ingest.service import Dependencies, Service
from hedgelock_ingest.settings import Settings
from hedgelock_ingest_tests.simulation.broker import MemoryBroker
from hedgelock_ingest_tests.simulation.exchange import Exchange
from hedgelock_ingest_tests.simulation.frame_log import Disk
from hedgelock_ingest_tests.simulation.loop import LIFETIME, ProcessLifetime, VirtualClock, VirtualLoop

SHARD = "main"


class SimulatedProcess:
    """
    One process of the stream, from its start until it is killed or ends.

    `error` is a permanent error that ended it; `crash` is an unexpected exception, which is always a finding.
    `left` is the number of frames that an orderly end has left unpublished.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        loop: VirtualLoop,
        clock: VirtualClock,
        random: Random,
        exchange: Exchange,
        broker: MemoryBroker,
        disk: Disk,
        save_interval_s: float,
    ) -> None:
        """Start the process; `clock` is its machine's, `random` is used by it alone."""
        self.lifetime = ProcessLifetime(name, clock.wall_ns)
        self.service: Service | None = None
        self.error: IngestError | None = None
        self.crash: BaseException | None = None
        self.was_killed = True
        self.left = 0
        self._settings = settings
        self._loop = loop
        self._stop = asyncio.Event()
        http = exchange.http(self.lifetime)
        timing = KafkaTiming(delivery_timeout_s=settings.kafka_delivery_timeout)
        self._dependencies = Dependencies(
            clock=clock,
            random=random,
            random_bytes=random.randbytes,
            connect=exchange.connect(self.lifetime),
            open_http=lambda *_, **__: http,
            open_log=lambda _, max_bytes: disk.open(self.lifetime, max_bytes=max_bytes),
            save_interval_s=save_interval_s,
            arbitration_timing=ArbitrationTiming(join_margin_s=2.5),  # lines lie up to 2 s apart here
            publisher=lambda journal_id: Publisher(
                settings, journal_id, cluster=broker.cluster(settings, self.lifetime, clock), clock=clock, timing=timing
            ),
        )
        context = contextvars.copy_context()
        context.run(LIFETIME.set, self.lifetime)
        self._task = loop.create_task(self._run(), context=context)

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.lifetime.is_dead

    @property
    def is_stopping(self) -> bool:
        """Whether the process was asked to end."""
        return self._stop.is_set()

    @property
    def is_live(self) -> bool:
        """Whether every feed has a line and nothing is held back."""
        service = self.service
        return (
            service is not None
            and not self.is_over
            and not service.receiver.without_line
            and not service.stream.is_paused
        )

    @property
    def has_caught_up(self) -> bool:
        """Whether Kafka has all frames that were read."""
        service = self.service
        return (
            service is not None
            and service.stream.stats.producer_opened > 0
            and not service.receiver.waiting
            and not service.stream.stats.lag_frames
        )

    def stop(self) -> None:
        """Ask the process to drain and end, as SIGTERM does."""
        self._stop.set()

    def kill(self, *, after_steps: int = 0) -> None:
        """End the process as SIGKILL does, after this many further steps of its event loop."""
        if after_steps:
            self.lifetime.kill_in = after_steps
        else:
            self._loop.kill(self.lifetime)

    async def _run(self) -> None:
        try:
            self.service = Service(self._settings, SHARD, self._dependencies)
            await self.service.run(self._stop)
            self.left = self.service.receiver.waiting + self.service.stream.stats.lag_frames
        except IngestError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  a finding of the judge
            self.crash = error
        self.was_killed = False
        self._loop.kill(self.lifetime)
