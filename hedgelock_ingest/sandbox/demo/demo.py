"""The demo: a simulated Bybit, a real Kafka and the stream under Dagster on this machine, with a live view."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live

from hedgelock_ingest import logs
from hedgelock_ingest.errors import DataFolderInUse, SandboxError
from hedgelock_ingest.kafka.consumer import follow
from hedgelock_ingest.kafka.topic_admin import ensure_topics
from hedgelock_ingest.sandbox.children import end, end_all, start_tied
from hedgelock_ingest.sandbox.demo import dagster_home
from hedgelock_ingest.sandbox.demo.record_counts import RecordCounts
from hedgelock_ingest.sandbox.demo.view import DemoState, commands_of, line_of, view_of
from hedgelock_ingest.sandbox.kafka import EmbeddedKafka
from hedgelock_ingest.sandbox.kafka.data_folder import locked
from hedgelock_ingest.sandbox.kafka.tcp_ports import free_port, is_free
from hedgelock_ingest.settings import Settings

FOLDER = Path(".hedgelock/demo")
_STOP_TIMEOUT_S = 15.0
_VIEW_INTERVAL_S = 0.5
_LINE_INTERVAL_S = 5.0
_WATCH_INTERVAL_S = 0.2
_RESTART_AFTER_S = 1.0
_USUAL_PORT = 3000
"""Dagster's usual port."""


def run_demo(
    *, duration_s: float | None = None, with_dagster: bool = True, fresh: bool = False, folder: Path = FOLDER
) -> int:
    """
    Run the demo until Ctrl-C, or for `duration_s`; its data stay in `folder` for the next run.

    Args:
        duration_s: Seconds until the demo ends; None means until Ctrl-C.
        with_dagster: Whether Dagster runs the stream and the polls; else the stream runs without Dagster.
        fresh: Remove what an earlier demo stored in `folder` first.
        folder: Where all data are stored.

    Returns:
        0, or 1 when the records in Kafka break a guarantee.

    Raises:
        SandboxError: A part could not be started, or another demo uses the folder.
    """
    if fresh:
        remove_data(folder)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=False)
    is_flawless = _run(console, folder, duration_s=duration_s, with_dagster=with_dagster)
    console.print(
        f"Ended; data kept in {folder} for the next run; make demo ARGS=--fresh starts without them.", soft_wrap=True
    )
    return 0 if is_flawless else 1


def remove_data(folder: Path) -> None:
    """
    Remove what earlier demos stored in a folder.

    Raises:
        SandboxError: A demo uses the folder.
    """
    with _refusing_second_demo(), locked(folder / "kafka"):
        shutil.rmtree(folder)


@contextlib.contextmanager
def _refusing_second_demo() -> Iterator[None]:
    try:
        yield
    except DataFolderInUse as error:
        raise SandboxError(
            f"another demo runs in this clone (process {error.owner}); stop it with Ctrl-C, or use another clone"
        ) from error


def _run(console: Console, folder: Path, *, duration_s: float | None, with_dagster: bool) -> bool:
    with contextlib.ExitStack() as stack:
        console.print("Starting a real Apache Kafka …")
        with _refusing_second_demo():
            kafka = stack.enter_context(EmbeddedKafka(folder / "kafka"))
        console.print(f"  at {kafka.bootstrap_servers}")
        log = stack.enter_context((folder / "demo.log").open("ab"))
        exchange = _start_exchange(log)
        stack.callback(end, exchange.process, _STOP_TIMEOUT_S)
        console.print(f"Started a simulated Bybit at {exchange.addresses['rest_url']}")
        # Open until the process ends, since libraries may log until then.
        logs.configure(Settings(monitoring_log_level="WARNING"), (folder / "demo.log").open("a", buffering=1))
        demo = _Demo(folder, log, kafka.bootstrap_servers, exchange.addresses, with_dagster)
        stack.callback(demo.end)
        if with_dagster:
            dagster_home.prepare_home(demo.home)
        demo.start_stream()
        for place, what in demo.places:
            console.print(f"  {place}  {what}", soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner() as runner:
            runner.run(demo.show(console, duration_s))
        console.print(demo.ending)
    return demo.counts.is_flawless


@dataclass(frozen=True, slots=True)
class _Exchange:
    process: subprocess.Popen[bytes]
    addresses: dict[str, Any]


def _start_exchange(log: IO[bytes]) -> _Exchange:
    options = ["--seed", str(int(time.time())), "--key", "read-only"]
    command = [sys.executable, "-m", "hedgelock_ingest", "sandbox", "exchange", *options]
    process = start_tied(command, environment=os.environ, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    ready_line = process.stdout.readline()
    if not ready_line:
        process.wait()
        raise SandboxError(f"the simulated exchange could not be started; see {log.name}")
    return _Exchange(process, json.loads(ready_line))


def _dagster_port() -> int:
    return _USUAL_PORT if is_free(_USUAL_PORT) else free_port()


@dataclass(slots=True)
class _Demo:
    """The stream as a child process that is restarted when it ends, and its state."""

    folder: Path
    log: IO[bytes]
    bootstrap_servers: str
    addresses: dict[str, Any]
    with_dagster: bool
    counts: RecordCounts = field(init=False)
    port: int = field(default_factory=free_port)
    dagster_port: int = field(default_factory=_dagster_port)
    stream_pids: list[int] = field(default_factory=list)
    stream: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        self.counts = RecordCounts(
            books=settings.kafka_topic_market_order_books,
            prices=settings.kafka_topic_market_data,
            accounts=settings.kafka_topic_account_updates,
        )

    @property
    def home(self) -> Path:
        """Dagster's storage folder."""
        return self.folder / "dagster"

    @property
    def places(self) -> list[tuple[str, str]]:
        """Addresses and commands to look at, each with a description."""
        pages = (f"http://127.0.0.1:{self.port}/docs", "the stream")
        if not self.with_dagster:
            return [pages]
        dagster = f"http://127.0.0.1:{self.dagster_port}"
        return [
            (f"{dagster}/assets/kafka/market-data?view=checks", "does data flow"),
            (f"{dagster}/runs", "runs, Terminate"),
            (f"{dagster}/assets/collateral", "the loan, LTV"),
            pages,
        ]

    @property
    def ending(self) -> str:
        """What happens at the end, and how long it takes."""
        if self.with_dagster:
            return "Ending: the stream drains, then Dagster and Kafka stop; up to half a minute"
        return "Ending: the stream drains, then Kafka stops; a few seconds"

    @property
    def settings(self) -> Settings:
        """The settings of the stream."""
        return Settings(
            bybit_public_ws_url=self.addresses["public_ws_url"],
            bybit_private_ws_url=self.addresses["private_ws_url"],
            bybit_rest_url=self.addresses["rest_url"],
            bybit_api_key=SecretStr(self.addresses["api_key"]),
            bybit_api_secret=SecretStr(self.addresses["api_secret"]),
            bybit_account_id="demo",
            bybit_spot_symbols=("BTCUSDT", "ETHUSDT"),
            bybit_linear_symbols=("BTCUSDT", "ETHUSDT"),
            kafka_bootstrap_servers=self.bootstrap_servers,
            journal_directory=self.folder / "journal",
            monitoring_port=self.port,
        )

    def start_stream(self) -> None:
        """Start the stream, for the first time or again."""
        settings = self.settings
        own = {
            "BYBIT_PUBLIC_WS_URL": settings.bybit_public_ws_url,
            "BYBIT_PRIVATE_WS_URL": settings.bybit_private_ws_url,
            "BYBIT_REST_URL": settings.bybit_rest_url,
            "BYBIT_API_KEY": self.addresses["api_key"],
            "BYBIT_API_SECRET": self.addresses["api_secret"],
            "BYBIT_ACCOUNT_ID": settings.bybit_account_id,
            "BYBIT_SPOT_SYMBOLS": ",".join(settings.bybit_spot_symbols),
            "BYBIT_LINEAR_SYMBOLS": ",".join(settings.bybit_linear_symbols),
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "JOURNAL_DIRECTORY": str(settings.journal_directory),
            "MONITORING_PORT": str(settings.monitoring_port),
        }
        command = [sys.executable, "-m", "hedgelock_ingest", "run"]
        if self.with_dagster:
            command, own = dagster_home.command(self.dagster_port), own | dagster_home.environment(self.home)
        self.stream = start_tied(command, environment=os.environ | own, stdout=self.log, stderr=self.log)

    def end(self) -> None:
        """Drain and end the stream, then end all other parts."""
        if self.stream is not None:
            end_all(self.stream, _STOP_TIMEOUT_S)

    async def show(self, console: Console, duration_s: float | None) -> None:
        """Keep the stream running and display its state."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read_back(), name="read-back")
            painting = tasks.create_task(self._paint(console), name="paint")
            keeping = tasks.create_task(self._keep_alive(), name="keep-alive")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), duration_s)
            reading.cancel()
            painting.cancel()
            keeping.cancel()

    async def _read_back(self) -> None:
        topics = await ensure_topics(self.settings)
        async for group in follow(self.settings, {report.name: report.partitions for report in topics}):
            self.counts.take(group)

    async def _paint(self, console: Console) -> None:
        if not console.is_terminal:
            await self._print_lines()
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                live.update(view_of(await self._state()), refresh=True)
                await asyncio.sleep(_VIEW_INTERVAL_S)

    async def _print_lines(self) -> None:
        shown_pid: int | None = None
        while True:
            await asyncio.sleep(_LINE_INTERVAL_S)
            now = await self._state()
            if now.stream_pid != shown_pid:
                shown_pid = now.stream_pid
                for what, text in commands_of(now):
                    print(f"  {what}: {text}")
            print(line_of(now), flush=True)

    async def _state(self) -> DemoState:
        statistics = await asyncio.to_thread(read_statistics, self.port)
        stream_pid = dagster_home.stream_pid(self.settings.journal_directory / "main")
        if statistics is not None and stream_pid is not None and self.stream_pids[-1:] != [stream_pid]:
            self.stream_pids.append(stream_pid)
        return DemoState(
            statistics=statistics,
            counts=self.counts,
            stream_pid=self.stream_pids[-1] if self.stream_pids else None,
            starts=len(self.stream_pids),
            bootstrap_servers=self.bootstrap_servers,
            rest_url=self.addresses["rest_url"],
            places=self.places,
            folder=str(self.folder),
            log=self.log.name,
        )

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            if self.stream is not None and self.stream.poll() is not None:
                await asyncio.to_thread(end_all, self.stream, _STOP_TIMEOUT_S)
                await asyncio.sleep(_RESTART_AFTER_S)
                self.start_stream()


def read_statistics(port: int) -> dict[str, Any] | None:
    """Return the answer of `/stats`, without any proxy of the environment; None if there is none."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/stats", timeout=1) as answer:
            statistics: dict[str, Any] = json.load(answer)
            return statistics
    except (OSError, ValueError):
        return None
