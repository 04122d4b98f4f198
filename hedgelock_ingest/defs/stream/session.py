"""
One session of the stream in a separate thread, so that Dagster's interrupts are never raised inside the event loop.

An interrupt raised in a callback of the loop would be swallowed. Dagster interrupts the main thread, which waits
outside the loop and asks it to drain.
"""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Callable

import uvloop

from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.service import Service
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.status import Statistics, statistics
from hedgelock_ingest.web import serving

_PULSE_INTERVAL_S = 0.5
_STATISTICS_TIMEOUT_S = 5.0
_PORT_WAIT_S = 5.0
"""Time that the last run may take to close its web port after it has released the journal."""
SHUTDOWN_GRACE_S = 15.0
"""Time that a run may take to end after the deadline for draining."""


class StreamSession:
    """A shard's service with its web pages, from `start` until `stop` or its end by an error."""

    def __init__(self, settings: Settings, shard: str) -> None:
        """Create a session; nothing is opened."""
        self.settings = settings
        self.shard = shard
        self.error: BaseException | None = None
        self.pulse_s = time.monotonic()
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ended = threading.Event()
        # A daemon thread: a hanging loop must not keep the process, and with it the journal's lock.
        self._thread = threading.Thread(target=self._run, name=f"stream-{shard}", daemon=True)

    def start(self) -> None:
        """Start the thread; `error` holds the cause if the session fails."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    @property
    def has_begun(self) -> bool:
        """Whether it was started."""
        return self._thread.ident is not None

    @property
    def is_opening(self) -> bool:
        """Whether it was started and is not open yet; a large journal takes a while."""
        return self._thread.is_alive() and self._service is None

    @property
    def is_live(self) -> bool:
        """Whether the service is open and its event loop made progress within the last 5 s."""
        return self._service is not None and time.monotonic() - self.pulse_s < 10 * _PULSE_INTERVAL_S

    @property
    def feeds(self) -> list[str]:
        """The feeds that the shard carries; empty until the session is open."""
        return self._service.plan.feeds if self._service else []

    @property
    def position(self) -> int:
        """The position of the last frame that Kafka acknowledged."""
        return self._service.stream.stats.position if self._service else 0

    @property
    def owns_journal(self) -> bool:
        """Whether the lock still excludes other processes; true also before it is taken."""
        return self._service is None or not self.is_running or self._service.journal.is_owned

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it has ended."""
        return self._ended.wait(timeout_s)

    def statistics(self) -> Statistics | None:
        """Collect the statistics inside the loop; None if it is not open or does not answer in time."""
        service = self._service
        if service is None or self._loop is None:
            return None
        with contextlib.suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            answer = asyncio.run_coroutine_threadsafe(_call(lambda: statistics(service)), self._loop)
            return answer.result(_STATISTICS_TIMEOUT_S)
        return None

    def stop(self, wait_s: float) -> bool:
        """Ask it to drain and end, which takes `STOP_TIMEOUT` plus the closing; return whether it has ended."""
        with contextlib.suppress(RuntimeError):  # the loop may just have closed
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
        return self._ended.wait(wait_s)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._listen()) as listener:
                service = Service(self.settings, self.shard)
                uvloop.run(self._serve(service, listener))
        except BaseException as error:  # noqa: BLE001  # the thread ends here; the waiting thread raises the error
            self.error = error
        finally:
            self._ended.set()

    def _listen(self) -> socket.socket:
        deadline_s = time.monotonic() + _PORT_WAIT_S
        while True:
            try:
                return serving.listen(self.settings, self.shard)
            except SettingsInvalid:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)

    async def _serve(self, service: Service, listener: socket.socket) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._service = service
        pulse = asyncio.create_task(self._beat(), name="pulse")
        try:
            await serving.run_service(service, listener, self._stop)
        finally:
            pulse.cancel()
            await asyncio.wait({pulse})

    async def _beat(self) -> None:
        while True:
            self.pulse_s = time.monotonic()
            await asyncio.sleep(_PULSE_INTERVAL_S)


async def _call[T](function: Callable[[], T]) -> T:
    return function()
