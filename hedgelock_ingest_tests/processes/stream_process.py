"""The service as a process: `python -m hedgelock_ingest run` with its settings in the environment."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hedgelock_ingest.sandbox.children import start_tied
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port

SETTINGS_BEGIN_WITH = (
    *("BYBIT_", "KAFKA_", "MONITORING_", "JOURNAL_", "STREAM_", "STOP_", "ORDER_BOOK_", "HEDGELOCK_"),
    "ALERT_",
)


class StreamProcess:
    """
    The process of one shard in its own folder; a test can start and end it repeatedly.

    Each start writes its log to a new file, `stream-1.log`, `stream-2.log`, …
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """
        Prepare the folder; nothing is started.

        Args:
            folder: The working folder, with logs and the journal.
            settings: The environment's settings besides journal and port.
        """
        self.folder = folder
        self.journal = folder / "journal"
        self.settings = dict(settings)
        self.starts = 0
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process of the last start."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """The log file of the last start."""
        return self.folder / f"stream-{self.starts}.log"

    def environment(self) -> dict[str, str]:
        """Return an environment that has only the test's settings of ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_BEGIN_WITH)}
        no_file = self.folder / "collector.yaml"
        no_file.write_text("bybit_testnet: true\n")
        ours = {
            "HEDGELOCK_CONFIG": str(no_file),
            "JOURNAL_DIRECTORY": str(self.journal),
            "MONITORING_PORT": str(self.port),
            **self.settings,
        }
        return kept | ours

    def start(self) -> None:
        """Start the process."""
        assert not self.is_running
        self.starts += 1
        program = [sys.executable, "-m", "hedgelock_ingest", "run"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("wb") as log:
            self._process = start_tied(program, environment=self.environment(), stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """End the process with SIGKILL, as the kernel does when memory is short; do nothing when it has ended."""
        if self.is_running:
            self.send(signal.SIGKILL)
        await self.ended(timeout_s=10)

    async def ended(self, *, timeout_s: float) -> int:
        """Wait for the end and return the exit code."""
        process = self._process
        assert process is not None
        began_s = time.monotonic()
        while process.poll() is None:
            if time.monotonic() - began_s > timeout_s:
                raise AssertionError(f"the stream did not end within {timeout_s:g} s\n{self.log()}")
            await asyncio.sleep(0.02)
        return process.returncode

    async def stopped(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 30) -> float:
        """Send a signal, expect exit code 0, and return the seconds until the end."""
        began_s = time.monotonic()
        self.send(number)
        code = await self.ended(timeout_s=timeout_s)
        assert code == 0, f"the stream ended with {code}, expected 0\n{self.log()}"
        return time.monotonic() - began_s

    async def page(self, name: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the answer of a page, such as `ready`; (0, {}) while there is no answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://127.0.0.1:{self.port}/{name}") as answer,
            ):
                return answer.status, await answer.json()
        except (OSError, aiohttp.ClientError, TimeoutError):
            return 0, {}

    async def stats(self) -> dict[str, Any]:
        """Return the statistics."""
        status, figures = await self.page("stats")
        assert status == 200, f"no statistics: {status}\n{self.log()}"
        return figures

    async def ready(self, *, timeout_s: float = 30) -> None:
        """Wait until frames flow from every feed into Kafka."""
        await self._until_page("ready", lambda status, _: status == 200, "ready", timeout_s)

    async def acknowledged_further(self, frames: int) -> None:
        """Wait until Kafka has acknowledged this many more frames."""
        begun = (await self.stats())["frames_acknowledged"]
        await self.until_stats("further", lambda found: found["frames_acknowledged"] > begun + frames)

    async def until_stats(self, what: str, condition: Any, *, timeout_s: float = 30) -> dict[str, Any]:
        """Wait until the statistics satisfy a condition, and return them."""
        return await self._until_page(
            "stats", lambda status, found: status == 200 and condition(found), what, timeout_s
        )

    async def caught_up(self, *, timeout_s: float = 60) -> None:
        """Wait until Kafka has acknowledged all journalled frames."""
        await self.until_stats(
            "all acknowledged",
            lambda found: found["journal"]["lag_frames"] == 0 and found["kafka"]["state"] == "closed",
            timeout_s=timeout_s,
        )

    async def _until_page(self, name: str, condition: Any, what: str, timeout_s: float) -> dict[str, Any]:
        began_s = time.monotonic()
        while True:
            status, found = await self.page(name)
            if condition(status, found):
                return found
            if not self.is_running:
                raise AssertionError(f"the stream ended while it should become {what}\n{self.log()}")
            if time.monotonic() - began_s > timeout_s:
                raise AssertionError(f"not {what} within {timeout_s:g} s; {name} says {found}\n{self.log()}")
            await asyncio.sleep(0.05)

    def memory_mib(self) -> float:
        """Return the resident memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def log(self, lines: int = 25) -> str:
        """Return the last lines of the log, for a failure's message."""
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
