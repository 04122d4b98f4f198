"""Serving of a shard and its web pages in one event loop, for `hedgelock-ingest run` and the streaming op."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
import uvloop

from hedgelock_ingest import logs
from hedgelock_ingest.errors import SettingsInvalid
from hedgelock_ingest.journal import locked_by, owner_of
from hedgelock_ingest.service import Service
from hedgelock_ingest.settings import Settings
from hedgelock_ingest.web.app import make_app

log = structlog.get_logger(__name__)

_CLOSE_TIMEOUT_S = 1
_SWITCH_INTERVAL_S = 0.00005
"""
How long the journal's thread waits before it requests the interpreter lock; Python's default is 5 ms.

The wait restarts whenever the event loop releases the lock and takes it back, as it does to read and write. So this
must be less than the time between: at 20,000 frames/s trimming a slice takes 1 ms with 0.05 ms here, and 5 ms with
0.5 ms.
"""


def run(settings: Settings, shard: str) -> int:
    """
    Run one shard until SIGTERM or SIGINT, drain, and return the exit code.

    Raises:
        JournalLocked: Another process runs this shard.
        IngestError: The shard could not start, or met an error that it cannot recover from.
    """
    logs.configure(settings)
    # Before the port, which the same process has: another port would not help.
    folder = settings.shard(shard).journal_directory
    if (owner := owner_of(folder)) is not None:
        raise locked_by(folder, owner or "unknown")
    with contextlib.closing(listen(settings, shard)) as listener:
        service = Service(settings, shard)
        uvloop.run(_run_until_signal(service, listener))
    return 0


async def _run_until_signal(service: Service, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_service(service, listener, stop)


async def run_service(service: Service, listener: socket.socket, stop: asyncio.Event) -> None:
    """
    Run a shard and its pages until `stop` is set, then drain.

    Raises:
        IngestError: The shard met an error that it cannot recover from.
    """
    # The journal's thread waits this long for the interpreter lock after each commit when the loop is busy.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Objects of the imports are never garbage, and scanning them all blocks the loop for 60 ms.
    gc.collect()
    gc.freeze()
    async with _pages(service, listener):
        await service.run(stop)


@contextlib.asynccontextmanager
async def _pages(service: Service, listener: socket.socket) -> AsyncIterator[None]:
    server = _Server(uvicorn.Config(make_app(service), log_config=None, access_log=False, lifespan="off"))
    host, port = listener.getsockname()[:2]
    log.info("pages_open", address=f"http://{host}:{port}/docs")
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=_CLOSE_TIMEOUT_S)
        serving.cancel()
        await asyncio.wait({serving})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the stream, which drains first."""
        yield


def listen(settings: Settings, shard: str) -> socket.socket:
    """
    Bind the port of a shard's pages before anything else starts.

    Raises:
        SettingsInvalid: The port is in use, or the host is not an address of this machine.
    """
    host, port = settings.monitoring_host, settings.shard(shard).monitoring_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsInvalid(
            [
                f"MONITORING_HOST={host}, MONITORING_PORT={port}: cannot listen there ({error.strerror}); "
                "choose another port, or 0 for a free one"
            ]
        ) from error
