"""Run a shard with its web pages in one event loop: what `hedgelock-ingest run` does."""

import asyncio
import signal

import structlog
import uvloop

from hedgelock_ingest import logs
from hedgelock_ingest.service import Service
from hedgelock_ingest.settings import Settings

log = structlog.get_logger(__name__)


def run(settings: Settings, shard: str) -> int:
    """
    Run one shard until SIGTERM or SIGINT, drain, and return the exit code.

    Raises:
        IngestError: The shard could not start, or met something that waiting cannot mend.
    """
    logs.configure(settings)
    service = Service(settings, shard)
    uvloop.run(_run(service))
    return 0


async def _run(service: Service) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await service.run(stop)
